# SPDX-License-Identifier: MIT
"""What a network adds to a coded base: it is fitted, rounded and measured; whether it earns its bytes is for others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nervcodec import sizing
from nervcodec.base.convert import base_format, to_base
from nervcodec.encoding.fit import fitted, where_it_fits
from nervcodec.encoding.material import joined
from nervcodec.encoding.measure import measure
from nervcodec.encoding.segment import BaseTask, SegmentTask
from nervcodec.fitting.hooks import Hook
from nervcodec.fitting.rate_control import coded_to
from nervcodec.fitting.segment import BaseData, SegmentData
from nervcodec.formats import bitstream
from nervcodec.formats.header import PlaneFormat
from nervcodec.network.config import RefinerConfig
from nervcodec.network.planes import BaseFrames
from nervcodec.network.shapes import parameter_count
from nervcodec.video.planes import Planes


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
        fell_back: the GPU's memory did not hold the fit, so it was made on the CPU.
    """

    config: RefinerConfig
    tensors: dict[str, bitstream.RoundedTensor | np.ndarray]
    psnr_db: np.ndarray
    size_bytes: int
    steps: int
    complete: bool
    fell_back: bool = False


def refine(
    task: SegmentTask, base: Coded, form: PlaneFormat, slope: float, hooks: Hook, resumed: dict[str, Any] | None
) -> Refined:
    """Fit a network to what a base lacks, on the CPU where the GPU's memory is too small.

    Args:
        task: of the segment; its fit's time is that of the network, its goal what the network may take.
        base: of the segment.
        form: of the base's samples.
        slope: decibels that the base would gain with e times as many bytes.
        hooks: told of what happens.
        resumed: the state of a fit of the same task to go on from.
    """
    found, done = where_it_fits(lambda one: _refined(one, base, form, slope, hooks, resumed), task, hooks)
    return replace(found, fell_back=done is not task)


def _refined(
    task: SegmentTask, base: Coded, form: PlaneFormat, slope: float, hooks: Hook, resumed: dict[str, Any] | None
) -> Refined:
    assert task.base is not None
    assert isinstance(task.network, RefinerConfig)
    config = replace(sizing.refiner_config(task.network.geometry), cuts=task.network.cuts)
    # A bit costs in the loss, the logarithm of the squared error, what it would bring the base's own stream.
    price = math.log(10) / 10 * slope * parameter_count(config) / (8 * len(base.stream))
    fit = replace(task.fit, rate_weight=price, lr=task.fit.lr or sizing.REFINER_LR)
    depth = task.base.form.depth
    data = SegmentData(
        task.data.frames,
        fitted=task.data.fitted,
        base=BaseData(base.planes, form, _source(task.base), base_format(task.base.form, depth)),
    )
    hooks.stage("Fitting")
    # Only the stored form has to meet the goal: the price of bits already says what they are worth.
    field, result = fitted(replace(task, network=config, data=data, fit=fit, goal=None), hooks, resumed)
    tensors = bitstream.read(coded_to(field, result.rounding, task.goal))
    psnr_db = quality_of(task, config, bitstream.values(tensors), base.planes, form)
    return Refined(config, tensors, psnr_db, bitstream.encode(tensors).size, result.steps, result.complete)


def _source(base: BaseTask) -> Planes:
    """Samples of all frames in 4:2:0, with the bits they have; not copied where they are so already."""
    frames, depth = len(base.planes.y), base.form.depth
    if base_format(base.form, depth) == base.form:
        return base.planes
    return joined((to_base(base.planes.frames(slice(i, i + 1)), base.form, depth) for i in range(frames)), frames)


def quality_of(
    task: SegmentTask,
    config: RefinerConfig,
    weights: dict[str, np.ndarray],
    planes: Planes,
    form: PlaneFormat,
    numbers: range | None = None,
) -> np.ndarray:
    """Decibels of frames of a segment, as a decoder will give them: of a base alone, or with a network.

    Args:
        task: of the segment.
        config, weights: of the network.
        planes: of the base's frames that are looked at.
        form: what they stand for.
        numbers: of those frames, one after the other; None for all.
    """
    numbers = range(len(task.data.frames)) if numbers is None else numbers
    pixels, base = task.data.frames[numbers.start : numbers.stop], BaseFrames.of(planes, form, numbers.start)
    return measure(config, weights, pixels, np.array(numbers), task.hardware, base)
