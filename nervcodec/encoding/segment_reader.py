# SPDX-License-Identifier: MIT
"""Frames of a plan's source by segment: one at a time, or a segment as an array."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from nervcodec.encoding.plan import Plan
from nervcodec.errors import VideoError
from nervcodec.media.reader import read_frames, read_planes, read_segment
from nervcodec.media.source import scan


class SegmentReader:
    """Frames of the segments of a source, as planes if the plan has a base layer, else as RGB.

    Segments that are read in order take one pass over the source. A segment that is read again is sought.

    Args:
        plan: of the encode.
        seeks: seek to every segment, in a process that gets only some of them.
    """

    def __init__(self, plan: Plan, seeks: bool = False):
        self.plan, self._seeks = plan, seeks
        self._pass: Generator[Any, None, None] | None = None
        self._next = 0  # frame that the pass gives next
        self._parts: dict[int, Plan | None] = {}

    def frames(self, index: int) -> Generator[Any, None, None]:
        """The frames of a segment: :class:`nervcodec.media.planes.Planes`, or ``(H, W, 3)`` uint8 RGB.

        Args:
            index: of the segment, from 0.
        """
        first, count = self.plan.first_frame(index), self.plan.lengths[index]
        if not first:
            self.close()  # another pass
        if self._seeks or first < self._next:
            yield from self._sought(index, first, count)
            return
        if self._pass is None:
            self._pass = _read(self.plan)
        _skip(self._pass, first - self._next)
        self._next = first
        for frame in itertools.islice(self._pass, count):
            self._next += 1
            yield frame

    def segment(self, index: int) -> np.ndarray:
        """All frames of a segment of a plan without a base layer, ``(n, H, W, 3)`` uint8 RGB."""
        return read_segment(self.frames(index), self.plan.lengths[index])

    def _sought(self, index: int, first: int, count: int) -> Iterator[Any]:
        if index not in self._parts:
            self._parts[index] = part_of(self.plan, index)
        part = self._parts[index]
        with contextlib.closing(_read(self.plan if part is None else part)) as frames:
            _skip(frames, first if part is None else 0)
            yield from itertools.islice(frames, count)

    def close(self) -> None:
        """Close the source."""
        if self._pass is not None:
            self._pass.close()
        self._pass, self._next = None, 0

    def reads_same(self, plan: Plan) -> bool:
        """Whether a plan has the same source and segments, as a copy of this reader's plan does."""
        return all(
            one == other
            for one, other in (
                (plan.info.snapshot, self.plan.info.snapshot),
                (plan.options.source, self.plan.options.source),
                (plan.lengths, self.plan.lengths),
                (plan.planes, self.plan.planes),
            )
        )


def _read(plan: Plan) -> Generator[Any, None, None]:
    if plan.planes is None:
        return read_frames(plan.info, plan.options.source)
    return read_planes(plan.info, plan.options.source, plan.planes)


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
    origin = plan.options.source.start_s
    if not origin:
        origin = plan.info.first_frame_s
    options = replace(plan.options.source, start_s=max(origin + begins, 0.0), duration_s=float(ends - begins))
    try:
        info = scan(plan.source, options)
    except VideoError:  # its index leads nowhere
        return None
    # Where the rate varies there may be one frame more.
    if not info.input.seeks or not np.array_equal(info.checksums[: stop - first], plan.info.checksums[first:stop]):
        return None
    return replace(plan, options=replace(plan.options, source=options), info=info, lengths=[stop - first])


def _skip(frames: Iterator[object], count: int) -> None:
    for _ in itertools.islice(frames, count):
        pass
