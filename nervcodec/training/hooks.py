# SPDX-License-Identifier: MIT
"""Hooks of the training loop that do not change the fit: progress, checkpoints, TensorBoard.

TensorBoard needs the extra ``tensorboard``; ``docs/fitting.md`` lists the tags.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from nervcodec.errors import ConfigError, explained
from nervcodec.events import EvaluationEvent, Observer, StepEvent
from nervcodec.training import diagnostics
from nervcodec.training.checkpoint import Checkpoint
from nervcodec.training.losses import StepFacts, psnr_db
from nervcodec.training.state import FitState

_EVALUATED = 16  # frames of either kind
_SHARE = 0.02  # of the fit's time that may go into logging
_LOOKED_AT = 8  # frames of either kind that a look measures
_LOOK_S = 0.5  # that a look is taken to last before there was one
_PICTURES = 3
HELD_OUT_EMBEDDED = 4  # held-out frames that get reference embeddings, only for the log


class Hook:
    """Does nothing; override what is of interest."""

    def stepped(self, state: FitState) -> None:
        """A step was taken."""

    def measured(self, state: FitState, facts: StepFacts, done: float) -> None:
        """A step was measured, as happens a few times a second; ``done`` is the fraction of the fit before it."""

    def ended(self, state: FitState, done: float) -> None:
        """The fit is over, ``done`` 1 where it was not stopped; the field holds the result."""

    def note(self, text: str) -> None:
        """One line that a user should read."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Another kind of work begins, with a number of things to do where that is known."""

    def advance(self, count: int = 1) -> None:
        """Some of those things are done."""

    def worth_keeping(self) -> None:
        """From here on there is something to keep when a user wants to stop."""

    def stop_requested(self) -> bool:
        """True asks the fit to end at the next step and keep what it has."""
        return False


class Hooks(Hook):
    """Several as one."""

    def __init__(self, members: Sequence[Hook]):
        self._members = members

    def stepped(self, state: FitState) -> None:
        for member in self._members:
            member.stepped(state)

    def measured(self, state: FitState, facts: StepFacts, done: float) -> None:
        for member in self._members:
            member.measured(state, facts, done)

    def ended(self, state: FitState, done: float) -> None:
        for member in self._members:
            member.ended(state, done)

    def note(self, text: str) -> None:
        for member in self._members:
            member.note(text)

    def stage(self, name: str, total: int | None = None) -> None:
        for member in self._members:
            member.stage(name, total)

    def advance(self, count: int = 1) -> None:
        for member in self._members:
            member.advance(count)

    def worth_keeping(self) -> None:
        for member in self._members:
            member.worth_keeping()

    def stop_requested(self) -> bool:
        return any([member.stop_requested() for member in self._members])


class ProgressHook(Hook):
    """Tells an observer how the fit goes on, and passes its wish to stop on.

    Args:
        observer: told.
        segment, segment_count: which segment of how many, from 0.
        rate_bpp: bits per pixel the weights are expected to take.
    """

    def __init__(self, observer: Observer, segment: int = 0, segment_count: int = 1, rate_bpp: float = 0.0):
        self._observer, self._segment, self._count, self._rate_bpp = observer, segment, segment_count, rate_bpp
        self._semantic: float | None = None

    def stepped(self, state: FitState) -> None:
        every = state.config.eval_every
        if not every or state.steps % (every * state.batches.per_epoch):
            return
        means = [
            float(diagnostics.quality(state, diagnostics.evenly(frames, _EVALUATED)).frame_psnr_db.mean())
            if len(frames)
            else None
            for frames in (state.fitted_frames, state.held_out_frames)
        ]
        assert means[0] is not None
        self._observer.evaluated(EvaluationEvent(state.steps // state.batches.per_epoch, means[0], means[1]))

    def measured(self, state: FitState, facts: StepFacts, done: float) -> None:
        self._semantic = facts.semantic if facts.semantic is not None else self._semantic
        self._report(state, done)

    def ended(self, state: FitState, done: float) -> None:
        self._report(state, done)
        self._observer.stage("Measuring")

    def _report(self, state: FitState, done: float) -> None:
        _, total, unit = state.budget(state.elapsed_s)
        event = StepEvent(
            self._segment,
            self._count,
            min(done, 1.0),
            state.steps,
            state.elapsed_s,
            psnr_db(state.smoothed_mse),
            self._rate_bpp,
            self._semantic,
            total,
            unit,
        )
        self._observer.step(event)

    def note(self, text: str) -> None:
        self._observer.note(text)

    def stage(self, name: str, total: int | None = None) -> None:
        self._observer.stage(name, total)

    def advance(self, count: int = 1) -> None:
        self._observer.advance(count)

    def worth_keeping(self) -> None:
        self._observer.worth_keeping()

    def stop_requested(self) -> bool:
        return self._observer.stop_requested()


def _mean_psnr_db(state: FitState, frames: np.ndarray) -> float:
    """Mean PSNR over at most :data:`_EVALUATED` of some frames."""
    return float(diagnostics.quality(state, diagnostics.evenly(frames, _EVALUATED)).frame_psnr_db.mean())


class CheckpointHook(Hook):
    """Keeps the state of the fit on disk, at most once a minute."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint

    def measured(self, state: FitState, facts: StepFacts, done: float) -> None:
        self._checkpoint.save_if_due(state.to_dict)


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
        norms = diagnostics.gradient_norms(state.field)
        values.update({f"gradient/{part}": norm for part, norm in norms.items()})
        if "semantic_head" in norms:
            values["gradient/semantic_over_rgb"] = norms["semantic_head"] / max(norms["rgb_head"], 1e-12)
        for part, statistics in diagnostics.weight_statistics(state.field).items():
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
            chosen = diagnostics.evenly(frames, _LOOKED_AT)
            if len(embedded):
                chosen = sorted({*diagnostics.evenly(embedded, _LOOKED_AT // 2), *chosen[: _LOOKED_AT // 2]})
            found = diagnostics.quality(state, chosen)
            means[role] = float(found.frame_psnr_db.mean())
            spreads = {"psnr_by_frame": found.frame_psnr_db, "psnr_by_patch": found.psnr_db.mean(axis=0)}
            if len(found.similarity):
                spreads["similarity_by_frame"] = found.similarity.mean(axis=1)
                spreads["similarity_by_patch"] = found.similarity.mean(axis=0)
            for name, values in spreads.items():
                for kind, value in (("mean", values.mean()), ("min", values.min()), ("max", values.max())):
                    self._add(f"{role}/{name}_{kind}", float(value), step)
                self._add(f"{role}/{name}_std", float(values.std()), step)
            for frame in diagnostics.evenly(frames, _PICTURES):
                image, target, _ = diagnostics.predict(state, frame)
                pair = torch.cat([target[0].clamp(0, 1), image[0]], dim=1).cpu().numpy()
                self.writer.add_image(f"{role}/frame_{frame}", pair, step, dataformats="HWC")
        if len(means) == 2:
            self._add("quality/fitted_less_held_out", means["fitted"] - means["held_out"], step)
        with diagnostics.Activations(state.running) as activations:
            diagnostics.predict(state, int(state.fitted_frames[0]))
        for name, statistics in activations.found.items():
            for kind, value in statistics.items():
                self._add(f"activations/{name}_{kind}", value, step)
        for part, members in diagnostics.by_part(state.field).items():
            flat = torch.cat([p.detach().reshape(-1) for p in members])
            self.writer.add_histogram(f"weights/{part}", flat[:: max(1, len(flat) // 50_000)].cpu().numpy(), step)
