# SPDX-License-Identifier: MIT
"""Frames of a plan's source, segment by segment: as RGB, and as the samples they were made of where those are coded."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

import numpy as np

from nervcodec.colour import to_rgb8
from nervcodec.encoding.plan import Plan
from nervcodec.formats.header import PlaneFormat
from nervcodec.video.planes import Planes, read_planes
from nervcodec.video.reader import read_frames, read_segment


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
