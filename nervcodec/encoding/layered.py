# SPDX-License-Identifier: MIT
"""A segment with a base layer: an AV1 stream at the quality asked for, and the semantic head beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nervcodec import metrics
from nervcodec.base import av1
from nervcodec.base.convert import base_format, to_base
from nervcodec.base.rate import Search, quality_aim, size_aim
from nervcodec.colour import to_rgb8
from nervcodec.encoding.head import SEMANTIC_SHARE, SegmentHead, head_of, room_beside, stored
from nervcodec.encoding.segment import CodedBase, EncodedSegment, SegmentTask
from nervcodec.errors import ConfigError
from nervcodec.fitting.hooks import Hook
from nervcodec.formats import bitstream
from nervcodec.formats.header import Segment
from nervcodec.network.config import HeadOnlyConfig, network_to_json
from nervcodec.video.planes import Planes

DEPTH = 10  # bits of a coded sample: worth 5 % of the bytes of 8-bit footage (benchmarks/NOTES.md)
_REACH = 0.955  # of what a size leaves the base layer, for a search to be content
_ABOVE_DB = 0.25  # the same for a PSNR


class Stopped(Exception):
    """The user stopped the encode while a base layer was coded."""


def code_segment(task: SegmentTask, hooks: Hook) -> EncodedSegment | None:
    """A segment with a base layer; see :func:`nervcodec.encoding.task.fit_segment`.

    A stop request ends the coding of any segment but the first.
    """
    start = time.perf_counter()
    assert isinstance(task.network, HeadOnlyConfig)
    coder = _Coder(task, hooks)
    try:
        head = SegmentHead() if coder.limit is None else coder.head(SEMANTIC_SHARE * coder.limit)
        base = coder.coded(head)
    except Stopped:
        return None
    hooks.worth_keeping()
    if coder.limit is None:
        head = coder.head(room_beside(len(base.stream)))
    config = replace(task.network, semantic=head.semantic)
    return EncodedSegment(
        segment=Segment(task.first_frame, len(task.data.frames), network_to_json(config), f"{task.index}/"),
        stream=stored(config, task.embedded, head.tensors),
        entropy_bytes=bitstream.entropy_bytes(head.tensors),
        psnr_db=base.psnr_db,
        parameters=bitstream.value_count(head.tensors),
        steps=0,
        elapsed_s=time.perf_counter() - start,
        base=CodedBase(np.frombuffer(base.stream, np.uint8), base.psnr_db, base.crf),
    )


@dataclass(frozen=True)
class _Coded:
    """A stream and its quality.

    Attributes:
        stream: without temporal delimiters.
        psnr_db: ``(N,)`` of each frame in RGB.
        crf: it was coded at.
    """

    stream: bytes
    psnr_db: np.ndarray
    crf: float


class _Coder:
    """Codes one segment.

    Args:
        task: with a base.
        hooks: told of progress.
    """

    def __init__(self, task: SegmentTask, hooks: Hook):
        assert task.base is not None
        self.task, self.hooks, self.base = task, hooks, task.base
        self.format = base_format(task.base.form, DEPTH)
        self.geometry = task.network.geometry
        assert isinstance(task.network, HeadOnlyConfig)
        self.keys = av1.key_frames(self.geometry.frames, self.base.rate, task.network.cuts)

    @property
    def limit(self) -> float | None:
        """Bytes of the whole segment, where there is a limit."""
        return None if self.task.goal is None else self.task.goal.limit_bytes

    def head(self, limit_bytes: float) -> SegmentHead:
        """The semantic head, of about ``limit_bytes`` at most; in a basis of all segments, of the size it takes."""
        if self.task.basis is not None:
            return self.task.basis.segment(self.task.embedded, self.task.data.embeddings)
        grid = self.geometry.patch_rows, self.geometry.patch_columns
        return head_of(self.task.data.embeddings, self.task.embedded, grid, limit_bytes)

    def coded(self, head: SegmentHead) -> _Coded:
        """The base at the crf asked for, or at one that meets the goal.

        Raises:
            ConfigError: no quality is small enough for the size asked for.
            Stopped: on request.
        """
        if self.limit is not None:
            return self._of_size(self.limit - head.size_bytes, head)
        if self.base.psnr_db is not None:
            _, coded = Search(self._of_quality, quality_aim(self.base.psnr_db, _ABOVE_DB), False).run(self.base.crf)
            return coded
        return self._at(self.base.crf)

    def _of_size(self, room: float, head: SegmentHead) -> _Coded:
        """The base at the best quality whose stream has at most ``room`` bytes."""

        def attempt(crf: float) -> tuple[bytes, float]:
            stream = self._stream(crf)
            return stream, math.log(len(stream))

        crf, stream = Search(attempt, size_aim(room, _REACH), True).run(self.base.crf)
        if len(stream) > room:
            where = f" of segment {self.task.index + 1}" if self.task.count > 1 else ""
            beside = f" beside {head.size_bytes:,} of embeddings" if head.size_bytes else ""
            raise ConfigError(
                f"the size leaves {max(room, 0):,.0f} bytes for the base layer{where}{beside}, and it takes "
                f"{len(stream):,} at crf {crf:g}; ask for more, or --scale the video down"
            )
        return _Coded(stream, self._quality(stream), crf)

    def _of_quality(self, crf: float) -> tuple[_Coded, float]:
        """The base at a crf, and its mean PSNR in dB over the fitted frames."""
        coded = self._at(crf)
        return coded, float(coded.psnr_db[self.task.data.is_fitted].mean())

    def _at(self, crf: float) -> _Coded:
        stream = self._stream(crf)
        return _Coded(stream, self._quality(stream), crf)

    def _stream(self, crf: float) -> bytes:
        self.hooks.stage("Coding the base", self.geometry.frames)
        size = self.geometry.width, self.geometry.height
        return av1.encode(self._frames(), self.format, *size, self.base.rate, crf, self.base.preset, self.keys)

    def _frames(self) -> Iterator[Planes]:
        for number in range(self.geometry.frames):
            if self.task.index and self.hooks.stop_requested():  # the first segment is always finished
                raise Stopped
            yield to_base(self.base.planes.frames(slice(number, number + 1)), self.base.form, DEPTH)
            self.hooks.advance()

    def _quality(self, stream: bytes) -> np.ndarray:
        """``(N,)`` dB of each frame of a stream in RGB, of which one at a time is in memory."""
        geometry = self.geometry
        frames = av1.decode(stream, self.format, geometry.width, geometry.height, geometry.frames)
        result = np.empty(geometry.frames)
        for number, planes in enumerate(frames):
            result[number] = metrics.psnr_db(to_rgb8(planes, self.format)[0], self.task.data.frames[number])
        return result
