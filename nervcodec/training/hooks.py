# SPDX-License-Identifier: MIT
"""What goes on beside a fit without changing it: progress, checkpoints, a log. The loop calls, hooks look."""

from __future__ import annotations

from collections.abc import Sequence

from nervcodec.events import EvaluationEvent, Observer, StepEvent
from nervcodec.training import look
from nervcodec.training.checkpoint import Checkpoint
from nervcodec.training.facts import StepFacts, psnr_db
from nervcodec.training.state import FitState

_EVALUATED = 16  # frames of either kind


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
            float(look.quality(state, look.evenly(frames, _EVALUATED)).frame_psnr_db.mean()) if len(frames) else None
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


class CheckpointHook(Hook):
    """Keeps the state of the fit on disk, at most once a minute."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint

    def measured(self, state: FitState, facts: StepFacts, done: float) -> None:
        self._checkpoint.save_if_due(state.to_dict)
