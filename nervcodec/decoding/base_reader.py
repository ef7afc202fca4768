# SPDX-License-Identifier: MIT
"""Sequential reader of a base layer: seeks to the last random access point and decodes consecutive frames once."""

from __future__ import annotations

from collections.abc import Generator

from nervcodec.base.streams import streams_of
from nervcodec.errors import prefix_path
from nervcodec.formats.container import Container
from nervcodec.media.planes import Planes


class BaseReader:
    """Reads frames of a container's base layer by number. It keeps a running decoder between calls; not thread-safe.

    Args:
        opened: a container with a base layer.
    """

    def __init__(self, opened: Container):
        self._opened, self._streams = opened, streams_of(opened)
        self._end, self._next = 0, 0  # of the current run; number of the next frame
        self._frames: Generator[Planes, None, None] | None = None
        self._last: Planes | None = None  # the frame before the next one

    def frame(self, number: int) -> Planes:
        """Planes of one frame, arrays of length 1.

        Args:
            number: in the file.

        Raises:
            ContainerError: the stream is damaged, or does not match the header.
        """
        run = self._streams.run(number)
        first = self._next if self._last is None else self._next - 1
        if self._frames is None or not first <= number < self._end or run.first > self._next:
            self.close()
            self._frames = self._streams.decode(run)
            self._next, self._end = run
        while self._next <= number:
            with prefix_path(self._opened.path):
                self._last = next(self._frames)
            self._next += 1
        assert self._last is not None
        return self._last

    def close(self) -> None:
        """Stop the decoder."""
        if self._frames is not None:
            self._frames.close()
        self._frames, self._end, self._next, self._last = None, 0, 0, None
