# SPDX-License-Identifier: MIT
"""Pixel losses, the semantic loss, and the loss values of one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nervcodec.errors import ConfigError
from nervcodec.metrics import ms_ssim_of, ssim_of
from nervcodec.training.config import FUSIONS, PIXEL_LOSSES

_FLATTEN = 1e-5  # squared error of 50 dB

# Prediction and target in the network's packed layout, and the function that makes images (B, h, w, 3) of them.
PixelLoss = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]


class _MeanSquare(torch.autograd.Function):
    """Mean squared error of every unit: ``(B, ...)`` twice to ``(B,)`` float32.

    The same as square, then mean, in half the passes over memory: at one frame a batch those passes are a tenth of a
    step on a CPU.
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
    """Mean over units of the logarithm of their squared error: minus their mean PSNR, but for a factor.

    Its gradient has the same size whatever the quality, so a semantic weight means the same from start to end. The
    logarithm is flattened below 50 dB, lest a black frame outweigh all others.
    """
    return (_MeanSquare.apply(prediction, target) + _FLATTEN).log().mean()


def structural_similarity(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean SSIM (Wang et al. 2004) of images ``(B, h, w, 3)`` in [0, 1]; see :func:`nervcodec.metrics.ssim_of`."""
    a, b = (x.float().permute(0, 3, 1, 2) for x in (prediction, target))
    return ssim_of(a, b, data_range=1.0)


def ssim_loss(prediction: Tensor, target: Tensor, unpack: Callable[[Tensor], Tensor]) -> Tensor:
    """1 - SSIM."""
    return 1 - structural_similarity(unpack(prediction), unpack(target))


def ms_ssim_loss(prediction: Tensor, target: Tensor, unpack: Callable[[Tensor], Tensor]) -> Tensor:
    """1 - MS-SSIM; the window shrinks for small patches, see :func:`nervcodec.metrics.ms_ssim_of`.

    Raises:
        ConfigError: frames or patches are too small for five scales with any window (a side of 32 pixels or less).
    """
    a, b = (x.float().permute(0, 3, 1, 2) for x in (unpack(prediction), unpack(target)))
    value = ms_ssim_of(a, b, data_range=1.0)
    if value is None:
        height, width = unpack(target).shape[1:3]
        raise ConfigError(f"{width}x{height} pixels are too few for MS-SSIM, which needs more than 32 on each side")
    return 1 - value


def _sum(*parts: tuple[float, PixelLoss]) -> PixelLoss:
    def fused(prediction: Tensor, target: Tensor, unpack: Callable[[Tensor], Tensor]) -> Tensor:
        terms = [weight * loss(prediction, target, unpack) for weight, loss in parts]
        return torch.stack(terms).sum()

    return fused


_PARTS: dict[str, PixelLoss] = {"l1": l1, "l2": l2, "log-l2": log_l2, "ssim": ssim_loss, "ms-ssim": ms_ssim_loss}
PIXEL: dict[str, PixelLoss] = {
    name: _sum(*((weight, _PARTS[part]) for weight, part in FUSIONS[name])) if name in FUSIONS else _PARTS[name]
    for name in PIXEL_LOSSES
}

# Those that can be recorded as a graph; the others bring constants to the GPU each time.
RECORDABLE = ("l1", "l2", "log-l2")


def cosine_loss(embeddings: Tensor, reference: Tensor) -> Tensor:
    """The original method's semantic loss: the mean of one minus the raw cosine.

    Args:
        embeddings, reference: ``(L, patches, D)``, at least one.
    """
    return 1 - F.cosine_similarity(embeddings.float(), reference, dim=-1).mean()


def semantic_loss(centred: Tensor, reference: Tensor, variance: Tensor) -> Tensor:
    """How far predicted embeddings are from the reference, both less the video's mean.

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


class Figures(NamedTuple):
    """Figures of one step where the network runs, each a scalar; see :class:`StepFacts`."""

    loss: Tensor
    pixel: Tensor
    mse: Tensor | None = None
    semantic: Tensor | None = None
    bits: Tensor | None = None

    def detached(self) -> Figures:
        """Without what gradients need."""
        return Figures(self.loss.detach(), self.pixel.detach(), *(f if f is None else f.detach() for f in self[2:]))


@dataclass(frozen=True)
class StepFacts:
    """Figures of one step.

    Attributes:
        mse: of the batch, as the network gave it.
        loss, pixel: total and pixel loss.
        semantic: semantic loss, None while it is not active.
        bits: of a parameter, as the fit estimates them, None before weights are rounded.
    """

    mse: float
    loss: float
    pixel: float
    semantic: float | None = None
    bits: float | None = None

    @classmethod
    def of(cls, figures: Figures) -> StepFacts:
        """Read where the network runs; of figures with a squared error."""
        assert figures.mse is not None
        loss = figures.loss.item()
        return cls(
            mse=figures.mse.item() if math.isfinite(loss) else math.nan,
            loss=loss,
            pixel=figures.pixel.item(),
            semantic=None if figures.semantic is None else figures.semantic.item(),
            bits=None if figures.bits is None else figures.bits.item(),
        )

    @classmethod
    def mean(cls, parts: Sequence[StepFacts]) -> StepFacts:
        """The mean of parts of a batch."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            mse=_mean([part.mse for part in parts]),
            loss=_mean([part.loss for part in parts]),
            pixel=_mean([part.pixel for part in parts]),
            semantic=_mean_of_some([part.semantic for part in parts]),
            bits=_mean_of_some([part.bits for part in parts]),
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_of_some(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return _mean(there) if there else None


def psnr_db(mse: float) -> float:
    """PSNR of values in [0, 1] from their squared error, at most 100 dB; NaN of NaN."""
    return math.nan if math.isnan(mse) else -10 * math.log10(max(mse, 1e-10))
