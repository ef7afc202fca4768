# SPDX-License-Identifier: MIT
"""State of a fit: the network, its data, all that changes from step to step, averaged weights and rollback."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nervcodec.device import Hardware
from nervcodec.errors import CheckpointError, ConfigError
from nervcodec.events import PASSES, SECONDS
from nervcodec.network.field import Field
from nervcodec.training.config import FitConfig
from nervcodec.training.datasets import Batches, Reference, SegmentData, units_of
from nervcodec.training.losses import RECORDABLE
from nervcodec.training.optimizers import Optimizers
from nervcodec.training.quantization import COARSE, FINE, RoundedField
from nervcodec.training.rate_control import RateControl, SizeGoal

_EVERY = 4  # steps between updates; neighbouring weights differ little
_FALL_DB = 12.0  # from the best PSNR so far: no batch is that much harder than the others
_EVERY_S = 2.0  # between copies of the weights
MOST_RETREATS = 5
SLOWER = 0.5  # times the learning rate, at every retreat
_RAW_LOSS = "cosine"  # the semantic loss that looks at embeddings as they are


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


class FitState:
    """Everything the next step depends on; hooks may look at it, the loop changes it.

    Args:
        field: a network with fresh weights; moved to the hardware's device.
        data: the segment.
        config: settings.
        hardware: device and precision.
        goal: what the stored weights should take, or None.

    Attributes:
        units: what a row of a batch holds.
        fitted_frames, held_out_frames: their numbers.
        reference: embeddings to be fitted, or None.
        parameters: how many it fits.
        rounded: the field with rounded weights, once the fit rounds them.
        steps, elapsed_s: so far.
        smoothed_mse: of the latest batches; NaN before the first.
        lr_scale: on all rates, halved at each retreat.
        part_size: units that a forward pass takes at once.

    Raises:
        ConfigError: no end is set, or the settings do not suit the network.
    """

    def __init__(
        self, field: Field, data: SegmentData, config: FitConfig, hardware: Hardware, goal: SizeGoal | None = None
    ):
        if config.time_s is None and config.epochs is None:
            raise ConfigError("a fit needs an end: a time or a number of epochs")
        self.field = field.to(hardware.device)
        self.config, self.hardware = config, hardware
        self.units = units_of(field, data, hardware.device)
        self.fitted_frames, self.held_out_frames = np.flatnonzero(data.is_fitted), np.flatnonzero(~data.is_fitted)
        self.batches = Batches(self.units, data.is_fitted, config.batch_size, config.seed)
        self.part_size = self.batches.size
        self.parameters = sum(p.numel() for p in self._own())
        limit_bits = None if goal is None else 8 * goal.limit_bytes / self.parameters
        self.rate = RateControl(config.rate_weight, limit_bits, goal is not None and goal.reach)
        self.reference = self._begin_semantics(data)
        self.optimizers = Optimizers(field, config.optimizer, config.lr, self.is_recorded)
        self.average = RunningMean(field)
        self.safeguard, self.lr_scale = Safeguard(), 1.0
        self.rounded: RoundedField | None = None
        self.steps, self.elapsed_s, self.smoothed_mse = 0, 0.0, math.nan

    def _begin_semantics(self, data: SegmentData) -> Reference | None:
        head = self.field.semantic
        if head is None or data.embeddings is None or self.config.semantic_weight == 0:
            return None
        is_raw = self.config.semantic_loss == _RAW_LOSS
        reference = Reference(data, self.field.geometry.frames, is_raw, self.hardware.device)
        with torch.no_grad():
            head.mean.copy_(reference.mean)
            if not is_raw:
                head.start_from(reference.centred, reference.frames)
        return reference

    @property
    def is_recorded(self) -> bool:
        """Whether steps are recorded as graphs: on a GPU, where nothing in them waits for it."""
        on_gpu = self.hardware.device == "cuda"
        return on_gpu and self.units.recordable and self.config.loss in RECORDABLE

    def budget(self, elapsed_s: float) -> tuple[float, float, str]:
        """Fraction of the budget that is used, the budget and its unit: time or epochs, whichever is further."""
        budgets = []
        if self.config.time_s is not None:
            budgets.append((elapsed_s / self.config.time_s, self.config.time_s, SECONDS))
        if self.config.epochs is not None:
            fraction = self.steps / (self.config.epochs * self.batches.per_epoch)
            budgets.append((fraction, float(self.config.epochs), PASSES))
        return max(budgets)

    def done(self, elapsed_s: float) -> float:
        """Fraction of the budget that is used."""
        return self.budget(elapsed_s)[0]

    def semantics_active(self, done: float) -> bool:
        """Whether the pixel warm-up, a fraction of the fit or a number of epochs, is over."""
        warmup = self.config.pixel_warmup
        return done >= warmup if warmup < 1 else self.steps >= warmup * self.batches.per_epoch

    def begin_rounding(self) -> None:
        """From here on the forward pass sees weights as they will be stored."""
        self.rounded = RoundedField(self.field, self.rate.first_coarseness(COARSE), self.config.seed)
        self.optimizers.learn_steps(self.rounded.parameters())
        self.safeguard.restart(self.learned(), self.elapsed_s)
        self.smoothed_mse = math.nan

    def learned(self) -> list[nn.Parameter]:
        """All that the optimisers change."""
        return [*self._own(), *(self.rounded.parameters() if self.rounded is not None else [])]

    def _own(self) -> list[nn.Parameter]:
        return [p for name, p in self.field.named_parameters() if name not in self.field.given]

    @property
    def running(self) -> Field:
        """The modules that the forward pass goes through."""
        return self.field if self.rounded is None else self.rounded.field

    def rounding_steps(self) -> dict[str, np.ndarray]:
        """Quantisation steps by tensor: what the fit has learned, or fine ones where it rounds nothing."""
        rounded = self.rounded if self.rounded is not None else RoundedField(self.field, FINE, self.config.seed)
        return rounded.steps()

    # ------------------------------------------------------------------ to keep and to go on from

    def to_dict(self) -> dict[str, Any]:
        """All that the rest of the fit depends on: plain values and tensors (the live ones, not copies)."""
        return {
            "field": self.field.state_dict(),
            "optimizers": self.optimizers.state(),
            "rounded": None if self.rounded is None else self.rounded.state(),
            "rate": self.rate.state(),
            "average": self.average.mean,
            "batches": self.batches.state(),
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
            "lr_scale": self.lr_scale,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`to_dict` gave, of a fit that was begun with the same arguments.

        Raises:
            CheckpointError: it is the state of another network.
        """
        try:
            self.field.load_state_dict(state["field"])
            self.rate.restore(state["rate"])
            if state["rounded"] is not None:
                self.begin_rounding()
                assert self.rounded is not None
                self.rounded.restore(state["rounded"])
            self.optimizers.restore(state["optimizers"])
            self.average.restore(state["average"])
            self.batches.restore(state["batches"])
            self.part_size = self.batches.size
            self.steps, self.elapsed_s = state["steps"], state["elapsed_s"]
            self.lr_scale = state["lr_scale"]
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit this network ({str(error).splitlines()[0][:100]})"
            ) from None
