# SPDX-License-Identifier: MIT
"""The unit of an encode: a segment as plain data, and what becomes of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nervcodec import metrics, sizing
from nervcodec.decoding.pixels import rendered
from nervcodec.device import Hardware, choose
from nervcodec.fitting.config import FitConfig
from nervcodec.fitting.hooks import Hook
from nervcodec.fitting.loop import FitResult, Loop
from nervcodec.fitting.rate_control import SizeGoal, coded_to
from nervcodec.fitting.segment import SegmentData
from nervcodec.fitting.state import FitState
from nervcodec.formats import bitstream
from nervcodec.formats.fields import from_json, to_json
from nervcodec.formats.header import Segment
from nervcodec.formats.tables import read_tables
from nervcodec.network.build import build, from_arrays
from nervcodec.network.config import NetworkConfig, network_to_json, tables_of
from nervcodec.network.field import Field
from nervcodec.network.inputs import Inputs
from nervcodec.network.shapes import parameter_count


@dataclass(frozen=True)
class SegmentTask:
    """Everything the fit of one segment depends on; it can be sent to another process.

    Attributes:
        index, count: which segment of how many, from 0.
        first_frame: number of its first frame.
        data: frames and embeddings.
        network: configuration of the network.
        fit: settings, with the segment's share of the time.
        goal: what the stored weights should take, or None.
        hardware: device and precision.
        precision: as it was asked for, in case the fit goes on on the CPU.
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

    @property
    def expected_bpp(self) -> float:
        """Bits per pixel that the weights will take, about."""
        expected_bytes = parameter_count(self.network) * sizing.BITS_PER_PARAMETER / 8
        return metrics.rate_bpp(expected_bytes, *self.data.frames.shape[:3])


@dataclass(frozen=True)
class EncodedSegment:
    """One segment, fitted and quantised.

    Attributes:
        segment: as the header lists it.
        stream: ``(n,)`` uint8, what is said of its frames and its weights; empty where its network has none.
        entropy_bytes: empirical entropy of the quantised weights.
        psnr_db: ``(N,)`` of each frame, decoded from the stored integers.
        parameters, steps, elapsed_s: of the fit.
        complete: False where the fit was stopped early.
        fell_back: the GPU's memory did not hold it, so it was fitted on the CPU.
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

    @property
    def embedded_frames(self) -> tuple[int, ...]:
        """Frames, counted from the segment's first, whose embeddings were fitted."""
        return read_tables(self.stream, self.segment.frame_count).embedded if self.stream.size else ()

    def to_facts(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        return {
            "segment": json.dumps(to_json(self.segment)),
            "stream": torch.from_numpy(self.stream.copy()),
            "entropy_bytes": self.entropy_bytes,
            "psnr_db": torch.from_numpy(self.psnr_db),
            "parameters": self.parameters,
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> EncodedSegment:
        """The inverse of :meth:`to_facts`."""
        stream, psnr_db = facts["stream"].numpy(), facts["psnr_db"].numpy()
        segment = from_json(Segment, json.loads(facts["segment"]), "segment")
        return cls(**{**facts, "segment": segment, "stream": stream, "psnr_db": psnr_db})


def fit_segment(
    task: SegmentTask, hooks: Hook | None = None, resumed: dict[str, Any] | None = None
) -> EncodedSegment | None:
    """Fit, round and measure one segment.

    Args:
        task: the segment.
        hooks: told of what happens; may ask to stop.
        resumed: the state of a fit of the same task to go on from, see :meth:`FitState.to_dict`.

    Returns:
        None where it was stopped before its first step and is not the first.

    Raises:
        DivergedError: the fit produced values that are not finite.
        ConfigError: the state to go on from is another task's.
    """
    hooks = hooks or Hook()
    hardware = task.hardware
    try:
        field, result = _fitted(task, hardware, hooks, resumed)
    except torch.cuda.OutOfMemoryError:
        hooks.note("the GPU's memory does not hold this fit at any batch size; it goes on on the CPU")
        hardware = choose("cpu", task.precision)
        field, result = _fitted(task, hardware, hooks, resumed)
    if task.index and not result.steps:
        return None
    tensors = bitstream.read(coded_to(field, result.rounding, task.goal))
    pixels = task.data.frames
    embedded = () if task.data.embedded_frames is None else tuple(task.data.embedded_frames.tolist())
    return EncodedSegment(
        segment=Segment(task.first_frame, len(pixels), network_to_json(task.network), f"{task.index}/"),
        stream=bitstream.encode({**tables_of(task.network, embedded).tensors(), **tensors}),
        entropy_bytes=bitstream.entropy_bytes(tensors),
        psnr_db=measure(task.network, bitstream.values(tensors), pixels, np.arange(len(pixels)), hardware),
        parameters=parameter_count(task.network),
        steps=result.steps,
        elapsed_s=result.elapsed_s,
        complete=result.complete,
        fell_back=hardware != task.hardware,
    )


def _fitted(
    task: SegmentTask, hardware: Hardware, hooks: Hook, resumed: dict[str, Any] | None
) -> tuple[Field, FitResult]:
    """A network fitted to a segment."""
    pixels, fitted = task.data.frames, np.flatnonzero(task.data.is_fitted)

    def judge(field: Field, steps: dict[str, np.ndarray]) -> float:
        weights = bitstream.decode(coded_to(field, steps, task.goal))
        return float(measure(task.network, weights, pixels[fitted], fitted, hardware).mean())

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.fit.seed + task.index)
        field = build(task.network)
    state = FitState(field, task.data, task.fit, hardware, task.goal)
    if resumed is not None:
        state.restore(resumed)
    return field, Loop(state, hooks, judge).run()


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
        (image,) = rendered(field, Inputs(torch.tensor([number])), hardware)
        result[index] = metrics.psnr_db(image, source)
    return result
