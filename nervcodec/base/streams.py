# SPDX-License-Identifier: MIT
"""The base layer of a container, an AV1 stream or a copy: its frames by number, and checks of its structure."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Generator
from functools import lru_cache
from typing import NamedTuple, Protocol

from nervcodec.base import obu
from nervcodec.base.obu import checked_units
from nervcodec.errors import ContainerError, prefix_path
from nervcodec.formats.container import Container
from nervcodec.formats.header import AV1, BASE, BaseHeader
from nervcodec.media.planes import Light, Planes, light_of

_STREAMS = 4  # of which units and key frames are cached


class Run(NamedTuple):
    """Frames that a decoder gives from a place where it can begin.

    Attributes:
        first: number of the first.
        end: number of the one after the last.
    """

    first: int
    end: int


class BaseStreams(Protocol):
    """Frames of a base layer of any kind."""

    def run(self, frame: int) -> Run:
        """The shortest run of frames to decode that contains a frame."""

    def decode(self, run: Run) -> Generator[Planes, None, None]:
        """The frames of a run, one after the other. Closing the generator stops the decoder.

        Raises:
            ContainerError: the stream is damaged, or contradicts the header.
        """

    def light(self) -> Light | None:
        """Light levels that its first frame states; None without any."""


class SegmentStreams:
    """A stream of AV1 for each segment, which begins with a key frame and may have more."""

    def __init__(self, opened: Container, base: BaseHeader):
        self._opened, self._base, self._segments = opened, base, opened.header.segments
        self._units_and_keys = lru_cache(_STREAMS)(self._parse)

    def _segment(self, frame: int) -> int:
        return bisect.bisect_right(self._segments, frame, key=lambda segment: segment.first_frame) - 1

    def run(self, frame: int) -> Run:
        """From the last key frame before a frame to the end of its segment.

        Raises:
            ContainerError: the stream is damaged, or contradicts the header.
        """
        number = self._segment(frame)
        segment = self._segments[number]
        _, keys = self._units_and_keys(number)
        local = keys[bisect.bisect_right(keys, frame - segment.first_frame) - 1]
        return Run(segment.first_frame + local, segment.first_frame + segment.frame_count)

    def _parse(self, number: int) -> tuple[list[memoryview], list[int]]:
        """The temporal units of a segment, and the numbers of its key frames."""
        segment = self._segments[number]
        stream = self._opened.base_stream(segment).data
        with prefix_path(self._opened.path):
            units = checked_units(stream, segment.frame_count)
            return units, obu.key_frames(units)

    def decode(self, run: Run) -> Generator[Planes, None, None]:
        """See :class:`BaseStreams`."""
        from nervcodec.base import codec  # it imports PyAV, which search does without

        video, number = self._opened.header.video, self._segment(run.first)
        units = self._units_and_keys(number)[0][run.first - self._segments[number].first_frame :]
        return codec.decode(units, self._base.planes, video.width, video.height)

    def light(self) -> Light | None:
        """See :class:`BaseStreams`."""
        from nervcodec.base import codec

        return codec.light(self._units_and_keys(0)[0][0])


class CopiedStream:
    """The source's own packets in one stream, which is decoded from one of its entries to the next."""

    def __init__(self, opened: Container, base: BaseHeader):
        self._opened, self._base = opened, base
        self._frames = [*(frame for frame, _ in base.entries or ((0, 0),)), opened.header.video.frame_count]

    def run(self, frame: int) -> Run:
        """From the last entry before a frame to the next."""
        index = bisect.bisect_right(self._frames, frame)
        return Run(self._frames[index - 1], self._frames[index])

    def decode(self, run: Run) -> Generator[Planes, None, None]:
        """See :class:`BaseStreams`."""
        from nervcodec.base import copy  # it imports PyAV, which search does without

        base, video = self._base, self._opened.header.video
        parts: list[tuple[int, int | None]] = [(0, None)]
        if run.first:
            positions = dict(base.entries)  # of random access points in the stream
            parts = [(0, positions[0]), (positions[run.first], None)]
        pieces, count = self._opened.chunks(BASE, *parts), run.end - run.first
        to_end = run.end == video.frame_count
        return copy.decode(pieces, base.planes, video.width, video.height, count, base.skipped, base.flawed, to_end)

    def light(self) -> Light | None:
        """See :class:`BaseStreams`."""
        from nervcodec.base import copy

        video = self._opened.header.video
        frames = copy.decoded(self._opened.chunks(BASE, (0, None)), (video.width, video.height), self._base.flawed)
        with contextlib.closing(frames), prefix_path(self._opened.path):
            first = next(frames, None)
        return None if first is None else light_of(first)


def streams_of(opened: Container) -> BaseStreams:
    """The base layer of a container that has one."""
    base = opened.header.base
    assert base is not None
    return SegmentStreams(opened, base) if base.kind == AV1 else CopiedStream(opened, base)


def check_base(opened: Container) -> None:
    """Compare the number of frames in each AV1 stream with the header; nothing is decoded.

    Raises:
        ContainerError: a stream is damaged, or contradicts the header.
    """
    base = opened.header.base
    if base is None or base.kind != AV1:
        return
    for number, segment in enumerate(opened.header.segments):
        try:
            checked_units(opened.base_stream(segment).data, segment.frame_count)
        except ContainerError as error:
            raise ContainerError(f"{opened.path}: segment {number}: {error}") from None


def check_whole(opened: Container, weights: bool = True) -> None:
    """Compare all of a container with its checksums, and check its structure.

    Args:
        opened: the container.
        weights: decode them as well, which takes most of the time and finds errors of the writer only.

    Raises:
        ContainerError: something is damaged.
    """
    opened.verify()
    for segment in opened.header.segments:
        opened.embedded_frames(segment)
        if weights:
            opened.network(segment.prefix).decode()
    if (shared := opened.shared_weights()) is not None and weights:
        shared.decode()
    check_base(opened)
