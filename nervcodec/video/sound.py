# SPDX-License-Identifier: MIT
"""Sound: the packets of a source's audio stream, taken out as they are and put beside a video again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nervcodec.video import ffmpeg
from nervcodec.video.source import SourceOptions, VideoInfo

COPIED = "copy"
# What a format gets where it cannot hold the packets as they are; Matroska holds all.
_ENCODERS = {".mp4": "aac", ".mov": "aac", ".avi": "libmp3lame", ".webm": "libopus", ".mkv": "aac"}
# libopus refuses side channels under that name; without this ffmpeg would not rename them.
_LAYOUTS = {"libopus": ["-af", "aformat=channel_layouts=7.1|5.1|quad|stereo|mono"]}


def packets(info: VideoInfo, options: SourceOptions) -> bytes:
    """The audio packets of a source's range, as they are, in a Matroska file.

    Of several streams the one that a player takes. Their times count from the same zero as the frames', which begin
    at ``info.first_frame_s``.

    Raises:
        VideoError: the stream cannot be copied.
    """
    # The range is cut on the way out: on the way in ffmpeg would seek to a key frame of the video.
    arguments = ["-i", f"file:{info.path}", "-vn", "-sn", "-dn", "-c", "copy"]
    if options.start_s:
        arguments += ["-ss", f"{options.start_s:.6f}"]
    if options.duration_s is not None:
        arguments += ["-t", f"{options.duration_s:.6f}"]
    arguments += ["-fflags", "+bitexact"]
    arguments += ["-map_metadata", "-1", "-map_chapters", "-1", "-f", "matroska", "pipe:1"]
    return ffmpeg.run(arguments, f"{info.path}: its sound cannot be copied; --audio none leaves it out")


@dataclass(frozen=True)
class Sound:
    """Audio packets to be put beside frames.

    Attributes:
        data: a Matroska file.
        start_s: the time in it at which the first frame shows.
        duration_s: how much of it; None for all that follows.
        encoder: ``copy`` for the packets as they are, else the encoder of ffmpeg they are coded anew with.
    """

    data: bytes
    start_s: float = 0.0
    duration_s: float | None = None
    encoder: str = COPIED

    @property
    def codec(self) -> str:
        """ffmpeg's name of what the packets are coded with."""
        from nervcodec.video import media

        with self._file() as file, media.opened(file) as container:
            return media.codec_name(container.streams.audio[0])

    def fitting(self, suffix: str) -> Sound:
        """The same as it goes into a format: as it is where the format holds it, else coded anew.

        Args:
            suffix: of the file, such as ``.mp4``.
        """
        with self._file() as file, tempfile.TemporaryDirectory() as folder:
            trial = f"file:{Path(folder) / 'trial'}{suffix.lower()}"
            with ffmpeg.Process(["-i", f"file:{file}", "-c", "copy", "-t", "1", trial]) as process:
                fits = process.wait() == 0
        return replace(self, encoder=COPIED if fits else _ENCODERS.get(suffix.lower(), COPIED))

    def input_arguments(self, file: Path) -> list[str]:
        """Write the packets to ``file``; returns ffmpeg's arguments that read the range."""
        file.write_bytes(self.data)
        arguments = []
        if self.start_s > 0:
            arguments = ["-ss", f"{self.start_s:.6f}"]
        elif self.start_s < 0:
            arguments = ["-itsoffset", f"{-self.start_s:.6f}"]
        if self.duration_s is not None:
            arguments += ["-t", f"{self.duration_s:.6f}"]
        return [*arguments, "-i", f"file:{file}"]

    def output_arguments(self) -> list[str]:
        """ffmpeg's arguments that say how it is written."""
        return ["-c:a", self.encoder, *_LAYOUTS.get(self.encoder, [])]

    @contextmanager
    def _file(self) -> Iterator[Path]:
        """The packets as a file for ffmpeg to read."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sound.mka"
            path.write_bytes(self.data)
            yield path
