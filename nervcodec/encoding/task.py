# SPDX-License-Identifier: MIT
"""From a segment's task to the segment as it is stored: a pure function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nervcodec import metrics
from nervcodec.decoding.rendering import render
from nervcodec.device import Hardware
from nervcodec.encoding.fit import fitted, where_it_fits
from nervcodec.encoding.head import SegmentHead, Tensors, stored
from nervcodec.encoding.segment import EncodedSegment, SegmentTask
from nervcodec.formats import bitstream
from nervcodec.formats.header import Segment
from nervcodec.network.build import from_arrays
from nervcodec.network.config import NetworkConfig, network_to_json
from nervcodec.network.field import Field, Inputs
from nervcodec.training.hooks import Hook
from nervcodec.training.loop import FitResult
from nervcodec.training.rate_control import encode_to_size


def fit_segment(
    task: SegmentTask, hooks: Hook | None = None, resumed: dict[str, Any] | None = None
) -> EncodedSegment | None:
    """Fit, round and measure one segment.

    Args:
        task: the segment.
        hooks: told of what happens; may ask to stop.
        resumed: the state of a fit of the same task to go on from, see :meth:`FitState.state_dict`.

    Returns:
        None where it was stopped before its first step and is not the first.

    Raises:
        DivergedError: the fit produced values that are not finite.
        ConfigError: the state to go on from is another task's.
    """
    hooks = hooks or Hook()
    head = SegmentHead() if task.basis is None else task.basis.segment(task.embedded, task.data.embeddings)
    hooks.stage("Fitting")
    (field, result), done = where_it_fits(lambda one: _fitted(one, hooks, resumed), task, hooks)
    if task.index and not result.steps:
        return None
    own = bitstream.read(encode_to_size(field, result.quantization_steps, task.goal))
    pixels = task.data.frames
    config = task.network if head.semantic is None else replace(task.network, semantic=head.semantic)
    tensors = {**head.tensors, **own}
    return EncodedSegment(
        segment=Segment(task.first_frame, len(pixels), network_to_json(config), f"{task.index}/"),
        stream=stored(config, task.embedded, tensors),
        entropy_bytes=bitstream.entropy_bytes(tensors),
        psnr_db=measure(task.network, _weights(task, own), pixels, np.arange(len(pixels)), done.hardware),
        parameters=bitstream.value_count(tensors),
        steps=result.steps,
        elapsed_s=result.elapsed_s,
        complete=result.complete,
        fell_back=done is not task,
    )


def _fitted(task: SegmentTask, hooks: Hook, resumed: dict[str, Any] | None) -> tuple[Field, FitResult]:
    """A network fitted to a segment, judged by what its file would show."""
    pixels, numbers = task.data.frames, np.flatnonzero(task.data.is_fitted)

    def judge(field: Field, steps: dict[str, np.ndarray]) -> float:
        weights = _weights(task, bitstream.read(encode_to_size(field, steps, task.goal)))
        return float(measure(task.network, weights, pixels[numbers], numbers, task.hardware).mean())

    return fitted(task, hooks, resumed, judge)


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
