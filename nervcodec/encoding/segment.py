# SPDX-License-Identifier: MIT
"""A segment of a network alone: its task, the fit, and the segment as it is stored.

Tasks and results are plain data that can be sent to another process; the fit is a pure function of its task.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from nervcodec import metrics, sizing
from nervcodec.decoding.rendering import render
from nervcodec.device import Hardware, choose
from nervcodec.encoding.embeddings import (
    EmbeddingBasis,
    SegmentEmbeddings,
    SegmentHead,
    Tensors,
    embed_segment,
    fitted_frames,
    head_of,
    serialize,
)
from nervcodec.encoding.plan import Plan, segment_fit
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.formats.fields import from_json, to_json
from nervcodec.formats.header import Segment
from nervcodec.formats.weights import read_tables
from nervcodec.media.shots import find_cuts, find_pace, persistence, thumbnails
from nervcodec.network.build import build, from_arrays
from nervcodec.network.config import Geometry, GridConfig, HeadOnlyConfig, NetworkConfig, network_to_json
from nervcodec.network.field import Field, Inputs
from nervcodec.network.shapes import parameter_count, per_segment_parameter_count
from nervcodec.semantic.patches import embed_patches
from nervcodec.training.config import FitConfig, SizeGoal
from nervcodec.training.datasets import SegmentData
from nervcodec.training.diagnostics import evenly_spaced
from nervcodec.training.hooks import HELD_OUT_EMBEDDED, Hook, ProgressHook
from nervcodec.training.loop import Evaluator, FitResult, TrainingLoop
from nervcodec.training.rate_control import encode_to_size
from nervcodec.training.state import FitState

if TYPE_CHECKING:
    from nervcodec.encoding.shared import SharedDecoder, SharedParameters


@dataclass(frozen=True)
class CodedBase:
    """The base layer of a segment.

    Attributes:
        stream: ``(n,)`` uint8, OBUs without temporal delimiters.
        psnr_db: ``(N,)`` of each frame.
        crf: it was coded at.
        vmaf: ``(n,)`` of each measured frame; empty without a target VMAF.
    """

    stream: np.ndarray
    psnr_db: np.ndarray
    crf: float
    vmaf: np.ndarray

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        arrays = {name: torch.from_numpy(getattr(self, name).copy()) for name in ("stream", "psnr_db", "vmaf")}
        return {"crf": self.crf, **arrays}

    @classmethod
    def from_state_dict(cls, facts: dict[str, Any]) -> CodedBase:
        """The inverse of :meth:`state_dict`."""
        return cls(facts["stream"].numpy(), facts["psnr_db"].numpy(), facts["crf"], facts["vmaf"].numpy())


@dataclass(frozen=True)
class SegmentTask:
    """Everything the fit of one segment depends on; it can be sent to another process.

    Attributes:
        index, count: which segment of how many, from 0.
        first_frame: number of its first frame.
        data: frames and embeddings.
        network: configuration of the network.
        fit: settings, with the segment's share of the time.
        goal: what the stored weights should take, or None; embeddings in a basis of all are beside it.
        hardware: device and precision.
        precision: of the options, for a fit that continues on the CPU.
        basis: that its embeddings are stored in with those of all segments; None for one of its own.
        shared: what its network has in common with those of all segments; None where it has all its own.
    """

    index: int
    count: int
    first_frame: int
    data: SegmentData
    network: NetworkConfig
    fit: FitConfig
    goal: SizeGoal | None
    hardware: Hardware
    precision: str = "auto"
    basis: EmbeddingBasis | None = None
    shared: SharedDecoder | None = None

    @property
    def embedded(self) -> tuple[int, ...]:
        """Frames, counted from the segment's first, that have embeddings."""
        return () if self.data.embedded_frames is None else tuple(self.data.embedded_frames.tolist())

    @property
    def expected_bpp(self) -> float:
        """Bits per pixel that the weights will take, about."""
        count = parameter_count if self.shared is None else per_segment_parameter_count
        expected_bytes = count(self.network) * sizing.BITS_PER_PARAMETER / 8
        return metrics.rate_bpp(expected_bytes, *self.data.frames.shape[:3])


