# SPDX-License-Identifier: MIT
"""Pixel losses, the semantic loss, and the loss values of one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nervcodec.errors import ConfigError
from nervcodec.metrics import ms_ssim_window
from nervcodec.training.config import FUSIONS, PIXEL_LOSSES

_LOG_FLOOR = 1e-5  # squared error of 50 dB

# Prediction and target in the network's packed layout, and the function that makes images (B, h, w, 3) of them.
PixelLoss = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]


class _MeanSquare(torch.autograd.Function):
    """Mean squared error of every sample: two ``(B, ...)`` to ``(B,)`` float32.

    Equal to square, then mean, with half the passes over memory: with one frame a batch these passes take a tenth of
    a step on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor) -> Tensor:
        difference = prediction - target
        ctx.save_for_backward(difference)
        norms = torch.linalg.vector_norm(difference.flatten(1), dim=1, dtype=torch.float32)
        return norms.square() / difference[0].numel()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        factor = gradient * (2 / difference[0].numel())
        return difference * factor.to(difference.dtype).view(-1, *([1] * (difference.ndim - 1))), None


def l2(prediction: Tensor, target: Tensor, unpack: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean squared error."""
    return _MeanSquare.apply(prediction, target).mean()


def l1(prediction: Tensor, target: Tensor, unpack: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean absolute error."""
    return (prediction - target).abs().mean(dtype=torch.float32)


def log_l2(prediction: Tensor, target: Tensor, unpack: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over samples of the logarithm of the squared error: minus their mean PSNR, up to a factor.

    The size of its gradient does not depend on the quality, so a semantic weight means the same from start to end. The
    logarithm is flattened above 50 dB, so that a black frame does not dominate the others.
    """
    return (_MeanSquare.apply(prediction, target) + _LOG_FLOOR).log().mean()


def structural_similarity(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean SSIM (Wang et al. 2004) of images ``(B, h, w, 3)`` in [0, 1].

    The 11 pixel window shrinks to the largest odd size that fits where a side is shorter. A side of one pixel is
    doubled first, which changes nothing: pytorch-msssim drops dimensions of size one.
    """
    from pytorch_msssim import ssim

    a, b = (x.float().permute(0, 3, 1, 2) for x in (prediction, target))
    for axis in (2, 3):
        if a.shape[axis] == 1:
            a, b = (x.repeat_interleave(2, dim=axis) for x in (a, b))
    side = min(a.shape[2:])
    return ssim(a, b, data_range=1.0, win_size=min(11, side if side % 2 else side - 1))


def ssim_loss(prediction: Tensor, target: Tensor, unpack: Callable[[Tensor], Tensor]) -> Tensor:
    """1 - SSIM."""
    return 1 - structural_similarity(unpack(prediction), unpack(target))


def ms_ssim_loss(prediction: Tensor, target: Tensor, unpack: Callable[[Tensor], Tensor]) -> Tensor:
    """1 - MS-SSIM (Wang et al. 2003); see :func:`nervcodec.metrics.ms_ssim_window` for its window.

    Raises:
        ConfigError: frames or patches are too small for five scales with any window (a side of 32 pixels or less).
    """
    from pytorch_msssim import ms_ssim

    a, b = (x.float().permute(0, 3, 1, 2) for x in (unpack(prediction), unpack(target)))
    window = ms_ssim_window(min(a.shape[2:]))
    if window is None:
        raise ConfigError(
            f"{a.shape[3]}x{a.shape[2]} pixels are too few for MS-SSIM, which needs more than 32 on each side"
        )
    return 1 - ms_ssim(a, b, data_range=1.0, win_size=window)


def _sum(*weighted: tuple[float, PixelLoss]) -> PixelLoss:
    def fused(prediction: Tensor, target: Tensor, unpack: Callable[[Tensor], Tensor]) -> Tensor:
        terms = [weight * loss(prediction, target, unpack) for weight, loss in weighted]
        return torch.stack(terms).sum()

    return fused


_TERMS: dict[str, PixelLoss] = {"l1": l1, "l2": l2, "log-l2": log_l2, "ssim": ssim_loss, "ms-ssim": ms_ssim_loss}
PIXEL: dict[str, PixelLoss] = {
    name: _sum(*((weight, _TERMS[term]) for weight, term in FUSIONS[name])) if name in FUSIONS else _TERMS[name]
    for name in PIXEL_LOSSES
}

# Losses that can be captured as a CUDA graph; the others copy constants to the GPU in each call.
CUDA_GRAPH_LOSSES = ("l1", "l2", "log-l2")


def cosine_loss(embeddings: Tensor, reference: Tensor) -> Tensor:
    """The original method's semantic loss: the mean of one minus the raw cosine.

    Args:
        embeddings, reference: ``(L, patches, D)``, at least one.
    """
    return 1 - F.cosine_similarity(embeddings.float(), reference, dim=-1).mean()


def semantic_loss(centred: Tensor, reference: Tensor, variance: Tensor) -> Tensor:
    """Distance of predicted embeddings from the reference, both centred.

    The mean of one minus the cosine (direction) and the squared error relative to the video's variance (length):
    a ranking by dot product with a text depends on both.

    Args:
        centred, reference: ``(L, patches, D)``, at least one.
        variance: scalar, mean squared length of the centred reference.

    Returns:
        A scalar.
    """
    centred = centred.float()
    direction = 1 - F.cosine_similarity(centred, reference, dim=-1).mean()
    length = (centred - reference).square().sum(dim=-1).mean() / variance
    return 0.5 * (direction + length)


class StepTensors(NamedTuple):
    """Losses of one step on the network's device, each a scalar; see :class:`StepMetrics`."""

    loss: Tensor
    pixel: Tensor
    mse: Tensor | None = None
    semantic: Tensor | None = None
    bits: Tensor | None = None

    def detach(self) -> StepTensors:
        """Without their graphs."""
        return StepTensors(*(None if x is None else x.detach() for x in self))  # type: ignore[arg-type]


class StepMetrics(NamedTuple):
    """Losses of one step.

    Attributes:
        loss, pixel: total and pixel loss.
        mse: squared error of the batch; NaN where the loss is not finite.
        semantic: semantic loss, None while it is not active.
        bits: estimated bits a parameter, None before quantization starts.
    """

    loss: float
    pixel: float
    mse: float
    semantic: float | None = None
    bits: float | None = None

    @classmethod
    def of(cls, parts: Sequence[StepTensors]) -> StepMetrics:
        """Read from the device; means over the parts of a batch, which have a squared error."""
        columns = ([x.item() for x in column if x is not None] for column in zip(*parts, strict=True))
        means = [sum(values) / len(values) if values else None for values in columns]
        metrics = cls(*means)  # type: ignore[arg-type]  # the first three are never None
        return metrics if math.isfinite(metrics.loss) else metrics._replace(mse=math.nan)


def psnr_db(mse: float) -> float:
    """PSNR of values in [0, 1] from their squared error, at most 100 dB; NaN of NaN."""
    return math.nan if math.isnan(mse) else -10 * math.log10(max(mse, 1e-10))
