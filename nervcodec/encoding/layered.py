# SPDX-License-Identifier: MIT
"""A segment with a base layer: code it, fit what the network adds, and keep that where it earns its bytes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from nervcodec import sizing
from nervcodec.base import av1
from nervcodec.base.convert import base_format, to_base
from nervcodec.base.rate import Aim, Search, quality_aim, quarter, size_aim
from nervcodec.encoding.material import joined
from nervcodec.encoding.measure import measure
from nervcodec.encoding.segment import CodedBase, EncodedSegment, SegmentTask
from nervcodec.fitting.hooks import Hook
from nervcodec.fitting.loop import Loop
from nervcodec.fitting.principal import Head, principal_head
from nervcodec.fitting.rate_control import coded
from nervcodec.fitting.segment import BaseData, SegmentData
from nervcodec.fitting.state import FitState
from nervcodec.formats import bitstream
from nervcodec.formats.header import Segment
from nervcodec.network.build import build
from nervcodec.network.config import RefinerConfig, SemanticConfig, network_to_json, tables_of
from nervcodec.network.planes import BaseFrames
from nervcodec.network.shapes import parameter_count
from nervcodec.video.planes import Planes

DEPTH = 10  # bits of a coded sample: worth 5 % of the bytes of 8-bit footage (benchmarks/NOTES.md)
SEMANTIC_SHARE = 0.08  # of a segment's bytes that embeddings may take where that leaves them good enough
_REACH = 0.955  # of what a size leaves the base layer, for a search to be content
_ABOVE_DB = 0.25  # the same for a PSNR
_PROBE_PRESET, _PROBE_CRF = 10, 6.0  # how it is found out what a decibel costs, at two qualities so far apart
_USUAL_SLOPE = 3.5  # decibels for a file e times as large, where it cannot be measured
_LEAST_FIT_S = 2.0  # below which a fit is not begun
_Trial = TypeVar("_Trial")


@dataclass(frozen=True)
class Coded:
    """A stream and what it decodes to.

    Attributes:
        stream: without temporal delimiters.
        planes: of all frames.
        psnr_db: ``(N,)`` of each frame in RGB.
        crf: it was coded at.
    """

    stream: bytes
    planes: Planes
    psnr_db: np.ndarray
    crf: float


@dataclass(frozen=True)
class Refined:
    """What a network made of a base.

    Attributes:
        config: of the network.
        tensors: as they are stored.
        psnr_db: ``(N,)`` with it.
        size_bytes: of the tensors.
        steps, complete: of its fit.
    """

    config: RefinerConfig
    tensors: dict[str, bitstream.RoundedTensor | np.ndarray]
    psnr_db: np.ndarray
    size_bytes: int
    steps: int
    complete: bool


class Stopped(Exception):
    """The user wants no more while a base layer is coded."""


def code_segment(task: SegmentTask, hooks: Hook, resumed: dict[str, Any] | None) -> EncodedSegment | None:
    """A segment with a base layer; see :func:`nervcodec.encoding.task.fit_segment`."""
    start = time.perf_counter()
    layer = _Layer(task, hooks)
    try:
        head = layer.head(None) if layer.limit is None else layer.head(SEMANTIC_SHARE * layer.limit)
        base = layer.coded(head)
    except Stopped:
        return None
    if layer.limit is None:
        head = layer.head(len(base.stream) * SEMANTIC_SHARE / (1 - SEMANTIC_SHARE))
    refined, worth = layer.refined(base, time.perf_counter() - start, resumed)
    earns = refined is not None and worth is not None and worth > refined.size_bytes / len(base.stream)
    kept = refined if earns else None
    config = replace(kept.config if kept else RefinerConfig(task.network.geometry), semantic=layer.semantic(head))
    tensors = {**(head.tensors if head else {}), **(kept.tensors if kept else {})}
    tables = tables_of(config, layer.embedded).tensors()
    stream = bitstream.encode({**tables, **tensors}) if tensors else np.empty(0, np.uint8)
    frames = len(task.data.frames)
    return EncodedSegment(
        segment=Segment(task.first_frame, frames, network_to_json(config), f"{task.index}/"),
        stream=stream,
        entropy_bytes=bitstream.entropy_bytes(tensors),
        psnr_db=kept.psnr_db if kept else base.psnr_db,
        parameters=parameter_count(config),
        steps=refined.steps if refined else 0,
        elapsed_s=time.perf_counter() - start,
        complete=refined.complete if refined else True,
        base=CodedBase(
            np.frombuffer(base.stream, np.uint8),
            base.psnr_db,
            base.crf,
            0 if refined is None else refined.size_bytes,
            worth,
            kept is not None,
        ),
    )


class _Layer:
    """The work on one segment.

    Args:
        task: with a base.
        hooks: told of what happens.
    """

    def __init__(self, task: SegmentTask, hooks: Hook):
        assert task.base is not None
        self.task, self.hooks, self.base = task, hooks, task.base
        self.format = base_format(task.base.form, DEPTH)
        self.geometry = task.network.geometry
        self.fitted = np.flatnonzero(task.data.is_fitted)

    @property
    def limit(self) -> float | None:
        """Bytes of the whole segment, where there is a limit."""
        return None if self.task.goal is None else self.task.goal.limit_bytes

    @property
    def embedded(self) -> tuple[int, ...]:
        """Frames with embeddings."""
        frames = self.task.data.embedded_frames
        return () if frames is None or self.task.data.embeddings is None else tuple(frames.tolist())

    def head(self, limit_bytes: float | None) -> Head | None:
        """The semantic head; None without embeddings."""
        reference = self.task.data.embeddings
        if reference is None or not len(reference):
            return None
        grid = self.geometry.patch_rows, self.geometry.patch_columns
        return principal_head(reference, grid, math.inf if limit_bytes is None else limit_bytes)

    def semantic(self, head: Head | None) -> SemanticConfig | None:
        """Its configuration."""
        if head is None or self.task.data.embeddings is None:
            return None
        return SemanticConfig(self.task.data.embeddings.shape[2], rank=head.rank, code_frames=self.embedded)

    # ------------------------------------------------------------------ the base

    def coded(self, head: Head | None) -> Coded:
        """The base at the quality that was asked for, or that meets the goal."""
        if self.limit is not None:
            share = 1 - (sizing.REFINER_SHARE if self.tries else 0.0)
            room = (self.limit - (head.size_bytes if head else 0)) * share
            crf, stream = self._searched(self._with_size, size_aim(room, _REACH), self.base.crf, over_is_worse=True)
            return self._decoded(stream, crf)
        if self.base.psnr_db is not None:
            aim = quality_aim(self.base.psnr_db, _ABOVE_DB)
            return self._searched(self._with_quality, aim, self.base.crf, over_is_worse=False)[1]
        return self._decoded(self._stream(self.base.crf, self.base.preset), self.base.crf)

    def _searched(
        self, attempt: Callable[[float], tuple[_Trial, float]], aim: Aim, first: float, over_is_worse: bool
    ) -> tuple[float, _Trial]:
        return Search(attempt, aim, over_is_worse).run(first)

    def _with_size(self, crf: float) -> tuple[bytes, float]:
        stream = self._stream(crf, self.base.preset)
        return stream, math.log(len(stream))

    def _with_quality(self, crf: float) -> tuple[Coded, float]:
        coded_base = self._decoded(self._stream(crf, self.base.preset), crf)
        return coded_base, float(coded_base.psnr_db[self.fitted].mean())

    def _stream(self, crf: float, preset: int) -> bytes:
        """All frames at a quality."""
        self.hooks.stage("Coding the base", self.geometry.frames)
        size = self.geometry.width, self.geometry.height
        return av1.encode(self._frames(), self.format, *size, self.base.rate, crf, preset)

    def _frames(self) -> Iterator[Planes]:
        for number in range(self.geometry.frames):
            if self.hooks.stop_requested():
                raise Stopped
            yield to_base(self.base.planes.frames(slice(number, number + 1)), self.base.form, DEPTH)
            self.hooks.advance()

    def _decoded(self, stream: bytes, crf: float) -> Coded:
        geometry = self.geometry
        frames = av1.decode(stream, self.format, geometry.width, geometry.height, geometry.frames)
        planes = joined(frames, geometry.frames)
        for _ in frames:  # what comes after the last is an error, found where the end is looked for
            continue
        return Coded(stream, planes, self._psnr(RefinerConfig(geometry), {}, planes), crf)

    def _psnr(self, config: RefinerConfig, weights: dict[str, np.ndarray], planes: Planes) -> np.ndarray:
        """``(N,)`` dB of each frame, as it will be decoded."""
        base = BaseFrames.of(planes, self.format)
        numbers = np.arange(self.geometry.frames)
        return measure(config, weights, self.task.data.frames, numbers, self.task.hardware, base)

    # ------------------------------------------------------------------ the network

    @property
    def tries(self) -> bool:
        """Whether a network is fitted at all: where there is time for it."""
        return self.task.fit.time_s is not None or self.task.fit.epochs is not None

    def refined(
        self, base: Coded, elapsed_s: float, resumed: dict[str, Any] | None
    ) -> tuple[Refined | None, float | None]:
        """A network fitted in the time that is left, and what its gain would cost the base: a part of its bytes."""
        fit = self.task.fit
        left_s = None if fit.time_s is None else fit.time_s - elapsed_s
        if not self.tries or (left_s is not None and left_s < _LEAST_FIT_S) or self.hooks.stop_requested():
            return None, None
        slope = self._slope(base)
        config = sizing.refiner_config(self.geometry)
        # A bit costs in the loss, the logarithm of the squared error, what it would bring the base's own stream.
        price = math.log(10) / 10 * slope * parameter_count(config) / (8 * len(base.stream))
        fit = replace(fit, time_s=left_s, rate_weight=price, psnr_db=None, lr=fit.lr or sizing.REFINER_LR)
        source = [to_base(self.base.planes.frames(slice(i, i + 1)), self.base.form, self.base.form.depth)
                  for i in range(self.geometry.frames)]  # fmt: skip
        source_format = base_format(self.base.form, self.base.form.depth)
        data = SegmentData(
            self.task.data.frames,
            fitted=self.task.data.fitted,
            base=BaseData(base.planes, self.format, joined(iter(source), len(source)), source_format),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fit.seed + self.task.index)
            field = build(config)
        state = FitState(field, data, fit, self.task.hardware)
        if resumed is not None:
            state.restore(resumed)
        self.hooks.stage("Fitting")
        result = Loop(state, self.hooks).run()
        tensors = bitstream.read(coded(field, result.rounding))
        psnr_db = self._psnr(config, bitstream.values(tensors), base.planes)
        size = bitstream.encode(tensors).size
        gain = float((psnr_db - base.psnr_db)[self.fitted].mean())
        return Refined(config, tensors, psnr_db, size, result.steps, result.complete), math.exp(gain / slope) - 1

    def _slope(self, base: Coded) -> float:
        """Decibels that the base gains with e times as many bytes, about its quality; by a fast preset."""
        trials = []
        for crf in (base.crf, quarter(base.crf - _PROBE_CRF)):
            try:
                stream = self._stream(crf, _PROBE_PRESET)
            except Stopped:
                return _USUAL_SLOPE
            trials.append((math.log(len(stream)), float(self._decoded(stream, crf).psnr_db.mean())))
        (small, low), (large, high) = trials
        return (high - low) / (large - small) if large > small and high > low else _USUAL_SLOPE
