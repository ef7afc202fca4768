# SPDX-License-Identifier: MIT
"""The training loop: fits one network to one segment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nervcodec.errors import ConfigError, DivergedError
from nervcodec.events import Observer
from nervcodec.network.field import Field
from nervcodec.training.hooks import Hook
from nervcodec.training.losses import StepMetrics, psnr_db
from nervcodec.training.state import ROLLBACK_LR_FACTOR, FitState
from nervcodec.training.step import Stepper

MEASURE_EVERY_S = 0.25
_MARGIN_DB = 1.0  # by which the averaged weights may be better than the latest batches
_EVALUATION_SHARE = 9.0  # the pause after an evaluation of the stored network, in multiples of its duration
_AVERAGE_SHARE = 0.02  # averaging window of the weights, as a fraction of the fit
_SMOOTHING = 0.8  # of the squared error, from one measured step to the next

# From a field and its quantization steps to the PSNR in dB that the stored network has.
Evaluator = Callable[[Field, dict[str, np.ndarray]], float]


@dataclass(frozen=True)
class FitResult:
    """Result of a fit.

    Attributes:
        steps: optimizer steps.
        elapsed_s: seconds.
        complete: False where it was stopped before its budget was used.
        quantization_steps: for each tensor to be stored quantized, ``(C,)`` by the second axis or ``(1,)``.
    """

    steps: int
    elapsed_s: float
    complete: bool
    quantization_steps: dict[str, np.ndarray]


class TrainingLoop:
    """Runs a fit.

    Args:
        state: of a new fit, or of one to continue.
        observer: gets notes; may request a stop.
        hooks: called as the fit proceeds.
        evaluator: needed where the settings state a target PSNR.
        measure_every_s: seconds between measured steps.
        clock: seconds.

    Raises:
        ConfigError: a target PSNR without an evaluator.
    """

    def __init__(
        self,
        state: FitState,
        observer: Observer | None = None,
        hooks: Sequence[Hook] = (),
        evaluator: Evaluator | None = None,
        measure_every_s: float = MEASURE_EVERY_S,
        clock: Callable[[], float] = time.perf_counter,
    ):
        if state.config.psnr_db is not None and evaluator is None:
            raise ConfigError("a PSNR to reach needs something that measures it")
        self.state, self._observer, self._hooks, self._evaluator = state, observer or Observer(), hooks, evaluator
        self._measure_every_s, self._next_evaluation_s, self._clock = measure_every_s, 0.0, clock
        self._stepper = Stepper(state, self._observer.note)

    def run(self) -> FitResult:
        """Fit until the budget is used or the observer requests a stop; the field holds the result.

        After an early stop it holds the averaged weights, which are better than the last weights while the learning
        rate is still high.

        Raises:
            DivergedError: the loss is not finite.
        """
        try:
            return self._run()
        finally:
            self._stepper.close()

    def _run(self) -> FitResult:
        state = self.state
        state.smoothed_mse, next_measure_s, complete = math.nan, 0.0, True
        start = self._clock() - state.elapsed_s
        while True:
            state.elapsed_s = self._clock() - start
            progress = state.budget(state.elapsed_s)[0]
            if progress >= 1:
                break
            if self._observer.stop_requested():
                complete = False
                break
            metrics = self._stepper.take(state.batches.next(), progress, state.elapsed_s >= next_measure_s)
            for hook in self._hooks:
                hook.stepped(state)
            state.average.update(state.steps, _AVERAGE_SHARE * state.steps / max(progress, 1e-6))
            if metrics is None or not self._check_quality(metrics):
                continue
            next_measure_s = state.elapsed_s + self._measure_every_s
            for hook in self._hooks:
                hook.measured(state, metrics, progress)
            if self._has_reached_target(start):
                break
        if not complete and state.steps:
            state.average.swap()
        if not state.is_finite():
            self._roll_back(math.nan)
        state.elapsed_s = self._clock() - start
        for hook in self._hooks:
            hook.ended(state, 1.0 if complete else state.budget(state.elapsed_s)[0])
        return FitResult(state.steps, state.elapsed_s, complete, state.quantization_steps())

    def _check_quality(self, metrics: StepMetrics) -> bool:
        """Smooth the squared error; rolls back and returns False where the fit has diverged."""
        state, mse = self.state, metrics.mse
        before = state.smoothed_mse
        state.smoothed_mse = mse if math.isnan(before) else _SMOOTHING * before + (1 - _SMOOTHING) * mse
        quality = psnr_db(state.smoothed_mse)
        if state.guard.has_diverged(quality):
            self._roll_back(mse)
            state.smoothed_mse = math.nan
            return False
        state.guard.save(state.learned(), quality, state.elapsed_s)
        return True

    def _roll_back(self, mse: float) -> None:
        """Return to the last good weights and continue with half the learning rate.

        Raises:
            DivergedError: there are none, or the limit of rollbacks is reached.
        """
        state = self.state
        if not state.guard.can_roll_back:
            raise DivergedError(f"the fit diverged at step {state.steps} (loss is {mse}); try a lower --lr")
        state.guard.roll_back()
        state.optimizers.reset()
        state.average.reset()
        state.lr_scale *= ROLLBACK_LR_FACTOR
        self._observer.note(
            f"the fit diverged at step {state.steps}; back to the last good weights, "
            f"with {state.lr_scale:g} of the learning rate"
        )

    def _has_reached_target(self, start: float) -> bool:
        """Whether the target PSNR is reached; if so, the field holds the averaged weights, which have it."""
        state = self.state
        if not self._is_near_target() or state.elapsed_s < self._next_evaluation_s:
            return False
        assert self._evaluator is not None
        assert state.config.psnr_db is not None
        state.average.swap()
        if self._evaluator(state.field, state.quantization_steps()) >= state.config.psnr_db:
            return True
        state.average.swap()
        now = self._clock() - start
        self._next_evaluation_s = now + _EVALUATION_SHARE * (now - state.elapsed_s)
        return False

    def _is_near_target(self) -> bool:
        """Whether the target PSNR may be reached; starts quantization when it seems reached without."""
        state, target_db = self.state, self.state.config.psnr_db
        if target_db is None or math.isnan(state.smoothed_mse) or psnr_db(state.smoothed_mse) < target_db - _MARGIN_DB:
            return False
        if state.quantized is None and state.config.rounding_share:
            if psnr_db(state.smoothed_mse) >= target_db:
                state.start_quantization()
            return False
        return True
