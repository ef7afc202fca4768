# SPDX-License-Identifier: MIT
"""Drawing progress on stderr: rich bars in a terminal, plain lines elsewhere, and orderly stops on a signal."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from nervcodec.cli.output import one_line, remark
from nervcodec.events import EvaluationEvent, Observer, StepEvent

if TYPE_CHECKING:
    from rich.progress import TaskID

_PLAIN_EVERY_S = 10.0
_FITTING = "Fitting"


class ProgressObserver(Observer):
    """A context manager that is also an observer. Once a fit has begun, the first SIGINT or SIGTERM asks it to end.

    Before that, when there is nothing to keep, and the second time, the signal raises KeyboardInterrupt as usual.
    """

    def __init__(self) -> None:
        self._current = ""
        self._something_to_keep = self._stop = False
        self._previous: dict[int, Any] = {}  # handlers, in the kinds that signal knows

    def __enter__(self) -> ProgressObserver:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop or not self._something_to_keep:
            raise KeyboardInterrupt
        self._stop = True
        self.note("stopping; the best state so far will be written (once more to give up)")

    def stop_requested(self) -> bool:
        return self._stop

    def stage(self, name: str, total: int | None = None) -> None:
        self._current = name

    def worth_keeping(self) -> None:
        self._something_to_keep = True

    def note(self, text: str) -> None:
        remark(text)

    def hint(self, text: str) -> None:
        self.note(text)

    def evaluated(self, event: EvaluationEvent) -> None:
        held_out = "" if event.held_out_db is None else f", held out {event.held_out_db:.2f} dB"
        self.note(f"epoch {event.epoch}: fitted {event.fitted_db:.2f} dB{held_out}")


class QuietObserver(ProgressObserver):
    """Only notes: what a user should know of, and nothing else."""

    def evaluated(self, event: EvaluationEvent) -> None:
        """Not said: it is progress."""

    def hint(self, text: str) -> None:
        """Not said: it is no warning."""


class PlainObserver(ProgressObserver):
    """A line when a stage begins and one every ten seconds, for logs and pipes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._clock = clock
        self._next = 0.0

    def stage(self, name: str, total: int | None = None) -> None:
        super().stage(name, total)
        self._total, self._count, self._next = total, 0, self._clock() + _PLAIN_EVERY_S
        print(f"{name}{f' ({total})' if total else ''} ...", file=sys.stderr, flush=True)

    def advance(self, count: int = 1) -> None:
        self._count += count
        if self._due() and self._total:
            print(f"{self._current}: {self._count} of {self._total}", file=sys.stderr, flush=True)

    def step(self, event: StepEvent) -> None:
        if self._due() or event.fraction >= 1:
            print(describe(event), file=sys.stderr, flush=True)

    def _due(self) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + _PLAIN_EVERY_S
        return True


def describe(event: StepEvent) -> str:
    """One line on the state of a fit."""
    segment = f"segment {event.segment + 1} of {event.segment_count}, " if event.segment_count > 1 else ""
    left = event.elapsed_s * (1 - event.fraction) / event.fraction if event.fraction > 0 else math.nan
    psnr = "" if math.isnan(event.psnr_db) else f"PSNR {event.psnr_db:.2f} dB, "
    semantic = "" if event.semantic_loss is None else f"semantic {event.semantic_loss:.3f}, "
    return (
        f"Fitting: {segment}{event.fraction:4.0%}, step {event.step}, {psnr}{semantic}"
        f"{event.rate_bpp:.4f} bpp, {event.elapsed_s:.0f} s, {left:.0f} s left"
    )


class RichObserver(ProgressObserver):
    """Bars in a terminal."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description:<17}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> RichObserver:
        super().__enter__()
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        super().__exit__(kind, error, trace)

    def stage(self, name: str, total: int | None = None) -> None:
        super().stage(name, total)
        self._task = self._progress.add_task(name, total=1.0 if name == _FITTING else total, detail="")

    def advance(self, count: int = 1) -> None:
        if self._task is not None:
            task = self._progress.tasks[self._task]
            self._progress.update(self._task, advance=count, detail=f"{int(task.completed) + count} of {task.total:g}")

    def step(self, event: StepEvent) -> None:
        if self._task is None:
            return
        detail = "" if math.isnan(event.psnr_db) else f"{event.psnr_db:5.2f} dB {event.rate_bpp:.4f} bpp"
        if event.segment_count > 1:
            detail = f"{event.segment + 1}/{event.segment_count} {detail}"
        self._progress.update(self._task, completed=event.fraction, detail=detail)

    def note(self, text: str) -> None:
        self._progress.console.print(f"nervcodec: {one_line(text)}", markup=False, highlight=False)


def observer(quiet: bool) -> ProgressObserver:
    """The observer that suits stderr."""
    if quiet:
        return QuietObserver()
    return RichObserver() if sys.stderr.isatty() else PlainObserver()
