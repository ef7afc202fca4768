# SPDX-License-Identifier: MIT
"""A segment with a base layer: an AV1 stream of a target quality or size, and the semantic head beside it.

Frames stream from the source through the encoder to the comparison; a segment is never in memory as a whole.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nervcodec import metrics, sizing
from nervcodec.base import codec
from nervcodec.base.codec import base_format, to_base
from nervcodec.base.crf import (
    PILOT_PRESET,
    Search,
    TargetRange,
    preset_for,
    psnr_aim,
    size_aim,
    vmaf_aim,
    vmaf_figure,
)
from nervcodec.colour import to_rgb8
from nervcodec.encoding.embeddings import (
    SEMANTIC_SHARE,
    SegmentHead,
    embedding_budget,
    fitted_frames,
    head_of,
)
from nervcodec.encoding.plan import Plan
from nervcodec.encoding.segment import CodedBase, EncodedSegment, head_segment
from nervcodec.encoding.segment_reader import SegmentReader
from nervcodec.encoding.shared import NO_SHARED_PARAMETERS, SharedParameters
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.media.ffmpeg import Vmaf
from nervcodec.media.planes import Planes
from nervcodec.training.checkpoint import Checkpoint

DEPTH = 10  # bits of a coded sample: worth 5 % of the bytes of 8-bit footage (benchmarks/NOTES.md)
_REACH = 0.955  # of what a size leaves the base layer, for a search to be content
_ABOVE_DB = 0.25  # the same for a PSNR
_VMAF_MARGINS = 0.2, 0.4  # the same for a VMAF: below and above it
_SHORT_S = 15.0  # a video up to here has these margins, and all its frames are measured for a VMAF
_LONG_VMAF_MARGINS = 0.7, 1.1  # of a segment of a longer video, in which misses average out
_EVERY = 5  # frames for each that is measured in others; SVT-AV1's layers repeat every 16, of which 5 meets all
MEASURED = "measured"  # key of a checkpoint: figures of the search in the current segment


class Stopped(Exception):
    """The user stopped the encode while a base layer was coded."""


def encode_base_segment(
    plan: Plan,
    index: int,
    reader: SegmentReader,
    observer: Observer,
    shared: SharedParameters = NO_SHARED_PARAMETERS,
    checkpoint: Checkpoint | None = None,
) -> EncodedSegment | None:
    """Code a segment.

    Args:
        plan: of the encode.
        index: of the segment, from 0.
        reader: of the source.
        observer: told of progress. A stop request ends the coding of any segment but the first.
        shared: embeddings of the segment, and the basis that it has in common with all others.
        checkpoint: for the figures of a search, or None.

    Returns:
        None where it was stopped.

    Raises:
        ConfigError: nothing to fit, or no quality is small enough for the target size.
        VideoError: the source cannot be read, or not be coded.
    """
    start = time.perf_counter()
    coder = _Coder(plan, index, reader, observer, shared, checkpoint)
    try:
        head = SegmentHead() if coder.limit is None else coder.head(SEMANTIC_SHARE * coder.limit)
        base = coder.coded(head)
    except Stopped:
        return None
    observer.partial_result_ready()
    if coder.limit is None:
        head = coder.head(embedding_budget(len(base.stream)))
    stream = CodedBase(np.frombuffer(base.stream, np.uint8), base.psnr_db, base.crf, base.vmaf)
    return head_segment(plan, index, head, base.psnr_db, time.perf_counter() - start, stream)


@dataclass(frozen=True)
class _Coded:
    """A stream and its quality.

    Attributes:
        stream: without temporal delimiters.
        psnr_db: ``(N,)`` of each frame in RGB; NaN where a pilot encode did not measure it.
        crf: it was coded at.
        vmaf: ``(n,)`` of each frame that was measured for a target VMAF, else none.
    """

    stream: bytes
    psnr_db: np.ndarray
    crf: float
    vmaf: np.ndarray


def vmaf_score(scores: np.ndarray, percentile: float | None) -> float:
    """The mean of VMAFs of frames, or a percentile of them."""
    return float(scores.mean() if percentile is None else np.percentile(scores, percentile))


class _Coder:
    """Codes one segment; see :func:`encode_base_segment`."""

    def __init__(
        self,
        plan: Plan,
        index: int,
        reader: SegmentReader,
        observer: Observer,
        shared: SharedParameters,
        checkpoint: Checkpoint | None,
    ):
        assert plan.planes is not None
        self.plan, self.index, self.reader, self.observer, self.shared = plan, index, reader, observer, shared
        self.source_format, self.format = plan.planes, base_format(plan.planes, DEPTH)
        self.first, frames = plan.first_frame(index), plan.lengths[index]
        self.geometry, self.cuts = plan.geometry(frames), plan.cuts(index)
        self.fitted = fitted_frames(plan, self.first, frames)
        self.embeddings = shared.embeddings_by_segment.get(index)
        goal = plan.size_goal(frames, 0 if self.embeddings is None else len(self.embeddings.numbers), len(self.cuts))
        self.limit = None if goal is None else goal.limit_bytes  # bytes of the whole segment
        self.is_short = plan.info.duration_s <= _SHORT_S
        self.preset = self._preset()
        self.checkpoint = checkpoint
        self.measured: dict[str, dict[float, float]] = {"pilot": {}, "whole": {}}
        if checkpoint is not None and checkpoint.trainer is not None:
            self.measured = checkpoint.trainer[MEASURED]

    def _preset(self) -> int:
        fit, info = self.plan.options.fit, self.plan.info
        if fit.time_s is None:
            return preset_for(None, 0)
        searches = 1 if self.limit is None and self._target is None else sizing.BASE_SEARCHES
        seconds = fit.time_s * self.geometry.frames / info.frame_count * sizing.BASE_TIME_SHARE / searches
        return preset_for(seconds, self.geometry.frames * info.height * info.width / 1e6)

    def head(self, limit_bytes: float) -> SegmentHead:
        """The semantic head, of about ``limit_bytes`` at most; in a basis of all segments, of the size it takes."""
        return head_of(self.embeddings, self.plan.patch_grid, limit_bytes, self.shared.basis)

    def coded(self, head: SegmentHead) -> _Coded:
        """The base at the crf of the options, or at one that meets the goal.

        Raises:
            ConfigError: no quality is small enough for the target size.
            Stopped: on request.
        """
        first_crf, target = self.plan.options.layer.first_crf, self._target
        if self.limit is not None:
            return self._of_size(self.limit - head.size_bytes, first_crf, head)
        if target is None:
            return self._at(first_crf)
        # A pilot encode at a fast preset estimates the VMAF of the whole within 0.8; a coded part is up to 2.7 away.
        pilot = Search(self._kept("pilot", lambda crf: self._figure(self._at(crf, True))), target.of_pilot(), False)
        crf, per_length = pilot.predict(target.first_crf)
        return self._found(self._figure, replace(target, per_length=per_length), False, crf)

    @property
    def _target(self) -> TargetRange | None:
        """The range of the quality that the options set; None without any."""
        psnr_db, vmaf = self.plan.options.fit.psnr_db, self.plan.options.vmaf
        if vmaf is not None:
            return vmaf_aim(vmaf, *(_VMAF_MARGINS if self.is_short else _LONG_VMAF_MARGINS))
        return None if psnr_db is None else psnr_aim(psnr_db, _ABOVE_DB)

    def _of_size(self, room: float, first_crf: float, head: SegmentHead) -> _Coded:
        """The base at the best quality whose stream has at most ``room`` bytes."""
        coded = self._found(lambda tried: math.log(len(tried.stream)), size_aim(room, _REACH), True, first_crf)
        if len(coded.stream) > room:
            where = f" of segment {self.index + 1}" if len(self.plan.lengths) > 1 else ""
            beside = f" beside {head.size_bytes:,} of embeddings" if head.size_bytes else ""
            raise ConfigError(
                f"the size leaves {max(room, 0):,.0f} bytes for the base layer{where}{beside}, and it takes "
                f"{len(coded.stream):,} at crf {coded.crf:g}; ask for more, or --scale the video down"
            )
        return coded

    def _found(
        self, figure: Callable[[_Coded], float], aim: TargetRange, over_is_worse: bool, first_crf: float
    ) -> _Coded:
        """The base at the crf that a search finds."""
        tried: dict[float, _Coded] = {}

        def attempt(crf: float) -> float:
            tried[crf] = self._at(crf)
            return figure(tried[crf])

        crf = Search(self._kept("whole", attempt), aim, over_is_worse).run(first_crf)
        return tried[crf] if crf in tried else self._at(crf)  # an interrupted encode tried it

    def _kept(self, name: str, attempt: Callable[[float], float]) -> Callable[[float], float]:
        """An attempt whose figures are read from the checkpoint where they are known, and written to it."""
        known = self.measured[name]

        def kept(crf: float) -> float:
            if crf not in known:
                known[crf] = attempt(crf)
                if self.checkpoint is not None:
                    self.checkpoint.save_if_due(lambda: {MEASURED: self.measured})
            return known[crf]

        return kept

    def _figure(self, coded: _Coded) -> float:
        """What a search for a quality compares: VMAF, or mean PSNR in dB over the fitted frames."""
        if self.plan.options.vmaf is not None:
            return vmaf_figure(vmaf_score(coded.vmaf, self.plan.options.percentile))
        return float(np.nanmean(coded.psnr_db[self.fitted]))

    def _check_stop(self) -> None:
        if self.index and self.observer.stop_requested():  # the first segment is always finished
            raise Stopped

    def _at(self, crf: float, is_pilot: bool = False) -> _Coded:
        """Code the segment at a crf; each frame is compared with its source as soon as it is coded.

        Args:
            crf: constant rate factor.
            is_pilot: at a fast preset; only the target is measured, on some frames.
        """
        geometry, info, vmaf = self.geometry, self.plan.info, self.plan.options.vmaf
        self.observer.stage("Searching for a crf" if is_pilot else "Coding the base", geometry.frames)
        uncompared: deque[tuple[Planes, Planes]] = deque()
        psnr_db: list[float] = []

        def frames() -> Iterator[Planes]:
            with contextlib.closing(self.reader.frames(self.index)) as source:
                for planes in source:
                    self._check_stop()
                    coded = to_base(planes, self.source_format, DEPTH)
                    uncompared.append((planes, coded))
                    yield coded

        def compare(planes: Planes) -> None:
            self._check_stop()
            source, coded = uncompared.popleft()
            if judge is not None:
                judge.add(planes.y, coded.y)
            if is_pilot and (vmaf is not None or len(psnr_db) % _EVERY):
                psnr_db.append(math.nan)
            else:
                image = to_rgb8(source, self.source_format)[0]
                psnr_db.append(metrics.psnr_db(to_rgb8(planes, self.format)[0], image))
            self.observer.advance()

        with contextlib.ExitStack() as stack:
            judge, every = None, _EVERY if is_pilot or not self.is_short else 1
            if vmaf is not None:
                judge = stack.enter_context(Vmaf(geometry.width, geometry.height, "gray10le", every))
            stream = codec.encode(
                frames(),
                self.format,
                geometry.width,
                geometry.height,
                info.frame_rate,
                crf,
                PILOT_PRESET if is_pilot else self.preset,
                codec.key_frames(geometry.frames, info.frame_rate, self.cuts),
                info.light,
                compare,
            )
            return _Coded(stream, np.array(psnr_db), crf, np.zeros(0) if judge is None else judge.scores())
