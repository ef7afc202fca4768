# SPDX-License-Identifier: MIT
"""What all segments of a video share, made before the first of them: a decoder, a basis of embeddings.

The decoder is fitted like any other network, to frames sampled from the whole video, then frozen and rounded, together
with the grids of scenes. The other grids of the sample are not stored: those of each segment are initialised from them.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nervcodec import sizing
from nervcodec.device import trim_memory
from nervcodec.encoding.embeddings import (
    SEMANTIC_SHARE,
    EmbeddingBasis,
    SegmentEmbeddings,
    Tensors,
    basis_for,
    embed_segment,
    fitted_frames,
    head_of,
)
from nervcodec.encoding.plan import Plan, shared_fit
from nervcodec.encoding.segment import SegmentTask, fit_network, with_cpu_fallback
from nervcodec.encoding.segment_reader import SegmentReader
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.formats.fields import from_json, to_json
from nervcodec.media.shots import Scenes, find_pace, persistence
from nervcodec.network.build import to_arrays
from nervcodec.network.config import GridConfig
from nervcodec.network.field import Field
from nervcodec.network.grid import grid_timeline
from nervcodec.network.shapes import is_per_segment
from nervcodec.training.datasets import SegmentData
from nervcodec.training.hooks import Hook, ProgressHook
from nervcodec.training.rate_control import SizeGoal, encode_to_size

_LEAST_SHARE = 0.3  # of the bytes that a segment would have by its length
_SMOOTH = 1e-3  # of a grid where no frame of the sample lies, over its agreement with those that do


@dataclass(frozen=True)
class SharedDecoder:
    """What segments share, and where they begin.

    Attributes:
        config: of the network of the sample.
        numbers: ``(M,)`` int64 of the sample's frames in the video, ascending.
        tensors: shared parameters as they are stored.
        grids: ``(times, channels, rows, columns)`` float32 of the sample's own, by name.
        steps: ``(channels,)`` float32, quantisation steps of those: what they were worth to the fit.
    """

    config: GridConfig
    numbers: np.ndarray
    tensors: Tensors
    grids: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]

    @classmethod
    def of(
        cls, field: Field, steps: dict[str, np.ndarray], numbers: np.ndarray, goal: SizeGoal | None = None
    ) -> SharedDecoder:
        """From a network that was fitted to a sample, and the quantisation steps it learned.

        Args:
            field: the network; what it has for scenes that are not in the sample becomes the mean of the others.
            steps: by tensor.
            numbers: of the sample's frames.
            goal: that all of it is squeezed to, where its fit was stopped and knows no size.

        Raises:
            ContainerError: a weight is not finite.
        """
        config = field.config
        assert isinstance(config, GridConfig)
        seen = sorted(set(config.scenes))
        for number in config.lasting:
            values = field.get_parameter(f"grids.{number}.values").data
            unseen = [scene for scene in range(len(values)) if scene not in seen]
            values[unseen] = values[seen].mean(dim=0)
        stored = bitstream.read(encode_to_size(field, steps, goal))
        shared = {name: tensor for name, tensor in stored.items() if not is_per_segment(config, name)}
        own = {name: values for name, values in to_arrays(field).items() if is_per_segment(config, name)}
        return cls(config, numbers, shared, own, {name: steps[name] for name in own})

    def weights(self) -> dict[str, np.ndarray]:
        """Shared parameters as a decoder reads them."""
        return bitstream.values(self.tensors)

    def shares(self, lengths: Sequence[int], least: Sequence[float] | float = 0.0) -> list[float]:
        """The part of all bytes that each segment should have: as many as the sample's network spent there.

        Args:
            lengths: frames of each segment.
            least: that each must have, or all.
        """
        bounds = np.cumsum([0, *lengths])
        spent = np.histogram(self.numbers, bounds, weights=self._frame_bits())[0]
        seen = np.histogram(self.numbers, bounds)[0]
        rates = np.where(seen > 0, spent / np.maximum(seen, 1), spent.sum() / seen.sum())
        by_length, bits = np.array(lengths) / sum(lengths), lengths * rates
        bits = bits if bits.sum() else by_length
        floor = np.maximum(_LEAST_SHARE * by_length, least)
        over = np.maximum(bits / bits.sum() - floor, 0)
        if floor.sum() >= 1 or not over.sum():
            return (floor / floor.sum()).tolist()
        return (floor + (1 - floor.sum()) * over / over.sum()).tolist()

    def _frame_bits(self) -> np.ndarray:
        """``(M,)``, what each frame of the sample has in the grids, by the entropy of their rounded values."""
        bits = np.zeros(len(self.numbers))
        for number in range(len(self.config.grids)):
            if number in self.config.lasting:
                continue
            name = f"grids.{number}.values"
            rounded = np.rint(self.grids[name] / self.steps[name].reshape(1, -1, 1, 1)).astype(np.int64)
            read = _interpolation(self.config, number)
            bits += read @ (_bits(rounded) / np.maximum(read.sum(axis=0), 1e-9))
        return bits

    def beginning(self, config: GridConfig, first: int) -> dict[str, np.ndarray]:
        """Grids of a segment that agree with those of the sample in the frames that it has of it.

        Args:
            config: of the segment; its grids are those of the sample but for their positions in time.
            first: number of its first frame in the video.
        """
        frames = config.geometry.frames
        inside = np.flatnonzero((self.numbers >= first) & (self.numbers < first + frames))
        if not inside.size:
            inside = np.abs(self.numbers - first - frames // 2).argmin(keepdims=True)
        positions = (self.numbers[inside] - first).clip(0, frames - 1)
        grids = {}
        for number in range(len(config.grids)):
            if number in config.lasting:
                continue
            name = f"grids.{number}.values"
            sampled = _interpolation(self.config, number)[inside]
            grids[name] = _solved(_interpolation(config, number)[positions], sampled, self.grids[name])
        return grids

    # ------------------------------------------------------------------ checkpoint

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        return {
            "config": json.dumps(to_json(self.config)),
            "numbers": torch.from_numpy(self.numbers.copy()),
            "tensors": torch.from_numpy(bitstream.encode(self.tensors).copy()),
            "grids": {name: torch.from_numpy(values.copy()) for name, values in self.grids.items()},
            "steps": {name: torch.from_numpy(values.copy()) for name, values in self.steps.items()},
        }

    @classmethod
    def from_state_dict(cls, facts: dict[str, Any]) -> SharedDecoder:
        """The inverse of :meth:`state_dict`."""
        return cls(
            from_json(GridConfig, json.loads(facts["config"]), "network"),
            facts["numbers"].numpy(),
            bitstream.read(facts["tensors"].numpy()),
            {name: values.numpy() for name, values in facts["grids"].items()},
            {name: values.numpy() for name, values in facts["steps"].items()},
        )


def sampled_numbers(fitted: np.ndarray, most: int) -> np.ndarray:
    """Evenly spaced among the frames that are fitted: all of them, or as many as there may be.

    Args:
        fitted: ``(N,)`` bool.
        most: frames.
    """
    numbers = np.flatnonzero(fitted)
    return numbers if len(numbers) <= most else numbers[np.linspace(0, len(numbers) - 1, most).round().astype(int)]


def _bits(rounded: np.ndarray) -> np.ndarray:
    """``(times,)``, the empirical entropy of whole numbers ``(times, channels, rows, columns)``, each channel alone."""
    bits = np.zeros(len(rounded))
    for channel in rounded.swapaxes(0, 1):
        _, kinds, counts = np.unique(channel, return_inverse=True, return_counts=True)
        cost = -np.log2(counts / channel.size)
        bits += cost[kinds].reshape(len(channel), -1).sum(axis=1)
    return bits


def _interpolation(config: GridConfig, number: int) -> np.ndarray:
    """``(frames, times)``, the weight of each entry of a grid in each frame."""
    frames = config.geometry.frames
    lower, upper, weight = (t.numpy() for t in grid_timeline(config, number).weights)
    matrix, rows = np.zeros((frames, config.grids[number].times)), np.arange(frames)
    np.add.at(matrix, (rows, lower), 1 - weight)
    np.add.at(matrix, (rows, upper), weight)
    return matrix


def _solved(weights: np.ndarray, sampled: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The grid that agrees best with another one, and is smooth in time where that says nothing.

    Args:
        weights: ``(n, times)`` weights of its entries in some frames.
        sampled: ``(n, other times)`` weights of the other grid's entries in the same frames.
        grid: ``(other times, channels, rows, columns)``.
    """
    times = weights.shape[1]
    change = _SMOOTH * np.diff(np.eye(times), axis=0)
    left = np.concatenate([weights, change])
    right = np.concatenate([sampled, np.zeros((len(change), sampled.shape[1]))])
    mixing = np.linalg.lstsq(left, right, rcond=None)[0]
    return np.tensordot(mixing, grid, axes=1).astype(np.float32)


