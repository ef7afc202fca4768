# SPDX-License-Identifier: MIT
"""Frames of a plan's source by segment: as RGB arrays in memory, or one at a time as the samples that are coded."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator
from dataclasses import replace

import numpy as np

from nervcodec.encoding.plan import Plan
from nervcodec.errors import VideoError
from nervcodec.media.planes import Planes
from nervcodec.media.reader import read_frames, read_planes, read_segment
from nervcodec.media.source import scan


def segments(plan: Plan, done: int) -> Generator[np.ndarray, None, None]:
    """The segments of a source that are still to be encoded; it is read once, from its beginning.

    Args:
        plan: of the encode.
        done: segments at the beginning that are encoded already.

    Yields:
        ``(n, H, W, 3)`` uint8 RGB.
    """
    with contextlib.closing(read_frames(plan.info, plan.wanted.source)) as frames:
        _skip(frames, plan.first_frame(done))
        for count in plan.lengths[done:]:
            yield read_segment(frames, count)


def segment(plan: Plan, index: int) -> np.ndarray:
    """One segment alone, as :func:`segments` gives it; only its part of the source is read where that gives the same.

    Args:
        plan: of the encode.
        index: of the segment, from 0.
    """
    if (part := part_of(plan, index)) is not None:
        plan, index = part, 0
    with contextlib.closing(segments(plan, index)) as found:
        return next(found)


class SegmentReader:
    """Frames of the segments of a source as the samples that a base layer codes, one frame at a time.

    Segments that are read in order take one pass over the source. One that is read again is sought.

    Args:
        plan: of an encode with a base layer.
        alone: seek to every segment, for a worker that is given some of them.
    """

    def __init__(self, plan: Plan, alone: bool = False):
        self._plan, self._alone = plan, alone
        self._pass: Generator[Planes, None, None] | None = None
        self._next = 0  # frame that the pass gives next
        self._parts: dict[int, Plan | None] = {}

    def frames(self, index: int) -> Generator[Planes, None, None]:
        """The frames of a segment, by its number from 0."""
        first, count = self._plan.first_frame(index), self._plan.lengths[index]
        if self._alone or first < self._next:
            yield from self._again(index, first, count)
            return
        if self._pass is None:
            self._pass = self._read(self._plan)
        _skip(self._pass, first - self._next)
        self._next = first
        for frame in itertools.islice(self._pass, count):
            self._next += 1
            yield frame

    def _again(self, index: int, first: int, count: int) -> Iterator[Planes]:
        if index not in self._parts:
            self._parts[index] = part_of(self._plan, index)
        part = self._parts[index]
        with contextlib.closing(self._read(self._plan if part is None else part)) as frames:
            _skip(frames, first if part is None else 0)
            yield from itertools.islice(frames, count)

    def _read(self, plan: Plan) -> Generator[Planes, None, None]:
        assert plan.planes is not None
        return read_planes(plan.info, plan.wanted.source, plan.planes)

    def close(self) -> None:
        """Close the source."""
        if self._pass is not None:
            self._pass.close()


def part_of(plan: Plan, index: int) -> Plan | None:
    """A plan of a segment alone; None where seeking to it gives other frames than reading the whole video did."""
    first, times = plan.first_frame(index), plan.info.times_s
    stop = first + plan.lengths[index]
    if not first or stop - first < 2:
        return None
    # Times are rounded to the microsecond on their way: half a frame before each bound is as far from it as can be.
    begins = times[first] - (times[first] - times[first - 1]) / 2
    later = times[stop] if stop < len(times) else 2 * times[stop - 1] - times[stop - 2]
    ends = (times[stop - 1] + later) / 2
    wanted, origin = plan.wanted.source, plan.wanted.source.start_s
    if not origin:
        origin = plan.info.first_frame_s
    options = replace(wanted, start_s=max(origin + begins, 0.0), duration_s=float(ends - begins))
    try:
        info = scan(plan.source, options)
    except VideoError:  # its index leads nowhere
        return None
    # Where the rate varies there may be one frame more.
    if not info.input.seeks or not np.array_equal(info.checksums[: stop - first], plan.info.checksums[first:stop]):
        return None
    return replace(plan, wanted=replace(plan.wanted, source=options), info=info, lengths=[stop - first])


def _skip(frames: Iterator[object], count: int) -> None:
    for _ in itertools.islice(frames, count):
        pass
