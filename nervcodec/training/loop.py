# SPDX-License-Identifier: MIT
"""The loop: fit one network to one segment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nervcodec.errors import ConfigError, DivergedError
from nervcodec.network.field import Field
from nervcodec.training.hooks import Hook
from nervcodec.training.losses import StepFacts, psnr_db
from nervcodec.training.state import SLOWER, FitState, Safeguard
from nervcodec.training.step import Stepper

MEASURE_EVERY_S = 0.25
_NOISE_DB = 1.0  # a running mean of weights may be this much better than the batches that went by
_CHECK_SHARE = 9.0  # times what a measurement of the quantised network takes, until the next
_AVERAGE_OVER = 0.02  # the running mean of weights reaches back this fraction of the fit
_SMOOTHING = 0.8  # of the squared error, from one measured step to the next

# From a field and its quantisation steps to the PSNR in dB that it has as it would be stored.
Judge = Callable[[Field, dict[str, np.ndarray]], float]


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


class Loop:
    """Runs a fit.

    Args:
        state: a fit at its beginning, or one that goes on.
        hooks: told of what happens.
        judge: needed where the settings name a PSNR to reach.
        measure_every_s: seconds between steps that are measured.
        clock: seconds from any beginning.

    Raises:
        ConfigError: a PSNR to reach, and nothing that measures it.
    """

    def __init__(
        self,
        state: FitState,
        hooks: Hook | None = None,
        judge: Judge | None = None,
        measure_every_s: float = MEASURE_EVERY_S,
        clock: Callable[[], float] = time.perf_counter,
    ):
        if state.config.psnr_db is not None and judge is None:
            raise ConfigError("a PSNR to reach needs something that measures it")
        self.state, self._hooks, self._judge = state, hooks or Hook(), judge
        self._measure_every_s, self._next_check_s, self._clock = measure_every_s, 0.0, clock
        self._stepper = Stepper(state, self._hooks.note)

    def run(self) -> FitResult:
        """Fit until the budget is used or a hook asks to stop; the field holds the result.

        After an early stop it holds the running mean of the latest weights, which is better than the last weights
        while the learning rate is still high.

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
            done = state.done(state.elapsed_s)
            if done >= 1:
                break
            if self._hooks.stop_requested():
                complete = False
                break
            facts = self._stepper.take(state.batches.next(), done, state.elapsed_s >= next_measure_s)
            self._hooks.stepped(state)
            state.average.update(state.steps, _AVERAGE_OVER * state.steps / max(done, 1e-6))
            if facts is None:
                continue
            if not self._note_quality(facts):
                continue
            next_measure_s = state.elapsed_s + self._measure_every_s
            self._hooks.measured(state, facts, done)
            if self._has_reached_quality(start):
                break
        if not complete and state.steps:
            state.average.apply()
        if not Safeguard.all_finite(state.learned()):
            self._retreat(math.nan)
        state.elapsed_s = self._clock() - start
        self._hooks.ended(state, 1.0 if complete else state.done(state.elapsed_s))
        return FitResult(state.steps, state.elapsed_s, complete, state.rounding_steps())

    def _note_quality(self, facts: StepFacts) -> bool:
        """Follow the squared error; goes back to good weights, and tells so by False, where it has gone wrong."""
        state, mse = self.state, facts.mse
        before = state.smoothed_mse
        state.smoothed_mse = mse if math.isnan(before) else _SMOOTHING * before + (1 - _SMOOTHING) * mse
        quality = psnr_db(state.smoothed_mse)
        if state.safeguard.is_bad(quality):
            self._retreat(mse)
            state.smoothed_mse = math.nan
            return False
        state.safeguard.keep(state.learned(), quality, state.elapsed_s)
        return True

    def _retreat(self, mse: float) -> None:
        """Go back to the last good weights, and on from there with half the learning rate.

        Raises:
            DivergedError: there are none, or it has happened too often.
        """
        state = self.state
        if not state.safeguard.can_go_back:
            raise DivergedError(f"the fit diverged at step {state.steps} (loss is {mse}); try a lower --lr")
        state.safeguard.go_back()
        state.optimizers.forget()
        state.average.restart()
        state.lr_scale *= SLOWER
        self._hooks.note(
            f"the fit went astray at step {state.steps}; back to the last good weights, "
            f"at {state.lr_scale:g} of the rate"
        )

    def _has_reached_quality(self, start: float) -> bool:
        """Whether the PSNR asked for is there; if so, the field holds the running mean, which has it."""
        state = self.state
        if not self._is_nearly_good() or state.elapsed_s < self._next_check_s:
            return False
        assert self._judge is not None
        assert state.config.psnr_db is not None
        state.average.swap()
        if self._judge(state.field, state.rounding_steps()) >= state.config.psnr_db:
            return True
        state.average.swap()
        now = self._clock() - start
        self._next_check_s = now + _CHECK_SHARE * (now - state.elapsed_s)
        return False

    def _is_nearly_good(self) -> bool:
        """Whether the PSNR asked for may have been reached; begins to round weights when it seems so without."""
        state, wanted = self.state, self.state.config.psnr_db
        if wanted is None or math.isnan(state.smoothed_mse) or psnr_db(state.smoothed_mse) < wanted - _NOISE_DB:
            return False
        if state.rounded is None and state.config.rounding_share:
            if psnr_db(state.smoothed_mse) >= wanted:
                state.begin_rounding()
            return False
        return True
