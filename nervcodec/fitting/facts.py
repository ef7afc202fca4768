# SPDX-License-Identifier: MIT
"""What one step came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


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
    def mean(cls, parts: Sequence[StepFacts]) -> StepFacts:
        """The mean of parts of a batch."""

        def over(name: str) -> float | None:
            values = [getattr(part, name) for part in parts if getattr(part, name) is not None]
            return sum(values) / len(values) if values else None

        if len(parts) == 1:
            return parts[0]
        return cls(*(over(name) for name in ("mse", "loss", "pixel", "semantic", "bits")))  # type: ignore[arg-type]


def psnr_db(mse: float) -> float:
    """PSNR of values in [0, 1] from their squared error, at most 100 dB; NaN of NaN."""
    return math.nan if math.isnan(mse) else -10 * math.log10(max(mse, 1e-10))
