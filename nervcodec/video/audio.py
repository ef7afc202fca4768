# SPDX-License-Identifier: MIT
"""Sound: the packets of the first audio stream, taken out of a source and put beside a video again, never decoded."""

from __future__ import annotations

import subprocess
import tempfile

from nervcodec.errors import VideoError
from nervcodec.video import ffmpeg
from nervcodec.video.source import SourceOptions, VideoInfo, input_arguments


def packets(info: VideoInfo, options: SourceOptions) -> bytes:
    """The audio packets of a source's range, as they are, in a Matroska file.

    Their times count from the same zero as the frames', which begin at ``info.first_frame_s``.

    Raises:
        VideoError: the stream cannot be copied.
    """
    # The range is cut on the way out: on the way in ffmpeg would seek to a key frame of the video.
    arguments = [*input_arguments(info.path, SourceOptions(), ()), "-map", "0:a:0", "-c", "copy"]
    if options.start_s:
        arguments += ["-ss", f"{options.start_s:.6f}"]
    if options.duration_s is not None:
        arguments += ["-t", f"{options.duration_s:.6f}"]
    arguments += ["-fflags", "+bitexact"]
    arguments += ["-map_metadata", "-1", "-map_chapters", "-1", "-f", "matroska", "pipe:1"]
    with tempfile.TemporaryFile() as log:
        process = ffmpeg.spawn(["-loglevel", "error", *arguments], stdout=subprocess.PIPE, stderr=log.fileno())
        data, _ = process.communicate()
        log.seek(0)
        reason = ffmpeg.last_complaint(log.read().decode("utf-8", "replace"))
    if process.returncode or not data:
        raise VideoError(f"{info.path}: its sound cannot be copied ({reason}); --audio none leaves it out")
    return data
