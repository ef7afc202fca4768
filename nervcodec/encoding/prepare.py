# SPDX-License-Identifier: MIT
"""From a plan and the pixels of a segment to its task: which frames are fitted and embedded, and by what network."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from nervcodec import sizing
from nervcodec.encoding.embedding import embed_segment, fitted_frames
from nervcodec.encoding.plan import Plan
from nervcodec.encoding.segment import SegmentTask
from nervcodec.encoding.shared import NOTHING_SHARED, Shared
from nervcodec.encoding.times import segment_fit
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.media.shots import find_cuts, find_pace, persistence, seen_small
from nervcodec.network.shapes import parameter_count, per_segment_parameter_count
from nervcodec.semantic.patches import embed_patches
from nervcodec.training.config import FitConfig, SizeGoal
from nervcodec.training.datasets import SegmentData
from nervcodec.training.diagnostics import evenly_spaced
from nervcodec.training.hooks import HELD_OUT_EMBEDDED

_ROUNDED = 0.8  # the last part of a segment's fit in which weights are rounded, where it begins near its end


def prepare(
    plan: Plan, pixels: np.ndarray, first: int, index: int, observer: Observer, shared: Shared = NOTHING_SHARED
) -> tuple[SegmentTask, float]:
    """The task of one segment of a network alone, and the seconds that its reference embeddings took.

    Args:
        plan: of the encode.
        pixels: ``(N, H, W, 3)`` uint8.
        first: number of its first frame.
        index: which segment it is, from 0.
        observer: told of the embedding.
        shared: what it has in common with all others.

    Raises:
        ConfigError: nothing to fit, or a size that is too small.
    """
    wanted, encoder, count = plan.wanted, plan.encoder, len(plan.lengths)
    fitted = fitted_frames(plan, first, len(pixels))
    start, cuts = time.perf_counter(), find_cuts(seen_small(pixels))
    share = shared.share(index)
    plan.size_goal(len(pixels), 0, len(cuts), share)  # refuses a size that is too small before any work
    known = shared.everything.get(index) or embed_segment(plan, pixels, first, len(pixels), cuts, observer)
    embedded = np.empty(0, np.int64) if known is None else known.numbers
    geometry = plan.geometry(len(pixels))
    goal = plan.size_goal(len(pixels), len(embedded), len(cuts), share)
    shown = _held_out_to_show(plan, fitted)
    similar = embed_patches(pixels[shown], plan.grid, encoder) if encoder is not None and len(shown) else None
    reference = None if known is None else known.reference.astype(np.float32)
    data = SegmentData(pixels, reference, embedded, fitted, similar, shown)
    embed_s = time.perf_counter() - start if encoder is not None else 0.0
    fit = segment_fit(plan, len(pixels))
    if shared.network is not None:
        return _with_shared(plan, data, cuts, goal, shared, first, index), embed_s
    config = sizing.network_config(
        wanted.network,
        geometry,
        goal,
        None if encoder is None else encoder.dimension,
        embedded.tolist(),
        _outlook(plan, pixels, cuts, int(fitted.sum()), fit),
    )
    _require_few(parameter_count(config), goal)
    return SegmentTask(index, count, first, data, config, fit, goal, plan.hardware, wanted.precision), embed_s


def _require_few(parameters: int, goal: SizeGoal | None) -> None:
    """Refuse more parameters than a file of a size may hold."""
    if goal is not None and parameters > bitstream.max_values(int(goal.limit_bytes)):
        raise ConfigError(f"{parameters:,} parameters are too many for {goal.limit_bytes:,.0f} bytes")


def _with_shared(
    plan: Plan,
    data: SegmentData,
    cuts: tuple[int, ...],
    goal: SizeGoal | None,
    shared: Shared,
    first: int,
    index: int,
) -> SegmentTask:
    """The task of a segment that shares its decoder, with the number of its first frame and its own."""
    assert shared.network is not None
    wanted, frames = plan.wanted, len(data.frames)
    geometry = plan.geometry(frames)
    fit = segment_fit(plan, frames)
    fit = replace(fit, rounding_share=fit.rounding_share and max(fit.rounding_share, _ROUNDED))
    if goal is not None and shared.basis is not None and data.embedded_frames is not None:
        codes = shared.basis.segment(tuple(data.embedded_frames.tolist()), data.embeddings).size_bytes
        goal = goal.minus(codes, sizing.OWN_MINIMUM_BYTES)
    budget = sizing.per_segment_budget(wanted.network, geometry, goal, shared.network.config)
    scenes: tuple[int, ...] = ()
    scene_count = 0
    if shared.scenes is not None:
        cuts, scenes = shared.scenes.of(np.arange(first, first + frames))
        scene_count = len(shared.scenes.scenes)
    fitted, pace = int(data.is_fitted.sum()), find_pace(data.frames)
    outlook = sizing.SegmentTraits(fitted, cuts, pace, fewest=1, scenes=scenes, scene_count=scene_count)
    config = sizing.per_segment_config(shared.network.config, geometry, budget, outlook)
    _require_few(per_segment_parameter_count(config), goal)
    return SegmentTask(
        index,
        len(plan.lengths),
        first,
        data,
        config,
        fit,
        goal,
        plan.hardware,
        wanted.precision,
        basis=shared.basis,
        shared=shared.network,
    )


def _outlook(
    plan: Plan, pixels: np.ndarray, cuts: tuple[int, ...], fitted: int, fit: FitConfig
) -> sizing.SegmentTraits:
    """What a segment's frames, so many of them fitted, and its fit let expect."""
    passes = sizing.expected_passes(plan.geometry(len(pixels)), fit, fitted, plan.hardware.device)
    return sizing.SegmentTraits(fitted, cuts, find_pace(pixels), persistence(pixels, cuts), passes)


def _held_out_to_show(plan: Plan, fitted: np.ndarray) -> np.ndarray:
    """Held-out frames whose similarity the log shows, by number."""
    if plan.wanted.log_dir is None or plan.encoder is None or fitted.all():
        return np.empty(0, np.int64)
    return np.array(evenly_spaced(np.flatnonzero(~fitted), HELD_OUT_EMBEDDED), np.int64)
