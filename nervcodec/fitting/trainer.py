# SPDX-License-Identifier: MIT
"""The loop: fit one network to one segment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nervcodec.device import Hardware
from nervcodec.errors import ConfigError, DivergedError
from nervcodec.events import EvaluationEvent, Observer, StepEvent
from nervcodec.fitting import inspection, losses
from nervcodec.fitting.checkpoint import CheckpointFile
from nervcodec.fitting.config import FitConfig
from nervcodec.fitting.inspection import StepFacts
from nervcodec.fitting.muon import Muon
from nervcodec.fitting.rate_control import RateControl, SizeGoal, coded
from nervcodec.fitting.rounding import COARSE, FINE, RoundedField
from nervcodec.fitting.safeguard import SLOWER, Safeguard
from nervcodec.fitting.schedule import parse_schedule
from nervcodec.fitting.tensorboard import TensorBoardLog
from nervcodec.network.field import Field

MUON_LR, ADAM_LR = 0.02, 0.001
GRID_LR, OTHER_LR, STEP_LR = 1.0, 0.15, 1.0  # times Muon's
_REPORT_S = 0.25
_USUAL_STEPS, _LENGTH_POWER = 1500, 0.25  # of a fit that Muon's rate suits; how the rate falls with more
_READ_EVERY = 4  # steps between readings of the rate
_NOISE_DB = 1.0  # a running mean of weights may be this much better than the batches that went by
_CHECK_SHARE = 9.0  # times what a measurement of the quantised network takes, until the next
_EVALUATED = 16  # frames of either kind
_AVERAGE_OVER = 0.02  # the running mean of weights reaches back this fraction of the fit


@dataclass(frozen=True)
class SegmentData:
    """What a network is fitted to.

    Attributes:
        frames: ``(N, H, W, 3)`` uint8 RGB.
        embeddings: ``(n, patches, D)`` float32 unit vectors of some frames, or None.
        embedded_frames: ``(n,)`` the numbers of those frames, ascending.
        fitted: ``(N,)`` bool, the frames to fit, at least one; None for all.
        held_out_embeddings, held_out_embedded: the same for some held-out frames, only to be looked at.
    """

    frames: np.ndarray
    embeddings: np.ndarray | None = None
    embedded_frames: np.ndarray | None = None
    fitted: np.ndarray | None = None
    held_out_embeddings: np.ndarray | None = None
    held_out_embedded: np.ndarray | None = None


@dataclass(frozen=True)
class FitResult:
    """How a fit ended.

    Attributes:
        steps: optimiser steps.
        elapsed_s: seconds.
        complete: False where it was asked to stop before its budget was used.
        rounding: the quantisation step or steps of each tensor that is to be stored rounded, ``(C,)`` by the second
            axis or ``(1,)``.
    """

    steps: int
    elapsed_s: float
    complete: bool
    rounding: dict[str, np.ndarray]


class Trainer:
    """Fits ``field`` in place.

    Args:
        field: a network with fresh weights; moved to the hardware's device.
        data: the segment.
        config: settings.
        hardware: device and precision.
        observer: told of progress, asked whether to stop.
        segment, segment_count, rate_bpp: only passed on to the observer.
        goal: what the stored weights should take, or None.
        checkpoint: where the state is kept while the fit goes on, or None.
        log: told of every step that is measured, or None.
        quantised_psnr_db: measures the network as it would be stored, from its weights and their quantisation steps;
            needed where the settings name a PSNR to reach.
    """

    def __init__(
        self,
        field: Field,
        data: SegmentData,
        config: FitConfig,
        hardware: Hardware,
        observer: Observer,
        segment: int = 0,
        segment_count: int = 1,
        rate_bpp: float = 0.0,
        goal: SizeGoal | None = None,
        quantised_psnr_db: Callable[[Field, dict[str, np.ndarray]], float] | None = None,
        checkpoint: CheckpointFile | None = None,
        log: TensorBoardLog | None = None,
    ):
        self.field = field.to(hardware.device)
        self.config, self.hardware, self.observer = config, hardware, observer
        self.report_as = (segment, segment_count)
        self.rate_bpp = rate_bpp
        self.quantised_psnr_db, self.checkpoint, self.log = quantised_psnr_db, checkpoint, log
        if config.psnr_db is not None and quantised_psnr_db is None:
            raise ConfigError("a PSNR to reach needs something that measures it")
        self.targets = field.pack_targets(torch.from_numpy(data.frames).to(hardware.device))
        self.schedule = parse_schedule(config.lr_type)
        self.pixel_loss = losses.PIXEL[config.loss]
        self.units = torch.arange(field.unit_count)
        if data.fitted is not None:
            self.units = self.units[torch.from_numpy(data.fitted)[field.unit_frames(self.units)]]
        fitted = np.ones(len(data.frames), bool) if data.fitted is None else data.fitted
        self.fitted_frames, self.held_out_frames = np.flatnonzero(fitted), np.flatnonzero(~fitted)
        self.batch_size = min(config.batch_size or field.default_batch_size, len(self.units))
        self.part_size = self.batch_size
        self.steps_per_epoch = -(-len(self.units) // self.batch_size)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.order, self.position = torch.empty(0, dtype=torch.long), 0
        self.steps, self.elapsed_s, self.smoothed_mse = 0, 0.0, math.nan
        self.rounded: RoundedField | None = None
        self.parameters = sum(p.numel() for p in field.parameters())
        limit_bits = None if goal is None else 8 * goal.limit_bytes / self.parameters
        self.rate = RateControl(config.rate_weight, limit_bits, goal is not None and goal.reach)
        self._prepare_semantics(data)
        self._prepare_optimizers()
        self.average = _RunningMean(self.field)
        self.safeguard, self.lr_scale = Safeguard(), 1.0

    def _prepare_semantics(self, data: SegmentData) -> None:
        self.reference: Tensor | None = None
        self.reference_of: dict[int, Tensor] = {}
        head = self.field.semantic
        if head is None or data.embeddings is None or self.config.semantic_weight == 0:
            return
        reference = torch.from_numpy(data.embeddings).to(self.hardware.device)
        raw = self.config.semantic_loss == "cosine"
        mean = torch.zeros_like(reference[0, 0]) if raw else reference.mean(dim=(0, 1))
        self.reference = reference - mean
        flat = self.reference.flatten(0, 1)
        self.variance = flat.square().sum(dim=1).mean().clamp(min=1e-6)
        rows = torch.full((self.field.geometry.frames,), -1, dtype=torch.long)
        rows[torch.as_tensor(data.embedded_frames, dtype=torch.long)] = torch.arange(len(reference))
        self.rows_of_frames = rows
        self.reference_of = dict(zip(np.asarray(data.embedded_frames).tolist(), reference, strict=True))
        if data.held_out_embeddings is not None:
            extra = torch.from_numpy(data.held_out_embeddings).to(self.hardware.device)
            self.reference_of.update(zip(np.asarray(data.held_out_embedded).tolist(), extra, strict=True))
        with torch.no_grad():
            head.mean.copy_(mean)
            if not raw:
                head.start_from(self.reference, torch.as_tensor(data.embedded_frames, dtype=torch.long))

    def _prepare_optimizers(self) -> None:
        kind = self.config.optimizer or self.field.default_optimizer
        roles = self.field.parameter_roles()
        fused = {"fused": True, "betas": (0.9, 0.99 if kind == "muon" else 0.999)}
        if kind == "adam":
            lr = self.config.lr or ADAM_LR
            everything = [p for role in roles.values() for p in role]
            self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(everything, lr=lr, **fused)]
        else:
            lr = self.config.lr or MUON_LR
            groups = [
                {"params": roles["grids"], "lr": GRID_LR * lr},
                {"params": roles["others"] + roles["semantic"], "lr": OTHER_LR * lr},
            ]
            if not roles["matrices"]:
                raise ConfigError("this network has no matrices for Muon; use the optimizer adam")
            adam = torch.optim.Adam([g for g in groups if g["params"]], **fused)
            self.optimizers = [Muon(roles["matrices"], lr=lr), adam]
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["base_lr"] = group["lr"]

    # ------------------------------------------------------------------ the loop

    def fit(self) -> FitResult:
        """Run until the budget is used or the observer asks to stop; the field holds the result.

        After an early stop it holds the running mean of the latest weights, which is better than the last weights
        while the learning rate is still high.

        Raises:
            DivergedError: the loss is not finite.
        """
        average = self.average
        self.smoothed_mse = math.nan
        semantic_value: float | None = None
        next_report, next_check, complete = 0.0, 0.0, True
        start = time.perf_counter() - self.elapsed_s
        while True:
            elapsed = self.elapsed_s = time.perf_counter() - start
            done = self._done(elapsed)
            if done >= 1:
                break
            if self.observer.stop_requested():
                complete = False
                break
            report = elapsed >= next_report
            facts = self._step(self._next_batch(), done, measure=report)
            if self.config.eval_every and self.steps % (self.config.eval_every * self.steps_per_epoch) == 0:
                self._evaluate()
            average.update(self.steps, _AVERAGE_OVER * self.steps / max(done, 1e-6))
            if facts is not None:
                mse = facts.mse
                self.smoothed_mse = mse if math.isnan(self.smoothed_mse) else 0.8 * self.smoothed_mse + 0.2 * mse
                if self.safeguard.is_bad(inspection.psnr_db(self.smoothed_mse)):
                    self._retreat(mse)
                    self.smoothed_mse = math.nan
                    continue
                self.safeguard.keep(self._learned(), inspection.psnr_db(self.smoothed_mse), elapsed)
                semantic_value = facts.semantic if facts.semantic is not None else semantic_value
                self._report(done, elapsed, self.smoothed_mse, semantic_value)
                next_report = elapsed + _REPORT_S
                if self.log is not None:
                    self.log.record(self, facts, elapsed)
                if self.checkpoint is not None:
                    self.checkpoint.save_if_due(self.state)
                if self._nearly_good(self.smoothed_mse, done) and elapsed >= next_check:
                    average.swap()
                    if self._is_good():
                        break
                    average.swap()
                    now = time.perf_counter() - start
                    next_check = now + _CHECK_SHARE * (now - elapsed)
        if not complete and self.steps:
            average.apply()
        if not Safeguard.all_finite(self._learned()):
            self._retreat(math.nan)
        elapsed = time.perf_counter() - start
        self._report(1.0 if complete else self._done(elapsed), elapsed, self.smoothed_mse, semantic_value)
        if self.log is not None:
            self.log.finish(self)
        steps = self._rounding_steps()
        if self.rounded is not None:
            self.rounded.detach()
        return FitResult(self.steps, elapsed, complete, steps)

    def _learned(self) -> list[nn.Parameter]:
        """All that the optimisers change."""
        return [*self.field.parameters(), *(self.rounded.parameters() if self.rounded is not None else [])]

    def _retreat(self, mse: float) -> None:
        """Go back to the last good weights, and on from there with half the learning rate.

        Raises:
            DivergedError: there are none, or it has happened too often.
        """
        if not self.safeguard.can_go_back:
            raise DivergedError(f"the fit diverged at step {self.steps} (loss is {mse}); try a lower --lr")
        self.safeguard.go_back()
        for optimizer in self.optimizers:
            optimizer.state.clear()
        self.average.restart()
        self.lr_scale *= SLOWER
        self.observer.note(
            f"the fit went astray at step {self.steps}; back to the last good weights, at {self.lr_scale:g} of the rate"
        )

    def _rounding_steps(self) -> dict[str, np.ndarray]:
        """Quantisation steps by tensor: what the fit has learned, or fine ones where it rounds nothing."""
        if self.rounded is not None:
            return self.rounded.steps()
        fine = RoundedField(self.field, FINE, self.config.seed)
        fine.detach()
        return fine.steps()

    def _evaluate(self) -> None:
        """Measure some frames of either kind and tell the observer."""
        fitted, held_out = (
            inspection.quality(self, inspection.spread(frames, _EVALUATED)).frame_psnr_db.mean()
            if len(frames)
            else None
            for frames in (self.fitted_frames, self.held_out_frames)
        )
        assert fitted is not None
        epoch = self.steps // self.steps_per_epoch
        self.observer.evaluated(EvaluationEvent(epoch, float(fitted), None if held_out is None else float(held_out)))

    def _nearly_good(self, mse: float, done: float) -> bool:
        """Whether the PSNR asked for may have been reached; begins to round weights when it seems so without."""
        wanted = self.config.psnr_db
        if wanted is None or math.isnan(mse) or inspection.psnr_db(mse) < wanted - _NOISE_DB:
            return False
        if self.rounded is None and self.config.rounding_share:
            if inspection.psnr_db(mse) >= wanted:
                self._begin_rounding()
            return False
        return True

    def _is_good(self) -> bool:
        """Whether the network, as it would be stored now, has the PSNR asked for."""
        assert self.quantised_psnr_db is not None
        assert self.config.psnr_db is not None
        return self.quantised_psnr_db(self.field, self._rounding_steps()) >= self.config.psnr_db

    def _done(self, elapsed: float) -> float:
        """Fraction of the budget that is used: of the time or of the epochs, whichever is further."""
        fractions = []
        if self.config.time_s is not None:
            fractions.append(elapsed / self.config.time_s)
        if self.config.epochs is not None:
            fractions.append(self.steps / (self.config.epochs * self.steps_per_epoch))
        if not fractions:
            raise ConfigError("a fit needs an end: a time or a number of epochs")
        return max(fractions)

    def _semantics_active(self, done: float) -> bool:
        """Whether the pixel warm-up, a fraction of the fit or a number of epochs, is over."""
        warmup = self.config.pixel_warmup
        return done >= warmup if warmup < 1 else self.steps >= warmup * self.steps_per_epoch

    def _begin_rounding(self) -> None:
        self.rounded = RoundedField(self.field, self.rate.first_coarseness(COARSE), self.config.seed)
        lr = STEP_LR * (self.config.lr or MUON_LR) if len(self.optimizers) > 1 else self.config.lr or ADAM_LR
        self.optimizers[-1].add_param_group({"params": self.rounded.parameters(), "lr": lr, "base_lr": lr})
        self.safeguard.restart(self._learned(), self.elapsed_s)
        self.smoothed_mse = math.nan

    def _next_batch(self) -> Tensor:
        """A batch of units: every unit once an epoch, in a new order each time."""
        if self.position >= len(self.order):
            self.order = self.units[torch.randperm(len(self.units), generator=self.generator)]
            self.position = 0
        batch = self.order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        return batch

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Any]:
        """All that the rest of the fit depends on: plain values and tensors (the live ones, not copies)."""
        return {
            "field": self.field.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "rounded": None if self.rounded is None else self.rounded.state(),
            "rate": self.rate.state(),
            "average": self.average.mean,
            "order": self.order,
            "position": self.position,
            "generator": self.generator.get_state(),
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
            "lr_scale": self.lr_scale,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave, of a trainer made with the same arguments.

        Raises:
            ConfigError: it is the state of another network.
        """
        try:
            self.field.load_state_dict(state["field"])
            self.rate.restore(state["rate"])
            if state["rounded"] is not None:
                self._begin_rounding()
                assert self.rounded is not None
                self.rounded.restore(state["rounded"])
            for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(own)
            with torch.no_grad():
                for mean, own in zip(self.average.mean, state["average"], strict=True):
                    mean.copy_(own)
            self.order, self.position = state["order"], state["position"]
            self.generator.set_state(state["generator"])
            self.steps, self.elapsed_s = state["steps"], state["elapsed_s"]
            self.lr_scale = state["lr_scale"]
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise ConfigError(
                f"the checkpoint does not fit this network ({str(error).splitlines()[0][:100]})"
            ) from None

    def _step(self, units: Tensor, done: float, measure: bool) -> StepFacts | None:
        """One optimiser step; says what it came to where ``measure`` asks for it.

        Where a GPU's memory does not hold the batch, gradients are added up over halves of it from then on.
        """
        if self.rounded is None and done > 1 - self.config.rounding_share:
            self._begin_rounding()
        factor = max(self.schedule(done), 1e-4) * self.lr_scale * self._length_factor(done)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        while True:
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            try:
                parts = units.split(self.part_size)
                facts = [self._add_gradients(part, len(part) / len(units), done, measure) for part in parts]
                break
            except torch.cuda.OutOfMemoryError:
                if self.part_size == 1:
                    raise
                self._use_smaller_parts()
        if self.rounded is not None and self.steps % _READ_EVERY == 0:
            self.rate.read(self.rounded.bits_per_parameter().item(), 1 - (1 - done) / self.config.rounding_share)
        if self.rounded is not None and self.rate.wants_measure:
            self.rate.calibrate(8 * coded(self.field, self.rounded.steps()).size / self.parameters)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps += 1
        return StepFacts.mean([f for f in facts if f is not None]) if measure else None

    def _length_factor(self, done: float) -> float:
        """On Muon's learning rate where none was chosen: less for a fit of many steps, by its pace so far."""
        if self.config.lr is not None or len(self.optimizers) == 1 or not self.steps or done <= 0:
            return 1.0
        return min(1.0, (_USUAL_STEPS * done / self.steps) ** _LENGTH_POWER)

    def _use_smaller_parts(self) -> None:
        self.part_size = -(-self.part_size // 2)
        if self.hardware.device == "cuda":
            torch.cuda.empty_cache()
        self.observer.note(f"out of GPU memory; batches of {self.batch_size} go in parts of {self.part_size} from here")

    def _add_gradients(self, units: Tensor, share: float, done: float, measure: bool) -> StepFacts | None:
        """Forward and backward pass of a batch, or of a part that is a ``share`` of one."""
        rows = labelled = None
        if self.reference is not None and self._semantics_active(done):
            rows = self.rows_of_frames[self.field.unit_frames(units)]
            labelled = rows >= 0
        with_semantics = labelled is not None and bool(labelled.any())
        units = units.to(self.hardware.device)
        with self.hardware.autocast():
            prediction, centred = (self.rounded or self.field)(units, with_semantics)
        target = self.targets.index_select(0, units).to(prediction.dtype).mul_(1 / 255).sub_(0.5)
        loss = pixel = self.pixel_loss(prediction, target, self.field.unpack)
        semantic = bits = None
        if with_semantics:
            rows, labelled = rows.to(self.hardware.device), labelled.to(self.hardware.device)
            reference = self.field.pack_embeddings(self.reference, rows.clamp(min=0), units)
            if self.config.semantic_loss == "cosine":
                semantic = losses.cosine_loss(centred, reference, labelled)
            else:
                semantic = losses.semantic_loss(centred, reference, labelled, self.variance)
            loss = loss + self.config.semantic_weight * semantic
        if self.rounded is not None:
            bits = self.rounded.bits_per_parameter()
            loss = loss + self.rate.weight * bits
        (loss if share == 1 else loss * share).backward()
        if not measure:
            return None
        mse = (prediction.detach().float() - target.float()).square().mean().item()
        return StepFacts(
            mse=mse if math.isfinite(loss.item()) else math.nan,
            loss=loss.item(),
            pixel=pixel.item(),
            semantic=None if semantic is None else semantic.item(),
            bits=None if bits is None else bits.item(),
        )

    def _report(self, done: float, elapsed: float, mse: float, semantic: float | None) -> None:
        psnr_db = inspection.psnr_db(mse)
        segment, count = self.report_as
        self.observer.step(
            StepEvent(segment, count, min(done, 1.0), self.steps, elapsed, psnr_db, self.rate_bpp, semantic)
        )


class _RunningMean:
    """Exponential mean of the weights, kept beside them."""

    every = 4  # steps between updates; neighbouring weights differ little

    def __init__(self, field: Field):
        self.live = [p for p in field.parameters() if p.requires_grad]
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self, steps: int, horizon: float) -> None:
        """Move toward the live weights so that the mean reaches back about ``horizon`` steps."""
        if steps % self.every == 0:
            torch._foreach_lerp_(self.mean, self.live, min(1.0, self.every / max(horizon, 1.0)))

    @torch.no_grad()
    def restart(self) -> None:
        """Forget all but the live weights."""
        for live, mean in zip(self.live, self.mean, strict=True):
            mean.copy_(live)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the mean and the live weights."""
        for live, mean in zip(self.live, self.mean, strict=True):
            live_now = live.clone()
            live.copy_(mean)
            mean.copy_(live_now)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the mean in place of the live weights."""
        for live, mean in zip(self.live, self.mean, strict=True):
            live.copy_(mean)