@dataclass(frozen=True)
class EncodedSegment:
    """One segment, fitted and quantised.

    Attributes:
        segment: as the header lists it.
        stream: ``(n,)`` uint8, tables of its frames, and its weights; empty if its network has none.
        entropy_bytes: empirical entropy of the quantised weights.
        psnr_db: ``(N,)`` of each frame, decoded from the stored integers.
        parameters, steps, elapsed_s: of the fit.
        complete: False where the fit was stopped early.
        fell_back: the GPU's memory did not hold it, so it was fitted on the CPU.
        base: its base layer, or None.
    """

    segment: Segment
    stream: np.ndarray
    entropy_bytes: float
    psnr_db: np.ndarray
    parameters: int
    steps: int
    elapsed_s: float
    complete: bool = True
    fell_back: bool = False
    base: CodedBase | None = None

    @property
    def embedded_frames(self) -> tuple[int, ...]:
        """Frames, counted from the segment's first, whose embeddings were fitted."""
        return read_tables(self.stream, self.segment.frame_count).embedded if self.stream.size else ()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        return {
            "segment": json.dumps(to_json(self.segment)),
            "stream": torch.from_numpy(self.stream.copy()),
            "entropy_bytes": self.entropy_bytes,
            "psnr_db": torch.from_numpy(self.psnr_db.copy()),
            "parameters": self.parameters,
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
            "base": None if self.base is None else self.base.state_dict(),
        }

    @classmethod
    def from_state_dict(cls, facts: dict[str, Any]) -> EncodedSegment:
        """The inverse of :meth:`state_dict`."""
        stream, psnr_db = facts["stream"].numpy(), facts["psnr_db"].numpy()
        segment = from_json(Segment, json.loads(facts["segment"]), "segment")
        base = None if facts["base"] is None else CodedBase.from_state_dict(facts["base"])
        return cls(**{**facts, "segment": segment, "stream": stream, "psnr_db": psnr_db, "base": base})


def head_segment(
    plan: Plan, index: int, head: SegmentHead, psnr_db: np.ndarray, elapsed_s: float, base: CodedBase | None = None
) -> EncodedSegment:
    """A segment whose network is a semantic head alone, or nothing at all.

    Args:
        plan: of the encode.
        index: of the segment, from 0.
        head: its semantic head.
        psnr_db: ``(N,)`` of each frame.
        elapsed_s: seconds that its coding took.
        base: its base layer; None where the file has one for all segments.
    """
    first, frames = plan.first_frame(index), plan.lengths[index]
    config = HeadOnlyConfig(plan.geometry(frames), semantic=head.semantic, cuts=plan.cuts(index))
    return EncodedSegment(
        segment=Segment(first, frames, network_to_json(config), f"{index}/"),
        stream=serialize(config, () if head.semantic is None else head.semantic.code_frames, head.tensors),
        entropy_bytes=bitstream.entropy_bytes(head.tensors),
        psnr_db=psnr_db,
        parameters=bitstream.value_count(head.tensors),
        steps=0,
        elapsed_s=elapsed_s,
        base=base,
    )


_Fitted = TypeVar("_Fitted")


def with_cpu_fallback(
    fit: Callable[[SegmentTask], _Fitted], task: SegmentTask, observer: Observer
) -> tuple[_Fitted, SegmentTask]:
    """Run a task, on the CPU if a GPU's memory is too small for it; returns the result and the task that ran.

    Args:
        fit: runs a task.
        task: to run.
        observer: gets a note of the fallback.
    """
    try:
        return fit(task), task
    except torch.cuda.OutOfMemoryError:
        observer.note("the GPU's memory does not hold this fit at any batch size; it continues on the CPU")
    on_cpu = replace(task, hardware=choose("cpu", task.precision))
    return fit(on_cpu), on_cpu