# Grids of what lasts are shared where pictures of the scenes show so much of the frames, where scenes are fewer by this
# than their parts in all segments, and up to a number of positions, since any decoding of the file begins with them.
_LASTS, _FEWER, _MOST_POSITIONS = 0.4, 0.75, 1_000_000


@dataclass(frozen=True)
class SharedFit:
    """A network of a sample, fitted.

    Attributes:
        network: what is kept of it.
        elapsed_s, steps: of its fit.
        complete: False where that was stopped.
        fell_back: the GPU's memory did not hold it, so it was fitted on the CPU.
    """

    network: SharedDecoder
    elapsed_s: float
    steps: int
    complete: bool = True
    fell_back: bool = False


@dataclass(frozen=True)
class SharedParameters:
    """What is made of a whole video before its segments.

    Attributes:
        embeddings_by_segment: embeddings of segments by their numbers; empty where there is no encoder.
        basis: of all embeddings, or None.
        fit: of what the networks of all segments have in common, or None.
        shares: the part of all bytes that each segment should have; empty where nothing is known.
        scenes: of the video, where the network has grids for them; else None.
    """

    embeddings_by_segment: dict[int, SegmentEmbeddings]
    basis: EmbeddingBasis | None = None
    fit: SharedFit | None = None
    shares: tuple[float, ...] = ()
    scenes: Scenes | None = None

    def share(self, index: int) -> float | None:
        """The part of all bytes that a segment should have; None where nothing is known but its frames."""
        return self.shares[index] if self.shares else None

    @property
    def network(self) -> SharedDecoder | None:
        """What the networks of all segments have in common."""
        return None if self.fit is None else self.fit.network

    @property
    def tensors(self) -> Tensors:
        """What is stored once."""
        network = {} if self.network is None else self.network.tensors
        return {**({} if self.basis is None else self.basis.tensors), **network}

    @property
    def size_bytes(self) -> int:
        """Of those when they are coded."""
        return bitstream.encode(self.tensors).size if self.tensors else 0

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors of the fit and the basis."""
        assert self.fit is not None
        basis = None if self.basis is None else self.basis.state_dict()
        network = self.fit.network.state_dict()
        return {"basis": basis, "network": network, "elapsed_s": self.fit.elapsed_s, "steps": self.fit.steps}


NO_SHARED_PARAMETERS = SharedParameters({})


@dataclass(frozen=True)
class FirstPass:
    """What is seen of a source before its segments are encoded.

    Attributes:
        embeddings_by_segment: embeddings of segments by their numbers; empty where there is no encoder.
        numbers: ``(M,)`` of the frames of a sample.
        frames: ``(M, H, W, 3)`` uint8.
        scenes: of all segments.
    """

    embeddings_by_segment: dict[int, SegmentEmbeddings]
    numbers: np.ndarray
    frames: np.ndarray
    scenes: Scenes


def embed_base_segment(plan: Plan, index: int, reader: SegmentReader, observer: Observer) -> SegmentEmbeddings | None:
    """Embeddings of a segment with a base layer; None where there is no encoder.

    Raises:
        ConfigError: no frame to fit, or a size that is too small.
    """
    first, count, cuts = plan.first_frame(index), plan.lengths[index], plan.cuts(index)
    plan.size_goal(count, 0, len(cuts))
    with contextlib.closing(reader.frames(index)) as frames:
        embedded = embed_segment(plan, frames, first, count, cuts, observer)
    return None if embedded is None else embedded.as_float16


def first_pass(plan: Plan, most: int, observer: Observer) -> FirstPass:
    """Read a source once, for its embeddings and a sample of at most ``most`` frames.

    Raises:
        ConfigError: a segment without a frame to fit, or a size that is too small.
    """
    info, scenes = plan.info, Scenes()
    embeddings_by_segment: dict[int, SegmentEmbeddings] = {}
    numbers = sampled_numbers(fitted_frames(plan, 0, info.frame_count), most)
    frames = np.empty((len(numbers), info.height, info.width, 3), np.uint8)
    first = 0
    with contextlib.closing(SegmentReader(plan)) as reader:
        for index, length in enumerate(plan.lengths):
            pixels = reader.segment(index)
            cuts = scenes.add(pixels)
            plan.size_goal(length, 0, len(cuts))
            if (embeddings := embed_segment(plan, pixels, first, length, cuts, observer)) is not None:
                embeddings_by_segment[index] = embeddings.as_float16
            inside = (numbers >= first) & (numbers < first + length)
            frames[inside] = pixels[numbers[inside] - first]
            first += length
            del pixels  # so that no more than one segment is in memory
            trim_memory()
    return FirstPass(embeddings_by_segment, numbers, frames, scenes)


def share(
    plan: Plan, stored: dict[str, Any] | None, resumed: dict[str, Any] | None, hooks: Sequence[Hook], observer: Observer
) -> SharedParameters:
    """The network and the basis that the segments of a plan share, and the embeddings of all of them.

    Args:
        plan: of an encode whose segments share a network.
        stored: result of :meth:`SharedParameters.state_dict`, from a checkpoint; None fits the decoder.
        resumed: the state of its fit to resume, or None.
        hooks: of the training loop.
        observer: of the first pass over the source, and of the fit.

    Raises:
        ConfigError, DivergedError: as :func:`nervcodec.encoding.encode`.
    """
    seen = first_pass(plan, plan.sample_frames if stored is None else 0, observer)
    scenes = seen.scenes if _pays(plan, seen.scenes) else None
    if stored is not None:
        basis = None if stored["basis"] is None else EmbeddingBasis.from_state_dict(stored["basis"])
        fit = SharedFit(SharedDecoder.from_state_dict(stored["network"]), stored["elapsed_s"], stored["steps"])
    else:
        goal = _goal_of_all(plan, seen)
        limit_bytes = None if goal is None else SEMANTIC_SHARE * goal.limit_bytes
        basis = (
            basis_for(plan, list(seen.embeddings_by_segment.values()), limit_bytes)
            if seen.embeddings_by_segment
            else None
        )
        fit = _fitted_to(plan, seen, _beside(goal, seen, basis), observer, hooks, resumed)
    shared = SharedParameters(seen.embeddings_by_segment, basis, fit, (), scenes)
    return replace(shared, shares=_shares(replace(plan, shared_bytes=shared.size_bytes), seen, fit.network))


def _shares(plan: Plan, seen: FirstPass, network: SharedDecoder) -> tuple[float, ...]:
    """The part of all bytes of each segment, of which none is too small for what it holds whatever it shows."""
    bounds, least = np.cumsum([0, *plan.lengths]), []
    for index, frames in enumerate(plan.lengths):
        embedded = len(seen.embeddings_by_segment[index].numbers) if seen.embeddings_by_segment else 0
        cuts = sum(bounds[index] < piece.first < bounds[index + 1] for piece in seen.scenes.pieces)
        least.append(plan.least_share(frames, embedded, int(cuts)))
    return tuple(network.shares(plan.lengths, least))


def _goal_of_all(plan: Plan, seen: FirstPass) -> SizeGoal | None:
    """What all weights of a file should take."""
    embedded = sum(len(each.numbers) for each in seen.embeddings_by_segment.values())
    cuts = len(seen.scenes.pieces) - len(plan.lengths)
    return plan.size_goal(plan.info.frame_count, embedded, cuts)


def _beside(goal: SizeGoal | None, seen: FirstPass, basis: EmbeddingBasis | None) -> SizeGoal | None:
    """What of it is for pixels."""
    if goal is None or basis is None:
        return goal
    embeddings_by_segment = seen.embeddings_by_segment.values()
    codes = sum(head_of(each, basis.grid, math.inf, basis).size_bytes for each in embeddings_by_segment)
    return goal.minus(codes + basis.size_bytes, sizing.MINIMUM_BYTES)


def _pays(plan: Plan, scenes: Scenes) -> bool:
    """Whether grids of what lasts, one for each scene, are worth more than some of each segment's own."""
    count = len(scenes.scenes)
    positions = plan.info.height * plan.info.width / 16 * count
    few = count <= _FEWER * len(scenes.pieces) and positions <= _MOST_POSITIONS and not scenes.is_full
    return few and scenes.static_share > _LASTS


