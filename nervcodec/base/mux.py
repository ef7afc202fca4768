# SPDX-License-Identifier: MIT
"""Base streams as a file that plays anywhere: the packets as they are, not coded again, with times and sound."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from nervcodec.base import obu
from nervcodec.base.check import coded_size
from nervcodec.errors import ContainerError, VideoError
from nervcodec.formats.atomic import writing
from nervcodec.video import ffmpeg
from nervcodec.video.sound import Sound

SUFFIXES = (".mp4", ".mkv", ".webm")
TICKS_S = 90_000  # a second, for frames with times of their own
_COPIED_TICK_S = 1e-3  # of times in Matroska


@dataclass(frozen=True)
class Showing:
    """How the frames of a file are shown.

    Attributes:
        width, height: of a frame.
        rate: frames a second.
        times_s: when each frame shows, strictly growing; None for evenly.
        sample_aspect_ratio: width : height of one pixel.
        last_s: how long the last frame shows; None for as long as one does at this rate.
    """

    width: int
    height: int
    rate: Fraction
    times_s: Sequence[float] | None = None
    sample_aspect_ratio: Fraction = Fraction(1)
    last_s: float | None = None


def write(path: Path, streams: Sequence[bytes | memoryview], showing: Showing, sound: Sound | None = None) -> int:
    """Write base streams, one after the other, as one video; returns the number of frames.

    Frames are shown at the size that is coded: one row or column more where a side is odd, and at least 64 each way,
    since ffmpeg has no way to say a crop where it copies packets. Times in ``.mkv`` and ``.webm`` are whole
    milliseconds, as those formats have them. The shape of a frame is written as the nearest ratio of numbers up to 255.

    Args:
        path: its suffix chooses the format, one of ``SUFFIXES``.
        streams: OBUs without delimiters, each beginning with a key frame.
        showing: sizes and times.
        sound: audio packets to put beside the frames, see :meth:`Sound.fitting`.

    Raises:
        ContainerError: a stream is damaged.
        VideoError: the format is none of these, times do not fit the frames, or the place cannot be written.
    """
    _require_suffix(path)
    units = [unit for stream in streams for unit in obu.units(stream)]
    ticks, base = _ticks(path, len(units), showing)
    width, height = coded_size(showing.width, showing.height)
    shape = showing.sample_aspect_ratio * Fraction(width, height)
    arguments = ["-f", "ivf", "-i", "pipe:0"]
    output = ["-aspect", f"{shape.numerator}:{shape.denominator}"]
    # Without a length of its own the last frame may get none, and players then leave it out.
    last_s = float(1 / showing.rate) if showing.last_s is None else max(showing.last_s, 1 / TICKS_S)
    output += ["-bsf:v", f"setts=duration=if(eq(N\\,{len(units) - 1})\\,{last_s:.9f}/TB\\,DURATION)"]
    feed = _ivf(units, ticks, base, (width, height))
    _run(path, arguments, output, feed, sound)
    return len(units)


def write_copied(
    path: Path, pieces: Callable[[], Iterable[bytes]], skipped: int = 0, sound: Sound | None = None
) -> None:
    """Write the packets of a Matroska file as one video, at the times that they have there.

    Args:
        path: its suffix chooses the format, one of ``SUFFIXES``.
        pieces: give the file, in order.
        skipped: frames at its beginning that are not shown; ``.mp4`` alone can say so.
        sound: audio packets to put beside the frames, see :meth:`Sound.fitting`.

    Raises:
        VideoError: the format is none of these or does not hold these packets, or the place cannot be written.
    """
    _require_suffix(path)
    suffix, arguments = path.suffix.lower(), ["-f", "matroska", "-i", "pipe:0"]
    if skipped and suffix != ".mp4":
        raise VideoError(f"{path}: frames come before the first that is shown, which .mp4 alone can say; choose that")
    if skipped:  # what has a time below 0 is not shown
        arguments = ["-itsoffset", f"{-_begins_s(pieces(), skipped):.3f}", *arguments]
    remedy = f"; where {suffix} does not hold this codec, .mkv does" if suffix != ".mkv" else ""
    _run(path, arguments, ["-allow_raw_vfw", "1"] if suffix == ".mkv" else [], pieces(), sound, remedy)


def _begins_s(pieces: Iterable[bytes], skipped: int) -> float:
    """When the first frame that is shown does, counted from the first there is."""
    listing = ["-f", "matroska", "-i", "pipe:0", "-c", "copy", "-f", "framecrc", "-"]
    said = ffmpeg.run(listing, "the copied stream cannot be read", pieces).decode("ascii", "replace")
    ticks = sorted(int(line.split(",")[2]) for line in said.splitlines() if not line.startswith("#"))
    if len(ticks) <= skipped:
        raise ContainerError(f"the copied stream is damaged: it holds {len(ticks)} frames")
    return (ticks[skipped] - ticks[0]) * _COPIED_TICK_S


def _require_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise VideoError(f"{path}: the base goes into {', '.join(SUFFIXES)} as it is; choose one of these")


def _run(
    path: Path, arguments: list[str], output: list[str], feed: Iterable[bytes], sound: Sound | None, remedy: str = ""
) -> None:
    """Copy the packets that are fed, and sound, to a file."""
    chosen = ["-map", "0:v", "-c:v", "copy", *output]
    if path.suffix.lower() == ".mp4":
        chosen += ["-movflags", "+faststart"]
    with writing(path, VideoError) as temporary, tempfile.TemporaryDirectory() as folder:
        if sound is not None:
            arguments = [*arguments, *sound.input_arguments(Path(folder) / "sound.mka")]
            chosen += ["-map", "1:a", *sound.output_arguments()]
        with ffmpeg.Process([*arguments, *chosen, f"file:{temporary}"], feed) as process:
            status = process.wait()
            process.require_feed()
            if status:
                raise VideoError(f"{path}: cannot be written ({process.complaint()}){remedy}")


def _ticks(path: Path, count: int, showing: Showing) -> tuple[list[int], Fraction]:
    """When each frame shows, and the seconds a tick takes."""
    if showing.times_s is None:
        return list(range(count)), 1 / showing.rate
    ticks = [round(time * TICKS_S) for time in showing.times_s]
    if len(ticks) != count or any(b <= a for a, b in zip(ticks, ticks[1:], strict=False)):
        raise VideoError(f"{path}: {len(ticks)} growing times are needed for {count} frames")
    return ticks, Fraction(1, TICKS_S)


def _ivf(units: list[memoryview], ticks: list[int], base: Fraction, size: tuple[int, int]) -> Iterator[bytes]:
    """An IVF file: the simplest that has times."""
    yield struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, b"AV01", *size, base.denominator, base.numerator, len(units), 0)
    for unit, tick in zip(units, ticks, strict=True):
        data = obu.DELIMITER + unit
        yield struct.pack("<IQ", len(data), tick) + data
