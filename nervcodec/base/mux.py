# SPDX-License-Identifier: MIT
"""Base streams as a file that plays anywhere: the packets as they are, not coded again, with times and sound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from nervcodec.base import obu
from nervcodec.errors import VideoError
from nervcodec.video import mux
from nervcodec.video.sound import Sound

SUFFIXES = (".mp4", ".mkv", ".webm")
TICKS_S = 90_000  # a second, for frames with times of their own


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
    since PyAV has no way to say a crop. Times in ``.mkv`` and ``.webm`` are whole milliseconds, as those formats have
    them.

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
    rate = showing.rate if showing.times_s is None else None
    whole = [obu.DELIMITER + unit for unit in units]
    mux.write_av1(path, whole, obu.key_frames(units), ticks, base, showing.sample_aspect_ratio, rate, sound)
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
        ContainerError: it holds no more than the frames that are not shown.
        VideoError: the format is none of these or does not hold these packets, or the place cannot be written.
    """
    _require_suffix(path)
    if skipped and path.suffix.lower() != ".mp4":
        raise VideoError(f"{path}: frames come before the first that is shown, which .mp4 alone can say; choose that")
    mux.write_copy(path, pieces, skipped, sound)


def _require_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise VideoError(f"{path}: the base goes into {', '.join(SUFFIXES)} as it is; choose one of these")


def _ticks(path: Path, count: int, showing: Showing) -> tuple[list[int], Fraction]:
    """When each frame shows and the last ends, and the seconds a tick takes."""
    if showing.times_s is None:
        return list(range(count + 1)), 1 / showing.rate
    ticks = [round(time * TICKS_S) for time in showing.times_s]
    if len(ticks) != count or any(b <= a for a, b in zip(ticks, ticks[1:], strict=False)):
        raise VideoError(f"{path}: {len(ticks)} growing times are needed for {count} frames")
    last_s = 1 / showing.rate if showing.last_s is None else showing.last_s
    return [*ticks, ticks[-1] + max(1, round(last_s * TICKS_S))], Fraction(1, TICKS_S)
