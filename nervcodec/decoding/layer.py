# SPDX-License-Identifier: MIT
"""Frames of a base layer by their numbers.

A stream is read from the last place before a frame where decoding can begin. Consecutive frames are decoded once.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from nervcodec.base.streams import streams_of
from nervcodec.errors import named
from nervcodec.formats.container import Container
from nervcodec.media.planes import Planes


class Cursor(Protocol):
    """What gives the frames of a base layer."""

    def frame(self, number: int) -> Planes:
        """See :meth:`BaseCursor.frame`."""


class BaseCursor:
    """Goes through the base layer of a container.

    It holds a running decoder between calls; :meth:`close` ends it. One thread may use it at a time.

    Args:
        opened: a container with a base layer.
    """

    def __init__(self, opened: Container):
        self._opened, self._streams = opened, streams_of(opened)
        self._end, self._next = 0, 0  # of the run under way; number of the frame that comes next
        self._frames: Generator[Planes, None, None] | None = None
        self._last: Planes | None = None  # the frame before that one

    def frame(self, number: int) -> Planes:
        """One frame, arrays of length 1.

        Args:
            number: of the frame in the file.

        Raises:
            ContainerError: the stream is damaged, or not what the header says.
        """
        run = self._streams.run(number)
        first = self._next if self._last is None else self._next - 1
        if self._frames is None or not first <= number < self._end or run.first > self._next:
            self.close()
            self._frames = self._streams.decode(run)
            self._next, self._end = run
        while self._next <= number:
            with named(self._opened.path):
                self._last = next(self._frames)
            self._next += 1
        assert self._last is not None
        return self._last

    def close(self) -> None:
        """End the decoder."""
        if self._frames is not None:
            self._frames.close()
        self._frames, self._end, self._next, self._last = None, 0, 0, None
