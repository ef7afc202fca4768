# SPDX-License-Identifier: MIT
"""What long-running work reports. The library calls an observer; drawing is somebody else's business."""

from __future__ import annotations

from dataclasses import dataclass

SECONDS, PASSES = "s", "passes"


@dataclass(frozen=True)
class StepEvent:
    """Progress of the fit of one segment, sent a few times a second.

    Attributes:
        segment, segment_count: which of how many, from 0.
        fraction: of this fit's budget that is used, 0 to 1.
        step: optimiser steps so far.
        elapsed_s: seconds of fitting so far.
        psnr_db: of the latest batches, smoothed, as the fit sees them: rounded in its last part. NaN before the first.
        rate_bpp: bits per pixel this segment's weights will take.
        semantic_loss: latest, or None while only pixels are fitted.
        total: the budget of this fit.
        unit: of the budget, :data:`SECONDS` or :data:`PASSES` over the frames.
    """

    segment: int
    segment_count: int
    fraction: float
    step: int
    elapsed_s: float
    psnr_db: float
    rate_bpp: float
    semantic_loss: float | None
    total: float
    unit: str


@dataclass(frozen=True)
class EvaluationEvent:
    """Quality during a fit, over up to 16 frames of either kind, as the fit sees them: rounded in its last part.

    Attributes:
        epoch: passes over the segment so far.
        fitted_db: mean PSNR of fitted frames.
        held_out_db: the same of held-out frames, or None where there are none.
    """

    epoch: int
    fitted_db: float
    held_out_db: float | None


@dataclass(frozen=True)
class FileEvent:
    """Work on one of several files begins.

    Attributes:
        number: which of those that there is something to do for, from 0.
        count: how many those are.
        name: of its source, as it was found.
    """

    number: int
    count: int
    name: str


@dataclass(frozen=True)
class WorkEvent:
    """How far workers are with several files, or the segments of one.

    Attributes:
        files_over, files: that are done or have failed, of how many.
        tasks: that are done.
        running: tasks now.
        done: files that are done; those under way count as the fraction of their tasks that is done.
    """

    files_over: int
    files: int
    tasks: int
    running: int
    done: float


class Observer:
    """Receives progress; this base class ignores it. Override what you want to see."""

    def file(self, event: FileEvent) -> None:
        """Work on one of several files begins: what was worth keeping before is kept."""

    def work(self, event: WorkEvent) -> None:
        """Workers have gone on, or are still at it: several times a second."""

    def begin_segment(self, number: int, count: int) -> None:
        """Work on one of the segments of a video begins: which, from 0, of how many."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A stage of work begins, with a number of things to do where that is known."""

    def worth_keeping(self) -> None:
        """From here on there is something to keep when a user wants to stop."""

    def advance(self, count: int = 1) -> None:
        """Some of the current stage's things are done."""

    def step(self, event: StepEvent) -> None:
        """The fit moved on."""

    def evaluated(self, event: EvaluationEvent) -> None:
        """The fit was measured in between, as its settings ask for."""

    def note(self, text: str) -> None:
        """One line that a user should read, such as why a fallback was taken."""

    def hint(self, text: str) -> None:
        """One line of advice: nothing is wrong, another way may serve better."""

    def stop_requested(self) -> bool:
        """True asks the fit to end at the next step and keep what it has."""
        return False
