# SPDX-License-Identifier: MIT
"""A way back when a fit diverges: the last weights that were good, and a lower rate from there."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_FALL_DB = 12.0  # from the best PSNR so far: no batch is that much harder than the others
_EVERY_S = 2.0  # between copies of the weights
MOST_RETREATS = 5
SLOWER = 0.5  # times the learning rate, at every retreat


class Safeguard:
    """Keeps a copy of parameters that were still good when the next copy was due.

    A quality is that of a batch, before the step that it led to: a copy taken now may hold what that step ruined, and
    on a GPU hundreds more go by before a fall shows. Only the first is gone back to sooner, where there is no other.

    Attributes:
        retreats: how many times it went back.
    """

    def __init__(self) -> None:
        self.retreats = 0
        self._kept: list[tuple[nn.Parameter, Tensor]] = []
        self._fresh: list[tuple[nn.Parameter, Tensor]] = []  # may not stay good
        self._next_s = 0.0
        self._best_db = self._kept_db = self._fresh_db = -math.inf

    @property
    def can_go_back(self) -> bool:
        """Whether there are good weights, and it has not been tried too often."""
        return bool(self._kept) and self.retreats < MOST_RETREATS

    def is_bad(self, psnr_db: float) -> bool:
        """Whether a smoothed PSNR (NaN where the loss is) says that the fit has gone wrong.

        A fall that five retreats did not cure is taken as it is: it may be what the settings ask for.
        """
        return math.isnan(psnr_db) or (self.can_go_back and psnr_db < self._best_db - _FALL_DB)

    def keep(self, parameters: Iterable[nn.Parameter], psnr_db: float, elapsed_s: float) -> None:
        """Take note of a good state; copies it where the last copy is two seconds old."""
        self._best_db = max(self._best_db, psnr_db)
        if self._fresh and (not self._kept or elapsed_s >= self._next_s):
            self._kept, self._kept_db, self._fresh = self._fresh, self._fresh_db, []
        if elapsed_s >= self._next_s:
            self._fresh = [(p, p.detach().clone()) for p in parameters]
            self._fresh_db, self._next_s = psnr_db, elapsed_s + _EVERY_S

    def restart(self, parameters: Iterable[nn.Parameter], elapsed_s: float) -> None:
        """Judge anew from here, where the fit changes on purpose, and other parameters may be learned."""
        self._kept, self._fresh = [(p, p.detach().clone()) for p in parameters], []
        self._best_db = self._kept_db = -math.inf
        self._next_s = elapsed_s + _EVERY_S

    @torch.no_grad()
    def go_back(self) -> None:
        """Put the copy in place."""
        for parameter, good in self._kept:
            parameter.copy_(good)
        self.retreats, self._fresh = self.retreats + 1, []
        self._best_db = self._kept_db

    @staticmethod
    def all_finite(parameters: Iterable[nn.Parameter]) -> bool:
        """Whether there is no NaN and no infinity."""
        return all(bool(torch.isfinite(p).all()) for p in parameters)
