# SPDX-License-Identifier: MIT
"""From a segment's task to the segment as it is stored: a pure function."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nervcodec.device import Hardware, choose
from nervcodec.encoding.layered import code_segment
from nervcodec.encoding.measure import measure
from nervcodec.encoding.segment import EncodedSegment, SegmentTask
from nervcodec.fitting.hooks import Hook
from nervcodec.fitting.loop import FitResult, Loop
from nervcodec.fitting.rate_control import coded_to
from nervcodec.fitting.state import FitState
from nervcodec.formats import bitstream
from nervcodec.formats.header import Segment
from nervcodec.network.build import build
from nervcodec.network.config import network_to_json, tables_of
from nervcodec.network.field import Field
from nervcodec.network.shapes import parameter_count


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
    if task.base is not None:
        return code_segment(task, hooks, resumed)
    hooks.stage("Fitting")
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
