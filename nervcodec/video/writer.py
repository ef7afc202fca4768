# SPDX-License-Identifier: MIT
"""Frames out: a video file, a folder of PNG images, or y4m on a stream."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from nervcodec.errors import VideoError, explained
from nervcodec.formats.atomic import writing
from nervcodec.video import ffmpeg
from nervcodec.video.sound import Sound

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".y4m")
_CHUNK = 1 << 16  # bytes of a stream copied at a time
BT709 = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]


def raw_input(width: int, height: int, rate: Fraction) -> list[str]:
    """ffmpeg's arguments that read RGB frames of 8 bits from standard input."""
    size = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", str(rate)]
    return [*size, "-i", "pipe:0"]


def pump(frames: Iterable[np.ndarray], process: ffmpeg.Process) -> tuple[int, int]:
    """Send frames, or planes of frames, into ffmpeg; returns how many went and its exit status."""
    count = 0
    try:
        for frame in frames:
            process.write(np.ascontiguousarray(frame).data)
            count += 1
        process.end_input()
        return count, process.wait()
    except BrokenPipeError:
        return count, process.wait() or 1


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    width: int,
    height: int,
    rate: Fraction,
    sample_aspect_ratio: Fraction = Fraction(1),
    crf: int = 18,
    sound: Sound | None = None,
) -> int:
    """Write a video file beside its target and rename it; returns the number of frames.

    The stream is H.264, 4:2:0, tagged BT.709; 4:4:4 where a side is odd, since 4:2:0 cannot hold it. ``.webm``
    gets VP9, ``.y4m`` raw 4:4:4.

    Args:
        path: its suffix chooses the format.
        frames: ``(height, width, 3)`` uint8 RGB.
        width, height: pixels.
        rate: frames a second.
        sample_aspect_ratio: written to the stream.
        crf: constant rate factor, 0 (best) to 51.
        sound: audio packets to put beside the frames, see :meth:`Sound.fitting`; ``.y4m`` holds none.

    Raises:
        VideoError: ffmpeg refused, or the place cannot be written.
    """
    layout = "yuv444p" if width % 2 or height % 2 else "yuv420p"
    aspect = f"setsar={sample_aspect_ratio.numerator}/{sample_aspect_ratio.denominator}"
    if path.suffix.lower() == ".y4m":
        output = ["-vf", aspect, "-pix_fmt", "yuv444p", "-f", "yuv4mpegpipe"]
    else:
        codec = ["-c:v", "libvpx-vp9", "-b:v", "0"] if path.suffix.lower() == ".webm" else ["-c:v", "libx264"]
        output = ["-vf", f"scale=out_color_matrix=bt709:out_range=tv,{aspect}", *BT709]
        output += [*codec, "-crf", str(crf), "-pix_fmt", layout]
        if path.suffix.lower() in (".mp4", ".mov"):
            output += ["-movflags", "+faststart"]
    with writing(path, VideoError) as temporary, tempfile.TemporaryDirectory() as folder:
        arguments = raw_input(width, height, rate)
        if sound is not None and path.suffix.lower() != ".y4m":
            arguments += sound.input_arguments(Path(folder) / "sound.mka")
            output = ["-map", "0:v", "-map", "1:a", *sound.output_arguments(), *output]
        with ffmpeg.Process([*arguments, *output, f"file:{temporary}"], write=True) as process:
            count, status = pump(frames, process)
            if status:
                raise VideoError(f"{path}: cannot be written ({process.complaint()})")
        if not count:
            raise VideoError(f"{path}: no frame to write")
        return count


def write_y4m(
    stream: BinaryIO,
    frames: Iterable[np.ndarray],
    width: int,
    height: int,
    rate: Fraction,
    sample_aspect_ratio: Fraction = Fraction(1),
) -> int:
    """Write YUV4MPEG2 (4:4:4, 8 bit) to an open binary stream; returns the number of frames.

    Raises:
        BrokenPipeError: the reader closed the stream.
        VideoError: the stream cannot be written, or ffmpeg refused.
    """
    aspect = f"setsar={sample_aspect_ratio.numerator}/{sample_aspect_ratio.denominator}"
    output = ["-vf", aspect, "-pix_fmt", "yuv444p", "-strict", "-1", "-f", "yuv4mpegpipe", "-"]
    with ffmpeg.Process([*raw_input(width, height, rate), *output], write=True, read=True) as process:
        with Copying(process, stream) as copying:
            count, status = pump(frames, process)
        if isinstance(copying.error, BrokenPipeError):
            raise copying.error
        if copying.error is not None:
            raise VideoError(f"standard output: cannot be written ({copying.error.strerror})")
        if status:
            raise VideoError(f"standard output: cannot be written ({process.complaint()})")
    return count


class Copying(threading.Thread):
    """Copies what ffmpeg writes to a stream; ends ffmpeg where the stream takes no more.

    Its ``with`` block lasts until all is copied, or ends ffmpeg where it is left by an error: nothing reads from a
    pipe that is closed.

    Attributes:
        error: what went wrong with the stream, or None.
    """

    def __init__(self, process: ffmpeg.Process, stream: BinaryIO):
        super().__init__(daemon=True)
        self._process, self._stream = process, stream
        self.error: OSError | None = None

    def __enter__(self) -> Copying:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.end()
        self.join()

    def run(self) -> None:
        try:
            while data := self._process.read(_CHUNK):
                self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            self.error = error
            self._process.end()


def write_png(path: Path, frame: np.ndarray) -> None:
    """Write one ``(H, W, 3)`` uint8 RGB frame as PNG, beside its target and renamed."""
    from PIL import Image

    with writing(path, VideoError) as temporary:
        Image.fromarray(frame).save(temporary, format="PNG")


def write_pngs(folder: Path, numbered: Iterable[tuple[int, np.ndarray]], digits: int) -> int:
    """Write ``frame_00042.png`` for each (number, frame); returns how many.

    Raises:
        VideoError: the folder cannot be made or written.
    """
    with explained(f"{folder}: cannot be made", VideoError):
        folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for number, frame in numbered:
        write_png(folder / f"frame_{number:0{digits}d}.png", frame)
        count += 1
    return count
