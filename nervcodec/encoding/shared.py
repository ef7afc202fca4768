# SPDX-License-Identifier: MIT
"""What all segments of a video have in common, made before the first of them: a network, a basis of embeddings."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nervcodec import sizing
from nervcodec.device import trim_memory
from nervcodec.encoding.basis import Basis, basis_for
from nervcodec.encoding.embedding import Embedded, embed_segment, fitted_frames
from nervcodec.encoding.fit import fitted, where_it_fits
from nervcodec.encoding.head import SEMANTIC_SHARE, Tensors
from nervcodec.encoding.joint import SharedNetwork, sampled_numbers
from nervcodec.encoding.plan import Plan
from nervcodec.encoding.segment import SegmentTask
from nervcodec.encoding.segment_reader import SegmentReader
from nervcodec.encoding.times import shared_fit
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.media.shots import Scenes, find_pace, persistence
from nervcodec.training.config import SizeGoal
from nervcodec.training.datasets import SegmentData
from nervcodec.training.hooks import Hook

# Grids of what lasts are shared where pictures of the scenes show so much of the frames, where scenes are fewer by this
# than their parts in all segments, and up to so many positions, since any decoding of the file begins with them.
_LASTS, _FEWER, _MOST_POSITIONS = 0.4, 0.75, 1_000_000


@dataclass(frozen=True)
class Fit:
    """A network of a sample, fitted.

    Attributes:
        network: what is kept of it.
        elapsed_s, steps: of its fit.
        complete: False where that was stopped.
        fell_back: the GPU's memory did not hold it, so it was fitted on the CPU.
    """

    network: SharedNetwork
    elapsed_s: float
    steps: int
    complete: bool = True
    fell_back: bool = False


@dataclass(frozen=True)
class Shared:
    """What is made of a whole video before its segments.

    Attributes:
        everything: embeddings of segments by their numbers; empty where there is no encoder.
        basis: of all embeddings, or None.
        fit: of what the networks of all segments have in common, or None.
        shares: the part of all bytes that each segment should have; empty where nothing is known.
        scenes: of the video, where the network has grids for them; else None.
    """

    everything: dict[int, Embedded]
    basis: Basis | None = None
    fit: Fit | None = None
    shares: tuple[float, ...] = ()
    scenes: Scenes | None = None

    def share(self, index: int) -> float | None:
        """The part of all bytes that a segment should have; None where nothing is known but its frames."""
        return self.shares[index] if self.shares else None

    @property
    def network(self) -> SharedNetwork | None:
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

    def to_facts(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors of the fit and the basis."""
        assert self.fit is not None
        basis = None if self.basis is None else self.basis.to_facts()
        network = self.fit.network.to_facts()
        return {"basis": basis, "network": network, "elapsed_s": self.fit.elapsed_s, "steps": self.fit.steps}


NOTHING_SHARED = Shared({})


@dataclass(frozen=True)
class Survey:
    """What is seen of a source before its segments are encoded.

    Attributes:
        everything: embeddings of segments by their numbers; empty where there is no encoder.
        numbers: ``(M,)`` of the frames of a sample.
        frames: ``(M, H, W, 3)`` uint8.
        scenes: of all segments.
    """

    everything: dict[int, Embedded]
    numbers: np.ndarray
    frames: np.ndarray
    scenes: Scenes


def embed_base_segment(plan: Plan, index: int, reader: SegmentReader, observer: Observer) -> Embedded | None:
    """Embeddings of a segment with a base layer; None where there is no encoder.

    Raises:
        ConfigError: no frame to fit, or a size that is too small.
    """
    first, count, cuts = plan.first_frame(index), plan.lengths[index], plan.cuts(index)
    plan.size_goal(count, 0, len(cuts))
    with contextlib.closing(reader.frames(index)) as frames:
        embedded = embed_segment(plan, frames, first, count, cuts, observer)
    return None if embedded is None else embedded.halved


def survey(plan: Plan, most: int, observer: Observer) -> Survey:
    """Read a source once, for its embeddings and a sample of at most so many frames.

    Raises:
        ConfigError: a segment without a frame to fit, or a size that is too small.
    """
    info, scenes = plan.info, Scenes()
    everything: dict[int, Embedded] = {}
    numbers = sampled_numbers(fitted_frames(plan, 0, info.frame_count), most)
    frames = np.empty((len(numbers), info.height, info.width, 3), np.uint8)
    first = 0
    with contextlib.closing(SegmentReader(plan)) as reader:
        for index, length in enumerate(plan.lengths):
            pixels = reader.segment(index)
            cuts = scenes.add(pixels)
            plan.size_goal(length, 0, len(cuts))
            if (known := embed_segment(plan, pixels, first, length, cuts, observer)) is not None:
                everything[index] = known.halved
            inside = (numbers >= first) & (numbers < first + length)
            frames[inside] = pixels[numbers[inside] - first]
            first += length
            del pixels  # so that no more than one segment is in memory
            trim_memory()
    return Survey(everything, numbers, frames, scenes)


