# SPDX-License-Identifier: MIT
"""Frames of a base layer and those around them, as a refiner is shown them: no more is decoded than is needed.

A stream is read from the last place before a frame where decoding may begin. Who asks for frames one after the other
has each decoded once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import NamedTuple, Protocol

import numpy as np

from nervcodec.base.streams import streams_of
from nervcodec.errors import named
from nervcodec.formats.container import Container
from nervcodec.formats.header import PlaneFormat
from nervcodec.video.planes import Planes

MOST_AROUND = 1  # frames on each side that a network is shown


class Around(NamedTuple):
    """Frames of a base layer, one after the other.

    Attributes:
        planes: of the frames.
        format: what the samples stand for.
        first: number of the first frame, counted from the segment's first.
    """

    planes: Planes
    format: PlaneFormat
    first: int


class Cursor(Protocol):
    """What gives the frames of a base layer."""

    def at(self, segment: int, number: int, around: int) -> Around:
        """See :meth:`BaseCursor.at`."""


class BaseCursor:
    """Goes through the base layer of a container.

    It holds a running decoder between questions; :meth:`close` ends it. One thread may use it at a time.

    Args:
        opened: a container with a base layer.
    """

    def __init__(self, opened: Container):
        self._opened, base = opened, opened.header.base
        assert base is not None
        self._form: PlaneFormat = base.planes
        self._streams = streams_of(opened)
        self._end, self._next = 0, 0  # of the run under way; number of the frame that comes next
        self._frames: Generator[Planes, None, None] | None = None
        self._kept: deque[Planes] = deque(maxlen=2 * MOST_AROUND + 1)

    def at(self, segment: int, number: int, around: int) -> Around:
        """A frame, with its neighbours in the segment.

        Args:
            segment: its number.
            number: of the frame, counted from the segment's first.
            around: how many on each side of it, 0 or :data:`MOST_AROUND`.

        Raises:
            ContainerError: the stream is damaged, or not what the header says.
            VideoError: this ffmpeg cannot decode it.
        """
        facts = self._opened.header.segments[segment]
        first, last = max(number - around, 0), min(number + around, facts.frame_count - 1)
        begin, end = facts.first_frame + first, facts.first_frame + last + 1
        self._ready_for(begin)
        assert self._frames is not None
        while self._next < end:
            with named(self._opened.path):
                self._kept.append(next(self._frames))
            self._next += 1
        oldest = self._next - len(self._kept)
        wanted = list(self._kept)[begin - oldest : end - oldest]
        joined = Planes(*(np.concatenate(p) if len(wanted) > 1 else p[0] for p in zip(*wanted, strict=True)))
        return Around(joined, self._form, first)

    def _ready_for(self, frame: int) -> None:
        """Have a decoder that gives a frame, unless it is still there; a new one where that has less to decode."""
        run = self._streams.run(frame)
        goes_on = self._frames is not None and self._next - len(self._kept) <= frame < self._end
        if not goes_on or run.first > self._next:
            self.close()
            self._frames = self._streams.decode(run)
            self._next, self._end = run

    def close(self) -> None:
        """End the decoder."""
        if self._frames is not None:
            self._frames.close()
        self._frames, self._end, self._next = None, 0, 0
        self._kept.clear()
