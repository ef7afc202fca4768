# SPDX-License-Identifier: MIT
"""Hooks of the training loop that do not change the fit: progress, checkpoints, TensorBoard.

TensorBoard needs the extra ``tensorboard``; ``docs/fitting.md`` lists the tags.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nervcodec.errors import ConfigError, wrap_os_error
from nervcodec.events import EvaluationEvent, Observer, StepEvent
from nervcodec.training import diagnostics
from nervcodec.training.checkpoint import Checkpoint
from nervcodec.training.losses import StepMetrics, psnr_db
from nervcodec.training.state import FitState

_EVALUATED = 16  # fitted or held-out frames, at most
_SHARE = 0.02  # maximum share of the fit's time
_REPORT_FRAMES = 8  # fitted or held-out frames measured for a report, at most
_REPORT_S = 0.5  # assumed duration of the first report
_IMAGES = 3
HELD_OUT_EMBEDDED = 4  # held-out frames with reference embeddings, for the log only


class Hook:
    """A hook of the training loop that does nothing; override the methods you need."""

    def stepped(self, state: FitState) -> None:
        """A step was taken."""

    def measured(self, state: FitState, metrics: StepMetrics, progress: float) -> None:
        """A step was measured, a few times a second; ``progress`` is the fraction of the fit before it."""

    def ended(self, state: FitState, progress: float) -> None:
        """The fit has ended, ``progress`` is 1 unless it was stopped; the field holds the result."""


class ProgressHook(Hook):
    """Reports progress to an observer.

    Args:
        observer: receives events.
        segment, segment_count: number of the segment, from 0, and of segments.
        rate_bpp: bits per pixel the weights are expected to take.
    """

    def __init__(self, observer: Observer, segment: int = 0, segment_count: int = 1, rate_bpp: float = 0.0):
        self._observer, self._segment, self._count, self._rate_bpp = observer, segment, segment_count, rate_bpp
        self._semantic: float | None = None

    def stepped(self, state: FitState) -> None:
        every = state.config.eval_every
        if not every or state.steps % (every * state.batches.per_epoch):
            return
        fitted_db = _mean_psnr_db(state, state.fitted_frames)
        held_out_db = _mean_psnr_db(state, state.held_out_frames) if len(state.held_out_frames) else None
        self._observer.evaluated(EvaluationEvent(state.steps // state.batches.per_epoch, fitted_db, held_out_db))

    def measured(self, state: FitState, metrics: StepMetrics, progress: float) -> None:
        self._semantic = metrics.semantic if metrics.semantic is not None else self._semantic
        self._report(state, progress)

    def ended(self, state: FitState, progress: float) -> None:
        self._report(state, progress)
        self._observer.stage("Measuring")

    def _report(self, state: FitState, progress: float) -> None:
        _, total, unit = state.budget(state.elapsed_s)
        event = StepEvent(
            self._segment,
            self._count,
            min(progress, 1.0),
            state.steps,
            state.elapsed_s,
            psnr_db(state.smoothed_mse),
            self._rate_bpp,
            self._semantic,
            total,
            unit,
        )
        self._observer.step(event)


def _mean_psnr_db(state: FitState, frames: np.ndarray) -> float:
    """Mean PSNR over at most :data:`_EVALUATED` of some frames."""
    return float(diagnostics.quality(state, diagnostics.evenly_spaced(frames, _EVALUATED)).frame_psnr_db.mean())


class CheckpointHook(Hook):
    """Writes the state of the fit to disk, at most once a minute."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint

    def measured(self, state: FitState, metrics: StepMetrics, progress: float) -> None:
        self._checkpoint.save_if_due(state.state_dict)


