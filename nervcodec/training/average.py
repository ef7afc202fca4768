# SPDX-License-Identifier: MIT
"""A running mean of weights: better than the last weights while the learning rate is still high."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_EVERY = 4  # steps between updates; neighbouring weights differ little


class RunningMean:
    """Exponential mean of a network's learned weights, kept beside them.

    Attributes:
        mean: a tensor for each learned parameter, in order.
    """

    def __init__(self, field: nn.Module):
        self._live: list[Tensor] = [p for p in field.parameters() if p.requires_grad]
        self.mean = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self, steps: int, horizon: float) -> None:
        """Move toward the live weights so that the mean reaches back about ``horizon`` steps."""
        if steps % _EVERY == 0:
            torch._foreach_lerp_(self.mean, self._live, min(1.0, _EVERY / max(horizon, 1.0)))

    @torch.no_grad()
    def restart(self) -> None:
        """Forget all but the live weights."""
        for live, mean in zip(self._live, self.mean, strict=True):
            mean.copy_(live)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the mean and the live weights."""
        for live, mean in zip(self._live, self.mean, strict=True):
            live_now = live.clone()
            live.copy_(mean)
            mean.copy_(live_now)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the mean in place of the live weights."""
        for live, mean in zip(self._live, self.mean, strict=True):
            live.copy_(mean)

    @torch.no_grad()
    def restore(self, mean: list[Tensor]) -> None:
        """Go on from a mean that was kept."""
        for own, kept in zip(self.mean, mean, strict=True):
            own.copy_(kept)
