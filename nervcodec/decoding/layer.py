# SPDX-License-Identifier: MIT
"""Frames of a base layer and those around them, as a refiner is shown them: no more is decoded than is needed.

A stream begins with a key frame and is read from there. Who asks for frames one after the other has each decoded once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

from nervcodec.base import av1
from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
from nervcodec.formats.header import PlaneFormat
from nervcodec.network.planes import BaseFrames
from nervcodec.video.planes import Planes

_AROUND = 1  # frames before and after the one that is shown


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
        self._segment, self._next = -1, 0  # number of the frame that comes next
        self._frames: Generator[Planes, None, None] | None = None
        self._kept: deque[Planes] = deque(maxlen=2 * _AROUND + 1)

    def at(self, segment: int, number: int) -> BaseFrames:
        """A frame and its neighbours in the segment.

        Args:
            segment: its number.
            number: of the frame, counted from the segment's first.

        Raises:
            ContainerError: the stream is damaged, or not what the header says.
            VideoError: this ffmpeg cannot decode it.
        """
        facts = self._opened.header.segments[segment]
        first, last = max(number - _AROUND, 0), min(number + _AROUND, facts.frame_count - 1)
        if segment != self._segment or first < self._next - len(self._kept):
            self._start(segment)
        assert self._frames is not None
        while self._next <= last:
            try:
                self._kept.append(next(self._frames))
            except ContainerError as error:
                raise ContainerError(f"{self._opened.path}: {error}") from None
            self._next += 1
        begin = self._next - len(self._kept)
        wanted = list(self._kept)[first - begin : last - begin + 1]
        return BaseFrames.joined(wanted, self._form, first)

    def _start(self, segment: int) -> None:
        self.close()
        facts, video = self._opened.header.segments[segment], self._opened.header.video
        stream = self._opened.base_stream(facts)
        self._frames = av1.decode(stream.data, self._form, video.width, video.height, facts.frame_count)
        self._segment = segment

    def close(self) -> None:
        """End the decoder."""
        if self._frames is not None:
            self._frames.close()
        self._frames, self._segment, self._next = None, -1, 0
        self._kept.clear()
