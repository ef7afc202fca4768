# SPDX-License-Identifier: MIT
"""A segment with a base layer: code it, fit what the network adds, and keep that where it earns its bytes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from nervcodec.base import av1
from nervcodec.base.convert import base_format, to_base
from nervcodec.base.rate import Search, quality_aim, quarter, size_aim
from nervcodec.encoding.head import SEMANTIC_SHARE, SegmentHead, head_of, room_beside, stored
from nervcodec.encoding.material import joined
from nervcodec.encoding.refine import Coded, Refined, quality_of, refine
from nervcodec.encoding.segment import CodedBase, EncodedSegment, SegmentTask
from nervcodec.errors import ConfigError
from nervcodec.fitting.config import SizeGoal
from nervcodec.fitting.hooks import Hook
from nervcodec.formats import bitstream
from nervcodec.formats.header import Segment
from nervcodec.network.config import RefinerConfig, network_to_json
from nervcodec.video.planes import Planes

DEPTH = 10  # bits of a coded sample: worth 5 % of the bytes of 8-bit footage (benchmarks/NOTES.md)
_REACH = 0.955  # of what a size leaves the base layer, for a search to be content
_ABOVE_DB = 0.25  # the same for a PSNR
_PROBE_PRESET, _PROBE_CRF = 10, 6.0  # how it is found out what a decibel costs, at two qualities so far apart
_USUAL_SLOPE = 3.5  # decibels for a file e times as large, where it cannot be measured
_LEAST_FIT_S = 2.0  # below which a fit is not begun


class Stopped(Exception):
    """The user wants no more while a base layer is coded."""


def code_segment(task: SegmentTask, hooks: Hook, resumed: dict[str, Any] | None) -> EncodedSegment | None:
    """A segment with a base layer; see :func:`nervcodec.encoding.task.fit_segment`.

    A wish to stop ends the network's fit, and the coding of any segment but the first.
    """
    start = time.perf_counter()
    assert isinstance(task.network, RefinerConfig)
    layer = _Layer(task, hooks)
    try:
        head = SegmentHead() if layer.limit is None else layer.head(SEMANTIC_SHARE * layer.limit)
        base = layer.coded(head)
        layer.may_stop = True
        hooks.worth_keeping()
        if layer.limit is None:
            head = layer.head(room_beside(len(base.stream)))
        refined, worth = layer.refined(base, head, time.perf_counter() - start, resumed)
    except Stopped:
        return None
    kept = refined if refined is not None and layer.earns(base, head, refined, worth or 0.0) else None
    config = replace(kept.config if kept else task.network, semantic=head.semantic)
    tensors = {**head.tensors, **(kept.tensors if kept else {})}
    frames = len(task.data.frames)
    return EncodedSegment(
        segment=Segment(task.first_frame, frames, network_to_json(config), f"{task.index}/"),
        stream=stored(config, task.embedded, tensors),
        entropy_bytes=bitstream.entropy_bytes(tensors),
        psnr_db=kept.psnr_db if kept else base.psnr_db,
        parameters=bitstream.value_count(tensors),
        steps=refined.steps if refined else 0,
        elapsed_s=time.perf_counter() - start,
        complete=refined.complete if refined else not (layer.tries and hooks.stop_requested()),
        fell_back=refined is not None and refined.fell_back,
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
        self.may_stop = bool(task.index)  # there is something to keep

    @property
    def limit(self) -> float | None:
        """Bytes of the whole segment, where there is a limit."""
        return None if self.task.goal is None else self.task.goal.limit_bytes

    def head(self, limit_bytes: float) -> SegmentHead:
        """The semantic head, in about so many bytes at the most; in a basis that is there already, in what it takes."""
        if self.task.basis is not None:
            return self.task.basis.segment(self.task.embedded, self.task.data.embeddings)
        grid = self.geometry.patch_rows, self.geometry.patch_columns
        return head_of(self.task.data.embeddings, self.task.embedded, grid, limit_bytes)

    # ------------------------------------------------------------------ the base

    def room(self, head: SegmentHead) -> float:
        """Bytes that the head leaves, where there is a limit."""
        assert self.limit is not None
        return self.limit - head.size_bytes

    def coded(self, head: SegmentHead) -> Coded:
        """The base at the quality that was asked for, or that meets the goal.

        Raises:
            ConfigError: no quality is small enough for the size that was asked for.
        """
        if self.limit is not None:
            aim, over_is_worse = size_aim(self.room(head), _REACH), True
        elif self.base.psnr_db is not None:
            aim, over_is_worse = quality_aim(self.base.psnr_db, _ABOVE_DB), False
        else:
            return self._decoded(self._stream(self.base.crf, self.base.preset), self.base.crf)
        crf, stream = Search(self._attempt, aim, over_is_worse).run(self.base.crf)
        if self.limit is not None:
            _require_room(self.task, self.room(head), head, (len(stream), crf))
        return self._decoded(stream, crf)

    def _attempt(self, crf: float) -> tuple[bytes, float]:
        """A stream at a quality and what a search looks at: the logarithm of its bytes, or its PSNR in dB."""
        stream = self._stream(crf, self.base.preset)
        if self.limit is not None:
            return stream, math.log(len(stream))
        return stream, float(self._quality(stream)[self.fitted].mean())

    def _stream(self, crf: float, preset: int, stage: str = "Coding the base") -> bytes:
        """All frames at a quality."""
        self.hooks.stage(stage, self.geometry.frames)
        size = self.geometry.width, self.geometry.height
        return av1.encode(self._frames(), self.format, *size, self.base.rate, crf, preset)

    def _frames(self) -> Iterator[Planes]:
        for number in range(self.geometry.frames):
            if self.may_stop and self.hooks.stop_requested():
                raise Stopped
            yield to_base(self.base.planes.frames(slice(number, number + 1)), self.base.form, DEPTH)
            self.hooks.advance()

    def _samples(self, stream: bytes) -> Iterator[Planes]:
        """The frames of a stream, one after the other."""
        geometry = self.geometry
        return av1.decode(stream, self.format, geometry.width, geometry.height, geometry.frames)

    def _quality(self, stream: bytes) -> np.ndarray:
        """``(N,)`` dB of each frame of a stream, of which one at a time is in memory."""
        config = RefinerConfig(self.geometry)
        return np.concatenate(
            [
                quality_of(self.task, config, {}, frame, self.format, range(number, number + 1))
                for number, frame in enumerate(self._samples(stream))
            ]
        )

    def _decoded(self, stream: bytes, crf: float) -> Coded:
        geometry, frames = self.geometry, self._samples(stream)
        planes = joined(frames, geometry.frames)
        for _ in frames:  # what comes after the last is an error, found where the end is looked for
            continue
        return Coded(stream, planes, quality_of(self.task, RefinerConfig(geometry), {}, planes, self.format), crf)

    # ------------------------------------------------------------------ the network

    @property
    def tries(self) -> bool:
        """Whether a network is fitted at all: where there is time for it, and no quality that the base has already."""
        timed = self.task.fit.time_s is not None or self.task.fit.epochs is not None
        return timed and self.base.psnr_db is None

    def refined(
        self, base: Coded, head: SegmentHead, elapsed_s: float, resumed: dict[str, Any] | None
    ) -> tuple[Refined | None, float | None]:
        """A network fitted in the time that is left, and what its gain would cost the base: a part of its bytes."""
        fit = self.task.fit
        left_s = None if fit.time_s is None else fit.time_s - elapsed_s
        if not self.tries or (left_s is not None and left_s < _LEAST_FIT_S) or self.hooks.stop_requested():
            return None, None
        slope = self._slope(base)
        goal = None if self.limit is None else SizeGoal(self.room(head) - len(base.stream))
        task = replace(self.task, fit=replace(fit, time_s=left_s), goal=goal)
        found = refine(task, base, self.format, slope, self.hooks, resumed)
        return found, math.exp(float((found.psnr_db - base.psnr_db)[self.fitted].mean()) / slope) - 1

    def earns(self, base: Coded, head: SegmentHead, refined: Refined, worth: float) -> bool:
        """Whether a network is worth its bytes; where a size was asked for, those are what the base left of it."""
        if self.limit is not None:
            return worth > 0 and refined.size_bytes <= self.room(head) - len(base.stream)
        return worth > refined.size_bytes / len(base.stream)

    def _slope(self, base: Coded) -> float:
        """Decibels that the base gains with e times as many bytes, about its quality; by a fast preset."""
        trials = []
        for crf in (base.crf, quarter(base.crf - _PROBE_CRF)):
            try:
                stream = self._stream(crf, _PROBE_PRESET, "Probing the base")
            except Stopped:
                return _USUAL_SLOPE  # the fit will end at once, too
            trials.append((math.log(len(stream)), float(self._quality(stream).mean())))
        (small, low), (large, high) = trials
        return (high - low) / (large - small) if large > small and high > low else _USUAL_SLOPE


def _require_room(task: SegmentTask, room: float, head: SegmentHead, found: tuple[int, float]) -> None:
    """Refuse a stream of so many bytes, coded at a crf, where it does not fit."""
    size, crf = found
    if size <= room:
        return
    where = f" of segment {task.index + 1}" if task.count > 1 else ""
    beside = f" beside {head.size_bytes:,} of embeddings" if head.size_bytes else ""
    raise ConfigError(
        f"the size leaves {max(room, 0):,.0f} bytes for the base layer{where}{beside}, and it takes {size:,} at crf "
        f"{crf:g}; ask for more, or --scale the video down"
    )
