# SPDX-License-Identifier: MIT
"""State of a fit: the network, its data, everything that changes between steps, averaged weights, and rollback."""

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
from nervcodec.training.config import FitConfig, SizeGoal
from nervcodec.training.datasets import BatchSampler, ReferenceEmbeddings, SegmentData, training_set
from nervcodec.training.losses import CUDA_GRAPH_LOSSES
from nervcodec.training.optimizers import Optimizers
from nervcodec.training.quantization import COARSE, FINE, QuantizedField
from nervcodec.training.rate_control import RateControl

_RAW_LOSS = "cosine"  # the semantic loss that compares embeddings without subtracting their mean
_AVERAGE_EVERY = 4  # steps between updates of the averaged weights
_MAX_DROP_DB = 12.0  # from the best PSNR so far: no batch is that much harder than the others
_COPY_EVERY_S = 2.0  # between copies of the weights
MAX_ROLLBACKS = 5
ROLLBACK_LR_FACTOR = 0.5  # on the learning rate, at every rollback


class ExponentialMovingAverage:
    """Exponential moving average of a network's learned weights: better than the weights while the rate is high.

    Attributes:
        mean: a tensor for each learned parameter, in order.
    """

    def __init__(self, field: nn.Module):
        self._live: list[Tensor] = [p for p in field.parameters() if p.requires_grad]
        self.mean = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self, steps: int, horizon: float) -> None:
        """Move toward the live weights, with an averaging window of about ``horizon`` steps."""
        if steps % _AVERAGE_EVERY == 0:
            torch._foreach_lerp_(self.mean, self._live, min(1.0, _AVERAGE_EVERY / max(horizon, 1.0)))

    @torch.no_grad()
    def reset(self) -> None:
        """Restart from the live weights."""
        torch._foreach_copy_(self.mean, self._live)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the mean and the live weights."""
        live = [p.clone() for p in self._live]
        torch._foreach_copy_(self._live, self.mean)
        torch._foreach_copy_(self.mean, live)

    @torch.no_grad()
    def load(self, mean: list[Tensor]) -> None:
        """Continue from an earlier :attr:`mean`."""
        for own, value in zip(self.mean, mean, strict=True):
            own.copy_(value)


class DivergenceGuard:
    """Detects divergence and rolls weights back to a copy that was still good when the next copy was due.

    The PSNR passed in is that of a batch before the step it led to: a copy taken now may hold what that step ruined,
    and on a GPU hundreds more run before a drop is seen. So a copy is trusted only once the next one is taken; the
    first copy is trusted earlier, as there is no other.

    Attributes:
        rollbacks: how often it rolled back.
    """

    def __init__(self) -> None:
        self.rollbacks = 0
        self._trusted: list[tuple[nn.Parameter, Tensor]] = []
        self._latest: list[tuple[nn.Parameter, Tensor]] = []
        self._next_s = 0.0
        self._best_db = self._trusted_db = self._latest_db = -math.inf

    @property
    def can_roll_back(self) -> bool:
        """Whether there is a trusted copy, and the limit of rollbacks is not reached."""
        return bool(self._trusted) and self.rollbacks < MAX_ROLLBACKS

    def has_diverged(self, psnr_db: float) -> bool:
        """Whether a smoothed PSNR (NaN where the loss is) means that the fit has diverged.

        A drop that the allowed rollbacks did not cure is accepted: the settings may cause it.
        """
        return math.isnan(psnr_db) or (self.can_roll_back and psnr_db < self._best_db - _MAX_DROP_DB)

    def save(self, parameters: Iterable[nn.Parameter], psnr_db: float, elapsed_s: float) -> None:
        """Record a good state; copies it where the last copy is two seconds old."""
        self._best_db = max(self._best_db, psnr_db)
        if self._latest and (not self._trusted or elapsed_s >= self._next_s):
            self._trusted, self._trusted_db, self._latest = self._latest, self._latest_db, []
        if elapsed_s >= self._next_s:
            self._latest = [(p, p.detach().clone()) for p in parameters]
            self._latest_db, self._next_s = psnr_db, elapsed_s + _COPY_EVERY_S

    def reset(self, parameters: Iterable[nn.Parameter], elapsed_s: float) -> None:
        """Restart from here, where the fit changes on purpose, possibly with other learned parameters."""
        self._trusted, self._latest = [(p, p.detach().clone()) for p in parameters], []
        self._best_db = self._trusted_db = -math.inf
        self._next_s = elapsed_s + _COPY_EVERY_S

    @torch.no_grad()
    def roll_back(self) -> None:
        """Restore the trusted copy."""
        for parameter, value in self._trusted:
            parameter.copy_(value)
        self.rollbacks, self._latest = self.rollbacks + 1, []
        self._best_db = self._trusted_db


class FitState:
    """Everything the next step depends on; the loop changes it, hooks only read it.

    Args:
        field: a network with initial weights; moved to the hardware's device.
        data: the segment.
        config: settings.
        hardware: device and precision.
        goal: for the size of the stored weights, or None.

    Attributes:
        dataset: the training set.
        fitted_frames, held_out_frames: their numbers.
        reference: embeddings to fit, or None.
        parameters: number of fitted parameters.
        quantized: the field with quantized weights, once quantization has started.
        steps, elapsed_s: so far.
        smoothed_mse: of the latest batches; NaN before the first.
        lr_scale: factor on all learning rates, halved at each rollback.
        micro_batch_size: samples in one forward pass.

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
        self.dataset = training_set(field, data, hardware.device)
        self.fitted_frames, self.held_out_frames = np.flatnonzero(data.is_fitted), np.flatnonzero(~data.is_fitted)
        self.batches = BatchSampler(self.dataset, data.is_fitted, config.batch_size, config.seed)
        self.micro_batch_size = self.batches.size
        self.parameters = sum(p.numel() for p in self._field_parameters())
        limit_bits = None if goal is None else 8 * goal.limit_bytes / self.parameters
        self.rate = RateControl(config.rate_weight, limit_bits, goal is not None and goal.reach)
        self.reference = self._init_semantics(data)
        self.optimizers = Optimizers(field, config.optimizer, config.lr, self.uses_cuda_graphs)
        self.average = ExponentialMovingAverage(field)
        self.guard, self.lr_scale = DivergenceGuard(), 1.0
        self.quantized: QuantizedField | None = None
        self.steps, self.elapsed_s, self.smoothed_mse = 0, 0.0, math.nan

    def _init_semantics(self, data: SegmentData) -> ReferenceEmbeddings | None:
        head = self.field.semantic
        if head is None or data.embeddings is None or self.config.semantic_weight == 0:
            return None
        is_raw = self.config.semantic_loss == _RAW_LOSS
        reference = ReferenceEmbeddings(data, self.field.geometry.frames, is_raw, self.hardware.device)
        with torch.no_grad():
            head.mean.copy_(reference.mean)
            if not is_raw:
                head.initialize(reference.centred, reference.frames)
        return reference

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether steps are captured as CUDA graphs: on a GPU, where nothing in them synchronises with it."""
        on_gpu = self.hardware.device == "cuda"
        return on_gpu and self.dataset.supports_cuda_graphs and self.config.loss in CUDA_GRAPH_LOSSES

    def budget(self, elapsed_s: float) -> tuple[float, float, str]:
        """Used fraction of the budget, the budget, and its unit: of time or epochs, the one that ends first."""
        budgets = []
        if self.config.time_s is not None:
            budgets.append((elapsed_s / self.config.time_s, self.config.time_s, SECONDS))
        if self.config.epochs is not None:
            fraction = self.steps / (self.config.epochs * self.batches.per_epoch)
            budgets.append((fraction, float(self.config.epochs), PASSES))
        return max(budgets)

    def semantics_active(self, progress: float) -> bool:
        """Whether the pixel warm-up, a fraction of the fit or a number of epochs, is over."""
        warmup = self.config.pixel_warmup
        return progress >= warmup if warmup < 1 else self.steps >= warmup * self.batches.per_epoch

    def start_quantization(self) -> None:
        """Quantize weights in every forward pass from here on."""
        self.quantized = QuantizedField(self.field, self.rate.initial_step_ratio(COARSE), self.config.seed)
        self.optimizers.add_quantization_steps(self.quantized.parameters())
        self.guard.reset(self.learned(), self.elapsed_s)
        self.smoothed_mse = math.nan

    def learned(self) -> list[nn.Parameter]:
        """All parameters that the optimizers change."""
        return [*self._field_parameters(), *(self.quantized.parameters() if self.quantized is not None else [])]

    def is_finite(self) -> bool:
        """Whether no learned parameter has a NaN or infinity."""
        return all(bool(torch.isfinite(p).all()) for p in self.learned())

    def _field_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.field.named_parameters() if name not in self.field.frozen]

    @property
    def forward_field(self) -> Field:
        """The modules that the forward pass runs."""
        return self.field if self.quantized is None else self.quantized.field

    def quantization_steps(self) -> dict[str, np.ndarray]:
        """Quantization steps by tensor: learned, or fine ones where the fit does not quantize."""
        return (self.quantized or QuantizedField(self.field, FINE, self.config.seed)).steps()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the fit depends on: plain values and tensors (the live ones, not copies)."""
        return {
            "field": self.field.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "quantized": None if self.quantized is None else self.quantized.state_dict(),
            "rate": self.rate.state_dict(),
            "average": self.average.mean,
            "batches": self.batches.state_dict(),
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
            "lr_scale": self.lr_scale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of a fit with the same arguments.

        Raises:
            CheckpointError: it is the state of another network.
        """
        try:
            self.field.load_state_dict(state["field"])
            self.rate.load_state_dict(state["rate"])
            if state["quantized"] is not None:
                self.start_quantization()
                assert self.quantized is not None
                self.quantized.load_state_dict(state["quantized"])
            self.optimizers.load_state_dict(state["optimizers"])
            self.average.load(state["average"])
            self.batches.load_state_dict(state["batches"])
            self.micro_batch_size = self.batches.size
            self.steps, self.elapsed_s = state["steps"], state["elapsed_s"]
            self.lr_scale = state["lr_scale"]
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit this network ({str(error).splitlines()[0][:100]})"
            ) from None
