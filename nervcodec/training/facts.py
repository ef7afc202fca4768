# SPDX-License-Identifier: MIT
"""What one step came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


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