def share(
    plan: Plan, known: dict[str, Any] | None, resumed: dict[str, Any] | None, hooks: Hook, observer: Observer
) -> Shared:
    """The network and the basis that the segments of a plan share, and the embeddings of all of them.

    Args:
        plan: of an encode whose segments share a network.
        known: what :meth:`Shared.to_facts` gave of it, from a checkpoint; None fits it.
        resumed: the state of its fit to go on from, or None.
        hooks: told of the fit.
        observer: told of the first pass over the source.

    Raises:
        ConfigError, DivergedError: as :func:`nervcodec.encoding.encode`.
    """
    seen = survey(plan, plan.sample_frames if known is None else 0, observer)
    scenes = seen.scenes if _pays(plan, seen.scenes) else None
    if known is not None:
        basis = None if known["basis"] is None else Basis.from_facts(known["basis"])
        fit = Fit(SharedNetwork.from_facts(known["network"]), known["elapsed_s"], known["steps"])
    else:
        goal = _goal_of_all(plan, seen)
        limit_bytes = None if goal is None else SEMANTIC_SHARE * goal.limit_bytes
        basis = basis_for(plan, list(seen.everything.values()), limit_bytes) if seen.everything else None
        fit = _fitted_to(plan, seen, _beside(goal, seen, basis), hooks, resumed)
    shared = Shared(seen.everything, basis, fit, (), scenes)
    return replace(shared, shares=_shares(replace(plan, shared_bytes=shared.size_bytes), seen, fit.network))


def _shares(plan: Plan, seen: Survey, network: SharedNetwork) -> tuple[float, ...]:
    """The part of all bytes of each segment, of which none is too small for what it holds whatever it shows."""
    bounds, least = np.cumsum([0, *plan.lengths]), []
    for index, frames in enumerate(plan.lengths):
        embedded = len(seen.everything[index].numbers) if seen.everything else 0
        cuts = sum(bounds[index] < piece.first < bounds[index + 1] for piece in seen.scenes.pieces)
        least.append(plan.least_share(frames, embedded, int(cuts)))
    return tuple(network.shares(plan.lengths, least))


def _goal_of_all(plan: Plan, seen: Survey) -> SizeGoal | None:
    """What all weights of a file should take."""
    embedded = sum(len(each.numbers) for each in seen.everything.values())
    cuts = len(seen.scenes.pieces) - len(plan.lengths)
    return plan.size_goal(plan.info.frame_count, embedded, cuts)


def _beside(goal: SizeGoal | None, seen: Survey, basis: Basis | None) -> SizeGoal | None:
    """What of it is for pixels."""
    if goal is None or basis is None:
        return goal
    everything = seen.everything.values()
    codes = sum(basis.segment(tuple(each.numbers.tolist()), each.reference).size_bytes for each in everything)
    return goal.minus(codes + basis.size_bytes, sizing.MINIMUM_BYTES)


def _pays(plan: Plan, scenes: Scenes) -> bool:
    """Whether grids of what lasts, one for each scene, are worth more than some of each segment's own."""
    count = len(scenes.scenes)
    positions = plan.info.height * plan.info.width / 16 * count
    few = count <= _FEWER * len(scenes.pieces) and positions <= _MOST_POSITIONS and not scenes.too_many
    return few and scenes.lasting > _LASTS


def _fitted_to(plan: Plan, seen: Survey, goal: SizeGoal | None, hooks: Hook, resumed: dict[str, Any] | None) -> Fit:
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
    chosen = plan.wanted.network
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
        plan.wanted.precision,
    )
    hooks.worth_keeping()
    hooks.stage("Fitting what segments share")
    (field, result), done = where_it_fits(lambda one: fitted(one, hooks, resumed), task, hooks)
    network = SharedNetwork.of(field, result.quantization_steps, seen.numbers, None if result.complete else goal)
    return Fit(network, result.elapsed_s, result.steps, result.complete, done is not task)
