# SPDX-License-Identifier: MIT
"""Progress events. The library calls an observer; the command line displays them."""

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
        psnr_db: of the latest batches, smoothed; of quantized weights in the last part of the fit. NaN at first.
        rate_bpp: expected bits per pixel of this segment's weights.
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
    """Quality during a fit, over up to 16 fitted and 16 held-out frames, quantized in its last part.

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
        number: of the file among those with work to do, from 0.
        count: number of those.
        name: of its source.
    """

    number: int
    count: int
    name: str


@dataclass(frozen=True)
class WorkEvent:
    """Progress of workers on several files, or on the segments of one.

    Attributes:
        files_over, files: finished or failed files, and all.
        tasks: finished tasks.
        running: current tasks.
        done: finished files; those in progress count as the finished fraction of their tasks.
        sources: of running tasks.
    """

    files_over: int
    files: int
    tasks: int
    running: int
    done: float
    sources: tuple[str, ...] = ()


class Observer:
    """Receives progress events; this base class ignores them. Override the methods you need."""

    def file(self, event: FileEvent) -> None:
        """Work on one of several files begins; results of earlier ones are kept."""

    def work(self, event: WorkEvent) -> None:
        """Progress of workers, several times a second."""

    def begin_segment(self, number: int, count: int) -> None:
        """Work on a segment begins: its number, from 0, and the number of segments."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A stage of work begins, with its number of items where that is known."""

    def partial_result_ready(self) -> None:
        """From now on an early stop keeps a partial result."""

    def advance(self, count: int = 1) -> None:
        """Items of the current stage were finished."""

    def step(self, event: StepEvent) -> None:
        """Progress of the fit."""

    def evaluated(self, event: EvaluationEvent) -> None:
        """The fit was evaluated, as its settings request."""

    def note(self, text: str) -> None:
        """One line for the user, such as the reason of a fallback."""

    def hint(self, text: str) -> None:
        """One line of advice on a better option."""

    def stop_requested(self) -> bool:
        """Return True to end the fit at the next step and keep the result so far."""
        return False
