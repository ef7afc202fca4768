# SPDX-License-Identifier: MIT
"""A segment with a base layer: an AV1 stream of a target quality or size, and the semantic head beside it.

Frames stream from the source through the encoder to the comparison; a segment is never in memory as a whole.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nervcodec import metrics, sizing
from nervcodec.base import codec
from nervcodec.base.codec import base_format, to_base
from nervcodec.base.crf import Search, preset_for, quality_aim, size_aim
from nervcodec.colour import to_rgb8
from nervcodec.encoding.embeddings import (
    SEMANTIC_SHARE,
    SegmentHead,
    embedding_budget,
    fitted_frames,
    head_of,
    serialize,
)
from nervcodec.encoding.plan import Plan
from nervcodec.encoding.segment import CodedBase, EncodedSegment
from nervcodec.encoding.segment_reader import SegmentReader
from nervcodec.encoding.shared import NO_SHARED_PARAMETERS, SharedParameters
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.formats.header import Segment
from nervcodec.media.planes import Planes
from nervcodec.network.config import HeadOnlyConfig, network_to_json

DEPTH = 10  # bits of a coded sample: worth 5 % of the bytes of 8-bit footage (benchmarks/NOTES.md)
_REACH = 0.955  # of what a size leaves the base layer, for a search to be content
_ABOVE_DB = 0.25  # the same for a PSNR


class Stopped(Exception):
    """The user stopped the encode while a base layer was coded."""


def encode_base_segment(
    plan: Plan, index: int, reader: SegmentReader, observer: Observer, shared: SharedParameters = NO_SHARED_PARAMETERS
) -> EncodedSegment | None:
    """Code a segment.

    Args:
        plan: of the encode.
        index: of the segment, from 0.
        reader: of the source.
        observer: told of progress. A stop request ends the coding of any segment but the first.
        shared: embeddings of the segment, and the basis that it has in common with all others.

    Returns:
        None where it was stopped.

    Raises:
        ConfigError: nothing to fit, or no quality is small enough for the target size.
        VideoError: the source cannot be read, or not be coded.
    """
    start = time.perf_counter()
    coder = _Coder(plan, index, reader, observer, shared)
    try:
        head = SegmentHead() if coder.limit is None else coder.head(SEMANTIC_SHARE * coder.limit)
        base = coder.coded(head)
    except Stopped:
        return None
    observer.worth_keeping()
    if coder.limit is None:
        head = coder.head(embedding_budget(len(base.stream)))
    config = HeadOnlyConfig(coder.geometry, semantic=head.semantic, cuts=coder.cuts)
    return EncodedSegment(
        segment=Segment(coder.first, coder.geometry.frames, network_to_json(config), f"{index}/"),
        stream=serialize(config, coder.embedded, head.tensors),
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
    """Codes one segment; see :func:`encode_base_segment`."""

    def __init__(self, plan: Plan, index: int, reader: SegmentReader, observer: Observer, shared: SharedParameters):
        assert plan.planes is not None
        self.plan, self.index, self.reader, self.observer, self.shared = plan, index, reader, observer, shared
        self.source_format, self.format = plan.planes, base_format(plan.planes, DEPTH)
        self.first, frames = plan.first_frame(index), plan.lengths[index]
        self.geometry, self.cuts = plan.geometry(frames), plan.cuts(index)
        self.fitted = fitted_frames(plan, self.first, frames)
        self.known = shared.embeddings_by_segment.get(index)
        goal = plan.size_goal(frames, len(self.embedded), len(self.cuts))
        self.limit = None if goal is None else goal.limit_bytes  # bytes of the whole segment
        self.preset = self._preset()

    @property
    def embedded(self) -> tuple[int, ...]:
        """Frames, counted from the segment's first, that have embeddings."""
        return () if self.known is None else tuple(self.known.numbers.tolist())

    def _preset(self) -> int:
        fit, info = self.plan.options.fit, self.plan.info
        if fit.time_s is None:
            return preset_for(None, 0)
        searches = 1 if self.limit is None and fit.psnr_db is None else sizing.BASE_SEARCHES
        seconds = fit.time_s * self.geometry.frames / info.frame_count * sizing.BASE_TIME_SHARE / searches
        return preset_for(seconds, self.geometry.frames * info.height * info.width / 1e6)

    def head(self, limit_bytes: float) -> SegmentHead:
        """The semantic head, of about ``limit_bytes`` at most; in a basis of all segments, of the size it takes."""
        reference = None if self.known is None else self.known.reference.astype(np.float32)
        if self.shared.basis is not None:
            return self.shared.basis.segment(self.embedded, reference)
        return head_of(reference, self.embedded, (self.plan.grid.rows, self.plan.grid.columns), limit_bytes)

    def coded(self, head: SegmentHead) -> _Coded:
        """The base at the crf of the options, or at one that meets the goal.

        Raises:
            ConfigError: no quality is small enough for the target size.
            Stopped: on request.
        """
        first_crf, psnr_db = self.plan.options.layer.first_crf, self.plan.options.fit.psnr_db
        if self.limit is not None:
            return self._of_size(self.limit - head.size_bytes, first_crf, head)
        if psnr_db is not None:
            _, coded = Search(self._of_quality, quality_aim(psnr_db, _ABOVE_DB), False).run(first_crf)
            return coded
        return self._at(first_crf)

    def _of_size(self, room: float, first_crf: float, head: SegmentHead) -> _Coded:
        """The base at the best quality whose stream has at most ``room`` bytes."""

        def attempt(crf: float) -> tuple[_Coded, float]:
            coded = self._at(crf)
            return coded, math.log(len(coded.stream))

        crf, coded = Search(attempt, size_aim(room, _REACH), True).run(first_crf)
        if len(coded.stream) > room:
            where = f" of segment {self.index + 1}" if len(self.plan.lengths) > 1 else ""
            beside = f" beside {head.size_bytes:,} of embeddings" if head.size_bytes else ""
            raise ConfigError(
                f"the size leaves {max(room, 0):,.0f} bytes for the base layer{where}{beside}, and it takes "
                f"{len(coded.stream):,} at crf {crf:g}; ask for more, or --scale the video down"
            )
        return coded

    def _of_quality(self, crf: float) -> tuple[_Coded, float]:
        """The base at a crf, and its mean PSNR in dB over the fitted frames."""
        coded = self._at(crf)
        return coded, float(coded.psnr_db[self.fitted].mean())

    def _go_on(self) -> None:
        if self.index and self.observer.stop_requested():  # the first segment is always finished
            raise Stopped

    def _at(self, crf: float) -> _Coded:
        """Code the segment at a crf; each frame is compared with its source as soon as it is coded."""
        self.observer.stage("Coding the base", self.geometry.frames)
        uncompared: deque[Planes] = deque()
        psnr_db: list[float] = []

        def frames() -> Iterator[Planes]:
            with contextlib.closing(self.reader.frames(self.index)) as source:
                for planes in source:
                    self._go_on()
                    uncompared.append(planes)
                    yield to_base(planes, self.source_format, DEPTH)

        def compare(planes: Planes) -> None:
            self._go_on()
            image = to_rgb8(uncompared.popleft(), self.source_format)[0]
            psnr_db.append(metrics.psnr_db(to_rgb8(planes, self.format)[0], image))
            self.observer.advance()

        keys = codec.key_frames(self.geometry.frames, self.plan.info.frame_rate, self.cuts)
        size, info = (self.geometry.width, self.geometry.height), self.plan.info
        stream = codec.encode(
            frames(), self.format, *size, info.frame_rate, crf, self.preset, keys, info.light, compare
        )
        return _Coded(stream, np.array(psnr_db), crf)