def _fitted_to(
    plan: Plan,
    seen: FirstPass,
    goal: SizeGoal | None,
    observer: Observer,
    hooks: Sequence[Hook],
    resumed: dict[str, Any] | None,
) -> SharedFit:
    """The network of a sample, whose size is a share of the goal for all pixels."""
    share = len(seen.numbers) / plan.info.frame_count
    cuts, scenes = seen.scenes.of(seen.numbers)
    pays = _pays(plan, seen.scenes)
    if goal is not None:
        goal = replace(goal, limit_bytes=goal.limit_bytes * math.sqrt(share))
    fit = shared_fit(plan)
    passes = sizing.expected_passes(plan.geometry(len(seen.frames)), fit, len(seen.frames), plan.hardware.device)
    outlook = sizing.SegmentTraits(
        cuts=cuts,
        pace=find_pace(seen.frames),
        persistence=persistence(seen.frames, cuts),
        passes=passes,
        fewest=max(2, len(plan.lengths)),
        scenes=scenes if pays else (),
        scene_count=len(seen.scenes.scenes) if pays else 0,
    )
    chosen = plan.options.network
    if chosen.parameters is not None:  # of one segment
        chosen = replace(chosen, parameters=int(chosen.parameters * len(plan.lengths) * math.sqrt(share)))
    config = sizing.network_config(chosen, plan.geometry(len(seen.frames)), goal, traits=outlook)
    task = SegmentTask(
        0,
        len(plan.lengths),
        0,
        SegmentData(seen.frames),
        config,
        replace(fit, psnr_db=None),
        goal,
        plan.hardware,
        plan.options.precision,
    )
    observer.partial_result_ready()
    observer.stage("Fitting what segments share")
    hooks = [ProgressHook(observer), *hooks]
    (field, result), done = with_cpu_fallback(lambda one: fit_network(one, observer, hooks, resumed), task, observer)
    network = SharedDecoder.of(field, result.quantization_steps, seen.numbers, None if result.complete else goal)
    return SharedFit(network, result.elapsed_s, result.steps, result.complete, done is not task)