def fit_network(
    task: SegmentTask,
    observer: Observer,
    hooks: Sequence[Hook],
    resumed: dict[str, Any] | None,
    judge: Evaluator | None = None,
) -> tuple[Field, FitResult]:
    """The task's network, from random weights or where a fit was left.

    Args:
        task: whose network, data, settings and goal count.
        observer, hooks: as :class:`TrainingLoop` takes them.
        resumed: the state to resume, or None.
        judge: needed where the settings name a PSNR to reach.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.fit.seed + task.index)
        field = build(task.network)
    if task.shared is not None:
        _begin_from(field, task.shared, task.first_frame)
    state = FitState(field, task.data, task.fit, task.hardware, task.goal)
    if resumed is not None:
        state.load_state_dict(resumed)
    return field, TrainingLoop(state, observer, hooks, judge).run()


@torch.no_grad()
def _begin_from(field: Field, shared: SharedDecoder, first: int) -> None:
    """Give a field what is shared, and let the rest begin where the sample came to."""
    assert isinstance(field.config, GridConfig)
    field.freeze({name: torch.from_numpy(values) for name, values in shared.weights().items()})
    for name, values in shared.beginning(field.config, first).items():
        field.get_parameter(name).copy_(torch.from_numpy(values))


def fit_segment(
    task: SegmentTask,
    observer: Observer | None = None,
    hooks: Sequence[Hook] = (),
    resumed: dict[str, Any] | None = None,
) -> EncodedSegment | None:
    """Fit, round and measure one segment.

    Args:
        task: the segment.
        observer: of the fit; may request a stop.
        hooks: further hooks of the training loop.
        resumed: the state of a fit of the same task to resume, see :meth:`FitState.state_dict`.

    Returns:
        None where it was stopped before its first step and is not the first.

    Raises:
        DivergedError: the fit produced values that are not finite.
        ConfigError: the state is of another task.
    """
    observer = observer or Observer()
    hooks = [ProgressHook(observer, task.index, task.count, task.expected_bpp), *hooks]
    head = _basis_head(task.data, task.network.geometry, task.basis)
    observer.stage("Fitting")
    (field, result), done = with_cpu_fallback(lambda one: _fitted(one, observer, hooks, resumed), task, observer)
    if task.index and not result.steps:
        return None
    own = bitstream.read(encode_to_size(field, result.quantization_steps, task.goal))
    pixels = task.data.frames
    config = task.network if head.semantic is None else replace(task.network, semantic=head.semantic)
    tensors = {**head.tensors, **own}
    return EncodedSegment(
        segment=Segment(task.first_frame, len(pixels), network_to_json(config), f"{task.index}/"),
        stream=serialize(config, task.embedded, tensors),
        entropy_bytes=bitstream.entropy_bytes(tensors),
        psnr_db=measure(task.network, _weights(task, own), pixels, np.arange(len(pixels)), done.hardware),
        parameters=bitstream.value_count(tensors),
        steps=result.steps,
        elapsed_s=result.elapsed_s,
        complete=result.complete,
        fell_back=done is not task,
    )


def _basis_head(data: SegmentData, geometry: Geometry, basis: EmbeddingBasis | None) -> SegmentHead:
    """The codes of a segment's embeddings in the basis of all segments; no head where there is no such basis."""
    if basis is None or data.embeddings is None or data.embedded_frames is None:
        return SegmentHead()
    embeddings = SegmentEmbeddings(data.embedded_frames, data.embeddings)
    return head_of(embeddings, (geometry.patch_rows, geometry.patch_columns), math.inf, basis)


def _fitted(
    task: SegmentTask, observer: Observer, hooks: Sequence[Hook], resumed: dict[str, Any] | None
) -> tuple[Field, FitResult]:
    """A network fitted to a segment, judged by what its file would show."""
    pixels, numbers = task.data.frames, np.flatnonzero(task.data.is_fitted)

    def judge(field: Field, steps: dict[str, np.ndarray]) -> float:
        weights = _weights(task, bitstream.read(encode_to_size(field, steps, task.goal)))
        return float(measure(task.network, weights, pixels[numbers], numbers, task.hardware).mean())

    return fit_network(task, observer, hooks, resumed, judge)


def _weights(task: SegmentTask, own: Tensors) -> dict[str, np.ndarray]:
    """Of the whole network, as a decoder reads them."""
    return bitstream.values(own) | ({} if task.shared is None else task.shared.weights())


def measure(
    network: NetworkConfig,
    weights: dict[str, np.ndarray],
    pixels: np.ndarray,
    numbers: np.ndarray,
    hardware: Hardware,
) -> np.ndarray:
    """PSNR of some frames, rendered by a fresh network from the weights as they will be read.

    Args:
        network: its configuration.
        weights: by name.
        pixels: ``(n, H, W, 3)`` uint8, what the frames should be.
        numbers: ``(n,)`` of the frames, counted from the segment's first.
        hardware: device and precision.

    Returns:
        ``(n,)`` dB.
    """
    field = from_arrays(network, weights).to(hardware.device)
    result = np.empty(len(pixels))
    for index, (number, source) in enumerate(zip(numbers, pixels, strict=True)):
        (image,) = render(field, Inputs(torch.tensor([number])), hardware)
        result[index] = metrics.psnr_db(image, source)
    return result


