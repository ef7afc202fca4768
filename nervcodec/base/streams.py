# SPDX-License-Identifier: MIT
"""The base layer of a container as frames by their numbers, whatever kind of stream they lie in."""

from __future__ import annotations

import bisect
from collections.abc import Generator
from typing import NamedTuple, Protocol

from nervcodec.base import av1, copied
from nervcodec.base.needed import Needed, UnreadError
from nervcodec.formats.container import Container
from nervcodec.formats.header import BASE, BaseFacts
from nervcodec.formats.kinds import AV1
from nervcodec.recent import Recent
from nervcodec.video.planes import Planes

_STREAMS = 8  # whose frames' dependencies are kept


class Run(NamedTuple):
    """Frames that a decoder gives from a place where it can begin.

    Attributes:
        first: number of the first.
        end: number of the one after the last.
    """

    first: int
    end: int


class BaseStreams(Protocol):
    """What a kind of base layer can be asked."""

    def run(self, frame: int) -> Run:
        """The shortest way to a frame."""

    def decode(self, run: Run) -> Generator[Planes, None, None]:
        """The frames of a run, one after the other. Closing the generator stops the decoder.

        Raises:
            ContainerError: the stream is damaged, or not what the header says.
            VideoError: this ffmpeg cannot decode it.
        """

    def only(self, frames: range) -> list[Planes] | None:
        """Some frames of one segment, decoded with no more than they hang on; None where that cannot be told.

        Raises:
            ContainerError, VideoError: as :meth:`decode`.
        """


class SegmentStreams:
    """A stream of AV1 for each segment, which begins with a key frame."""

    def __init__(self, opened: Container, base: BaseFacts):
        self._opened, self._base, self._segments = opened, base, opened.header.segments
        self._needed: Recent[Needed | None] = Recent(_STREAMS)

    def _segment(self, frame: int) -> int:
        return bisect.bisect_right(self._segments, frame, key=lambda segment: segment.first_frame) - 1

    def run(self, frame: int) -> Run:
        """A segment."""
        segment = self._segments[self._segment(frame)]
        return Run(segment.first_frame, segment.first_frame + segment.frame_count)

    def decode(self, run: Run) -> Generator[Planes, None, None]:
        """See :class:`BaseStreams`."""
        video, segment = self._opened.header.video, self._segments[self._segment(run.first)]
        stream = self._opened.base_stream(segment).data
        return av1.decode(stream, self._base.planes, video.width, video.height, run.end - run.first)

    def only(self, frames: range) -> list[Planes] | None:
        """See :class:`BaseStreams`."""
        number, video = self._segment(frames.start), self._opened.header.video
        needed = self._needed.get(number, lambda: self._needed_of(number))
        if needed is None:
            return None
        first = self._segments[number].first_frame
        units, places = needed.only(range(frames.start - first, frames.stop - first))
        return av1.decode_only(units, places, self._base.planes, video.width, video.height)

    def _needed_of(self, number: int) -> Needed | None:
        segment, video = self._segments[number], self._opened.header.video
        stream = self._opened.base_stream(segment).data
        av1.checked_units(stream, self._base.planes, video.width, video.height, segment.frame_count)
        try:
            return Needed(stream)
        except UnreadError:
            return None


class CopiedStream:
    """The source's own packets in one stream, which is decoded from one of its entries to its end."""

    def __init__(self, opened: Container, base: BaseFacts):
        self._opened, self._base = opened, base
        self._frames = [frame for frame, _ in base.entries]

    def run(self, frame: int) -> Run:
        """All that follows an entry."""
        first = self._frames[bisect.bisect_right(self._frames, frame) - 1] if self._frames else 0
        return Run(first, self._opened.header.video.frame_count)

    def decode(self, run: Run) -> Generator[Planes, None, None]:
        """See :class:`BaseStreams`."""
        base, video = self._base, self._opened.header.video
        parts: list[tuple[int, int | None]] = [(0, None)]
        if run.first:
            places = dict(base.entries)
            parts = [(0, places[0]), (places[run.first], None)]
        pieces, count = self._opened.pieces(BASE, *parts), run.end - run.first
        return copied.decode(pieces, base.planes, video.width, video.height, count, base.skipped, base.flawed)

    def only(self, frames: range) -> list[Planes] | None:
        """It cannot be told."""
        return None


def streams_of(opened: Container) -> BaseStreams:
    """The base layer of a container that has one."""
    base = opened.header.base
    assert base is not None
    return SegmentStreams(opened, base) if base.kind == AV1 else CopiedStream(opened, base)