def require_tensorboard() -> None:
    """Check before any work that logs can be written.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise ConfigError("--log-dir needs TensorBoard: pip install 'nervcodec[tensorboard]'") from None


class TensorBoardLog(Hook):
    """Writes scalars regularly, and less often frame quality, histograms and images.

    It takes less than a fiftieth of the fit's time, apart from the first scalars and the report after the fit.

    Args:
        folder: of the event files.
        share: maximum share of the fit's time.
        clock: seconds.

    Raises:
        ConfigError: TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path, share: float = _SHARE, clock: Callable[[], float] = time.perf_counter):
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        with wrap_os_error(f"{folder}: cannot be written", ConfigError):
            folder.mkdir(parents=True, exist_ok=True)
            self.writer = SummaryWriter(str(folder))
        self._share, self._spent_s, self._report_s, self._clock = share, 0.0, _REPORT_S, clock
        self._started = False

    def measured(self, state: FitState, metrics: StepMetrics, progress: float) -> None:
        """Log a step, within the time limit."""
        elapsed_s = state.elapsed_s
        if self._started and self._spent_s > self._share * elapsed_s:
            return
        start = self._clock()
        if not self._started:
            self._counts(state)
        self._scalars(state, metrics)
        if self._spent_s + self._report_s <= self._share * elapsed_s:
            report_start = self._clock()
            self._write_report(state)
            self._report_s = self._clock() - report_start
        self._started = True
        self._spent_s += self._clock() - start

    def ended(self, state: FitState, progress: float) -> None:
        """Write a last report and close the log."""
        self._write_report(state)
        self.writer.close()

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

    def _scalars(self, state: FitState, metrics: StepMetrics) -> None:
        step, elapsed_s = state.steps, state.elapsed_s
        weighted = 0.0 if metrics.semantic is None else state.config.semantic_weight * metrics.semantic
        values = {
            "loss/total": metrics.loss,
            "loss/pixel": metrics.pixel,
            "loss/semantic": metrics.semantic or 0.0,
            "loss/semantic_weighted": weighted,
            "loss/semantic_over_pixel": weighted / max(abs(metrics.pixel), 1e-9),
            "loss/semantic_active": float(metrics.semantic is not None),
            "rate/bits_per_parameter": metrics.bits or 0.0,
            "rate/price": state.rate.weight if metrics.bits is not None else 0.0,
            "quality/psnr_of_batch": psnr_db(metrics.mse),
            "progress/epochs": step / state.batches.per_epoch,
            "progress/seconds": elapsed_s,
            "progress/steps_a_second": step / max(elapsed_s, 1e-9),
            "progress/logging_share": self._spent_s / max(elapsed_s, 1e-9),
            "progress/rate_scale": state.lr_scale,
        }
        values.update({f"learning_rate/{name}": rate for name, rate in state.optimizers.learning_rates().items()})
        norms = diagnostics.gradient_norms(state.field)
        values.update({f"gradient/{part}": norm for part, norm in norms.items()})
        if "semantic_head" in norms:
            values["gradient/semantic_over_rgb"] = norms["semantic_head"] / max(norms["rgb_head"], 1e-12)
        for part, statistics in diagnostics.weight_statistics(state.field).items():
            values.update({f"weights/{part}_{name}": value for name, value in statistics.items()})
        for tag, value in values.items():
            self._add(tag, value, step)

    def _write_report(self, state: FitState) -> None:
        step, means = state.steps, {}
        references = state.reference.by_frame if state.reference is not None else {}
        for role, frames in (("fitted", state.fitted_frames), ("held_out", state.held_out_frames)):
            if not len(frames):
                continue
            embedded = np.array([frame for frame in frames.tolist() if frame in references], np.int64)
            selected = diagnostics.evenly_spaced(frames, _REPORT_FRAMES)
            if len(embedded):
                half = _REPORT_FRAMES // 2
                selected = sorted({*diagnostics.evenly_spaced(embedded, half), *selected[:half]})
            quality = diagnostics.quality(state, selected)
            means[role] = float(quality.frame_psnr_db.mean())
            spreads = {"psnr_by_frame": quality.frame_psnr_db, "psnr_by_patch": quality.psnr_db.mean(axis=0)}
            if len(quality.similarity):
                spreads["similarity_by_frame"] = quality.similarity.mean(axis=1)
                spreads["similarity_by_patch"] = quality.similarity.mean(axis=0)
            for name, values in spreads.items():
                for kind, value in (("mean", values.mean()), ("min", values.min()), ("max", values.max())):
                    self._add(f"{role}/{name}_{kind}", float(value), step)
                self._add(f"{role}/{name}_std", float(values.std()), step)
            for frame in diagnostics.evenly_spaced(frames, _IMAGES):
                image, target, _ = diagnostics.predict(state, frame)
                pair = torch.cat([target[0].clamp(0, 1), image[0]], dim=1).cpu().numpy()
                self.writer.add_image(f"{role}/frame_{frame}", pair, step, dataformats="HWC")
        if len(means) == 2:
            self._add("quality/fitted_less_held_out", means["fitted"] - means["held_out"], step)
        with diagnostics.ActivationStatistics(state.forward_field) as activations:
            diagnostics.predict(state, int(state.fitted_frames[0]))
        for name, statistics in activations.by_module.items():
            for kind, value in statistics.items():
                self._add(f"activations/{name}_{kind}", value, step)
        for part, members in diagnostics.parameters_by_part(state.field).items():
            flat = torch.cat([p.detach().reshape(-1) for p in members])
            self.writer.add_histogram(f"weights/{part}", flat[:: max(1, len(flat) // 50_000)].cpu().numpy(), step)