_ROUNDED = 0.8  # the last part of a segment's fit in which weights are rounded, where it begins near its end


def segment_task(
    plan: Plan,
    pixels: np.ndarray,
    first: int,
    index: int,
    observer: Observer,
    shared: SharedParameters,
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
    options, encoder, count = plan.options, plan.encoder, len(plan.lengths)
    fitted = fitted_frames(plan, first, len(pixels))
    start, cuts = time.perf_counter(), find_cuts(thumbnails(pixels))
    share = shared.share(index)
    plan.size_goal(len(pixels), 0, len(cuts), share)  # refuses a size that is too small before any work
    embeddings = shared.embeddings_by_segment.get(index) or embed_segment(
        plan, pixels, first, len(pixels), cuts, observer
    )
    embedded = np.empty(0, np.int64) if embeddings is None else embeddings.numbers
    geometry = plan.geometry(len(pixels))
    goal = plan.size_goal(len(pixels), len(embedded), len(cuts), share)
    logged = _held_out_to_show(plan, fitted)
    similar = embed_patches(pixels[logged], plan.grid, encoder) if encoder is not None and len(logged) else None
    reference = None if embeddings is None else embeddings.reference.astype(np.float32)
    data = SegmentData(pixels, reference, embedded, fitted, similar, logged)
    embed_s = time.perf_counter() - start if encoder is not None else 0.0
    fit = segment_fit(plan, len(pixels))
    if shared.network is not None:
        return _with_shared(plan, data, cuts, goal, shared, first, index), embed_s
    config = sizing.network_config(
        options.network,
        geometry,
        goal,
        None if encoder is None else encoder.dimension,
        embedded.tolist(),
        _outlook(plan, pixels, cuts, int(fitted.sum()), fit),
    )
    _require_few(parameter_count(config), goal)
    return SegmentTask(index, count, first, data, config, fit, goal, plan.hardware, options.precision), embed_s


def _require_few(parameters: int, goal: SizeGoal | None) -> None:
    """Refuse more parameters than a file of a size may hold."""
    if goal is not None and parameters > bitstream.max_values(int(goal.limit_bytes)):
        raise ConfigError(f"{parameters:,} parameters are too many for {goal.limit_bytes:,.0f} bytes")


def _with_shared(
    plan: Plan,
    data: SegmentData,
    cuts: tuple[int, ...],
    goal: SizeGoal | None,
    shared: SharedParameters,
    first: int,
    index: int,
) -> SegmentTask:
    """The task of a segment that shares its decoder, with the number of its first frame and its own."""
    assert shared.network is not None
    options, frames = plan.options, len(data.frames)
    geometry = plan.geometry(frames)
    fit = segment_fit(plan, frames)
    fit = replace(fit, rounding_share=fit.rounding_share and max(fit.rounding_share, _ROUNDED))
    if goal is not None and shared.basis is not None:
        goal = goal.minus(_basis_head(data, geometry, shared.basis).size_bytes, sizing.MINIMUM_SEGMENT_BYTES)
    budget = sizing.per_segment_budget(options.network, geometry, goal, shared.network.config)
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
        options.precision,
        basis=shared.basis,
        shared=shared.network,
    )


def _outlook(
    plan: Plan, pixels: np.ndarray, cuts: tuple[int, ...], fitted: int, fit: FitConfig
) -> sizing.SegmentTraits:
    """Traits of a segment from its frames, of which ``fitted`` are fitted."""
    passes = sizing.expected_passes(plan.geometry(len(pixels)), fit, fitted, plan.hardware.device)
    return sizing.SegmentTraits(fitted, cuts, find_pace(pixels), persistence(pixels, cuts), passes)


def _held_out_to_show(plan: Plan, fitted: np.ndarray) -> np.ndarray:
    """Held-out frames whose similarity the log shows, by number."""
    if plan.options.log_dir is None or plan.encoder is None or fitted.all():
        return np.empty(0, np.int64)
    return np.array(evenly_spaced(np.flatnonzero(~fitted), HELD_OUT_EMBEDDED), np.int64)
