# SPDX-License-Identifier: MIT
"""A fit as TensorBoard shows it (the extra ``tensorboard``). ``docs/training.md`` lists the tags."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nervcodec.errors import ConfigError, explained
from nervcodec.training import look
from nervcodec.training.facts import StepFacts, psnr_db
from nervcodec.training.hooks import Hook
from nervcodec.training.state import FitState

_SHARE = 0.02  # of the fit's time that may go into logging
_LOOKED_AT = 8  # frames of either kind that a look measures
_LOOK_S = 0.5  # that a look is taken to last before there was one
_PICTURES = 3
HELD_OUT_EMBEDDED = 4  # held-out frames that get reference embeddings, only for the log


def require_tensorboard() -> None:
    """Find out before any work whether a log can be written.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise ConfigError("--log-dir needs TensorBoard: pip install 'nervcodec[tensorboard]'") from None


class TensorBoardLog(Hook):
    """Writes scalars at intervals, and now and then a look at frames, histograms and pictures.

    The time it takes stays below a fiftieth of the fit's, but for the first scalars and a last look after the fit.

    Args:
        folder: of the event files; one below it for each segment where there are several.
        share: of the fit's time that may go into it.
        clock: seconds from any beginning.

    Raises:
        ConfigError: TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path, share: float = _SHARE, clock: Callable[[], float] = time.perf_counter):
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        with explained(f"{folder}: cannot be written", ConfigError):
            folder.mkdir(parents=True, exist_ok=True)
            self.writer = SummaryWriter(str(folder))
        self._share, self._spent_s, self._look_s, self._clock = share, 0.0, _LOOK_S, clock
        self._started = False

    def measured(self, state: FitState, facts: StepFacts, done: float) -> None:
        """Note a step, if there is time for it."""
        elapsed_s = state.elapsed_s
        if self._started and self._spent_s > self._share * elapsed_s:
            return
        start = self._clock()
        if not self._started:
            self._counts(state)
        self._scalars(state, facts)
        if self._spent_s + self._look_s <= self._share * elapsed_s:
            looked = self._clock()
            self._look(state)
            self._look_s = self._clock() - looked
        self._started = True
        self._spent_s += self._clock() - start

    def ended(self, state: FitState, done: float) -> None:
        """A last look, and everything onto the disk."""
        self._look(state)
        self.writer.close()

    # ------------------------------------------------------------------ inside

    def _add(self, tag: str, value: float, step: int) -> None:
        self.writer.add_scalar(tag, value, step)

    def _counts(self, state: FitState) -> None:
        fitted, held_out = state.fitted_frames, state.held_out_frames
        geometry = state.field.geometry
        counts = {
            "frames_fitted": len(fitted),
            "frames_held_out": len(held_out),
            "frames_embedded": 0 if state.reference is None else len(state.reference.frames),
            "patches": geometry.patch_rows * geometry.patch_columns,
            "parameters": state.parameters,
            "batch_size": state.batches.size,
        }
        for name, count in counts.items():
            self._add(f"counts/{name}", count, state.steps)

    def _scalars(self, state: FitState, facts: StepFacts) -> None:
        step, elapsed_s = state.steps, state.elapsed_s
        weighted = 0.0 if facts.semantic is None else state.config.semantic_weight * facts.semantic
        values = {
            "loss/total": facts.loss,
            "loss/pixel": facts.pixel,
            "loss/semantic": facts.semantic or 0.0,
            "loss/semantic_weighted": weighted,
            "loss/semantic_over_pixel": weighted / max(abs(facts.pixel), 1e-9),
            "loss/semantic_active": float(facts.semantic is not None),
            "rate/bits_per_parameter": facts.bits or 0.0,
            "rate/price": state.rate.weight if facts.bits is not None else 0.0,
            "quality/psnr_of_batch": psnr_db(facts.mse),
            "progress/epochs": step / state.batches.per_epoch,
            "progress/seconds": elapsed_s,
            "progress/steps_a_second": step / max(elapsed_s, 1e-9),
            "progress/logging_share": self._spent_s / max(elapsed_s, 1e-9),
            "progress/rate_scale": state.lr_scale,
        }
        values.update({f"learning_rate/{name}": rate for name, rate in state.optimizers.rates().items()})
        norms = look.gradient_norms(state.field)
        values.update({f"gradient/{part}": norm for part, norm in norms.items()})
        if "semantic_head" in norms:
            values["gradient/semantic_over_rgb"] = norms["semantic_head"] / max(norms["rgb_head"], 1e-12)
        for part, statistics in look.weight_statistics(state.field).items():
            values.update({f"weights/{part}_{name}": value for name, value in statistics.items()})
        for tag, value in values.items():
            self._add(tag, value, step)

    def _look(self, state: FitState) -> None:
        step, means = state.steps, {}
        known = state.reference.of_frame if state.reference is not None else {}
        for role, frames in (("fitted", state.fitted_frames), ("held_out", state.held_out_frames)):
            if not len(frames):
                continue
            embedded = np.array([frame for frame in frames.tolist() if frame in known], np.int64)
            chosen = look.evenly(frames, _LOOKED_AT)
            if len(embedded):
                chosen = sorted({*look.evenly(embedded, _LOOKED_AT // 2), *chosen[: _LOOKED_AT // 2]})
            found = look.quality(state, chosen)
            means[role] = float(found.frame_psnr_db.mean())
            spreads = {"psnr_by_frame": found.frame_psnr_db, "psnr_by_patch": found.psnr_db.mean(axis=0)}
            if len(found.similarity):
                spreads["similarity_by_frame"] = found.similarity.mean(axis=1)
                spreads["similarity_by_patch"] = found.similarity.mean(axis=0)
            for name, values in spreads.items():
                for kind, value in (("mean", values.mean()), ("min", values.min()), ("max", values.max())):
                    self._add(f"{role}/{name}_{kind}", float(value), step)
                self._add(f"{role}/{name}_std", float(values.std()), step)
            for frame in look.evenly(frames, _PICTURES):
                image, target, _ = look.predict(state, frame)
                pair = torch.cat([target[0].clamp(0, 1), image[0]], dim=1).cpu().numpy()
                self.writer.add_image(f"{role}/frame_{frame}", pair, step, dataformats="HWC")
        if len(means) == 2:
            self._add("quality/fitted_less_held_out", means["fitted"] - means["held_out"], step)
        with look.Activations(state.running) as activations:
            look.predict(state, int(state.fitted_frames[0]))
        for name, statistics in activations.found.items():
            for kind, value in statistics.items():
                self._add(f"activations/{name}_{kind}", value, step)
        for part, members in look.by_part(state.field).items():
            flat = torch.cat([p.detach().reshape(-1) for p in members])
            self.writer.add_histogram(f"weights/{part}", flat[:: max(1, len(flat) // 50_000)].cpu().numpy(), step)
