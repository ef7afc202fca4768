# SPDX-License-Identifier: MIT
"""Frames of a plan's source, segment by segment: as RGB, and as the samples they were made of where those are coded."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import replace

import numpy as np

from nervcodec.colour import to_rgb8
from nervcodec.encoding.plan import Plan
from nervcodec.errors import VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.video.planes import Planes, read_planes
from nervcodec.video.reader import read_frames, read_segment
from nervcodec.video.source import scan


def segments(plan: Plan, done: int) -> Generator[tuple[np.ndarray, Planes | None], None, None]:
    """The segments of a source that are still to be encoded; it is read once, from its beginning.

    Args:
        plan: of the encode.
        done: segments at the beginning that are encoded already.

    Yields:
        ``(n, H, W, 3)`` uint8 RGB, and the samples of the same frames or None.
    """
    skipped, lengths = sum(plan.lengths[:done]), plan.lengths[done:]
    if plan.planes is None:
        with contextlib.closing(read_frames(plan.info, plan.wanted.source)) as frames:
            _skip(frames, skipped)
            for count in lengths:
                yield read_segment(frames, count), None
        return
    with contextlib.closing(read_planes(plan.info, plan.wanted.source, plan.planes)) as samples:
        _skip(samples, skipped)
        for count in lengths:
            yield _with_frames(joined(samples, count), plan.planes)  # and none is held while the next is read


def segment(plan: Plan, index: int) -> tuple[np.ndarray, Planes | None]:
    """One segment alone, as :func:`segments` gives it; only its part of the source is read where that gives the same.

    Args:
        plan: of the encode.
        index: of the segment, from 0.
    """
    if (part := _part(plan, index)) is not None:
        with contextlib.closing(segments(part, 0)) as found:
            return next(found)
    with contextlib.closing(segments(plan, index)) as found:
        return next(found)


def _part(plan: Plan, index: int) -> Plan | None:
    """A plan of a segment alone; None where seeking to it gives other frames than reading the whole video did."""
    first, times = sum(plan.lengths[:index]), plan.info.times_s
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


def _with_frames(planes: Planes, form: PlaneFormat) -> tuple[np.ndarray, Planes]:
    return to_rgb8(planes, form), planes


def _skip(frames: Iterator[object], count: int) -> None:
    for _ in range(count):
        next(frames)


def joined(frames: Iterator[Planes], count: int) -> Planes:
    """The next single frames as arrays of all of them."""
    first = next(frames)
    planes = Planes(*(np.empty((count, *plane.shape[1:]), plane.dtype) for plane in first))
    for number in range(count):
        frame = next(frames) if number else first
        for plane, one in zip(planes, frame, strict=True):
            plane[number] = one[0]
    return planes
