# SPDX-License-Identifier: MIT
"""Drawing progress on stderr: rich bars in a terminal, plain lines elsewhere, and orderly stops on a signal."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from nervcodec.cli.interrupts import handled
from nervcodec.cli.output import one_line, remark
from nervcodec.events import EvaluationEvent, FileEvent, Observer, StepEvent, WholeEvent, WorkEvent
from nervcodec.formats.names import shortened

if TYPE_CHECKING:
    from rich.progress import TaskID

_PLAIN_EVERY_S = 10.0
_FITTING = "Fitting"
_NAME_WIDTH = 30  # of a file beside a bar
_SHOWN_S = 0.5  # the least that is not shown as nothing


class ProgressObserver(Observer):
    """A context manager that is also an observer. Once a fit has begun, the first SIGINT or SIGTERM asks it to end.

    Before that, when there is nothing to keep, and the second time, the signal raises KeyboardInterrupt as usual.
    """

    def __init__(self) -> None:
        self._current = ""
        self._whole: WholeEvent | None = None
        self._file: FileEvent | None = None
        self._work: WorkEvent | None = None
        self._something_to_keep = self._stop = False
        self._handling = contextlib.ExitStack()

    def __enter__(self) -> ProgressObserver:
        self._handling.enter_context(handled(self._interrupt))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handling.close()

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop or not self._something_to_keep:
            raise KeyboardInterrupt
        self._stop = True
        kept = "the best state so far will be written" if self._work is None else "what is finished is kept"
        self.note(f"stopping; {kept} (once more to give up)")

    def stop_requested(self) -> bool:
        return self._stop

    def file(self, event: FileEvent) -> None:
        self._file, self._whole, self._something_to_keep = event, None, False

    def work(self, event: WorkEvent) -> None:
        self._work = event

    def stage(self, name: str, total: int | None = None) -> None:
        self._current = name

    def whole(self, event: WholeEvent) -> None:
        self._whole = event

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

    def file(self, event: FileEvent) -> None:
        super().file(event)
        self._say(shortened(event.name))

    def stage(self, name: str, total: int | None = None) -> None:
        super().stage(name, total)
        self._total, self._count, self._next = total, 0, self._clock() + _PLAIN_EVERY_S
        self._say(f"{name}{f' ({total})' if total else ''} ...")

    def work(self, event: WorkEvent) -> None:
        super().work(event)
        if self._due():
            self._say(f"Encoding: {describe_work(event)}")

    def advance(self, count: int = 1) -> None:
        self._count += count
        if self._due() and self._total:
            self._say(f"{self._current}: {self._count} of {self._total}")

    def step(self, event: StepEvent) -> None:
        if self._due() or event.fraction >= 1:
            self._say(describe(event))

    def _say(self, line: str) -> None:
        place = "; ".join(filter(None, [describe_file(self._file, self._whole), describe_whole(self._whole)]))
        print(f"{line}{f' ({place})' if place else ''}", file=sys.stderr, flush=True)

    def _due(self) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + _PLAIN_EVERY_S
        return True


def describe(event: StepEvent) -> str:
    """One line on the state of a fit."""
    psnr = "" if math.isnan(event.psnr_db) else f", PSNR {event.psnr_db:.2f} dB"
    semantic = "" if event.semantic_loss is None else f", semantic {event.semantic_loss:.3f}"
    return (
        f"Fitting: {event.fraction:4.0%}, step {event.step}{psnr}{semantic}{_rate(event)}, "
        f"{event.elapsed_s:.0f} s, {_left_s(event):.0f} s left"
    )


def _rate(event: StepEvent) -> str:
    """Bits per pixel, where they are foreseen."""
    return f", {event.rate_bpp:.4f} bpp" if event.rate_bpp else ""


def _left_s(event: StepEvent) -> float:
    return event.elapsed_s * (1 - event.fraction) / event.fraction if event.fraction > 0 else math.nan


def clock(seconds: float) -> str:
    """A time as 0:07, 12:30 or 1:02:03; a question mark where it is not known."""
    if math.isnan(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe_whole(event: WholeEvent | None) -> str:
    """How far a video of several segments is, in a few words; nothing for one of a single segment."""
    if event is None or event.segment_count == 1:
        return ""
    place = "shared by all" if event.segment is None else f"segment {event.segment + 1} of {event.segment_count}"
    return place if math.isnan(event.left_s) else f"{place}, {event.fraction:.0%} of all, {clock(event.left_s)} left"


def describe_file(event: FileEvent | None, whole: WholeEvent | None) -> str:
    """How far an encode of several files is, in a few words; nothing for one alone."""
    if event is None:
        return ""
    left_s = all_left_s(event, whole)
    return f"file {event.number + 1} of {event.count}{'' if math.isnan(left_s) else f', {clock(left_s)} left for all'}"


def describe_work(event: WorkEvent) -> str:
    """How far workers are, in a few words."""
    files = f"{event.files_over} of {event.files} files, " if event.files > 1 else ""
    left = "" if math.isnan(event.left_s) else f", {event.fraction:.0%} of all, {clock(event.left_s)} left"
    return f"{files}{event.tasks} tasks done, {event.running} running{left}"


def all_left_s(event: FileEvent, whole: WholeEvent | None) -> float:
    """Seconds that this file and all after it will take, about; NaN where that is not known yet, or was too little."""
    left_s = event.later_s + (math.nan if whole is None else whole.left_s)
    return left_s if left_s >= _SHOWN_S else math.nan


class RichObserver(ProgressObserver):
    """Bars in a terminal: one for all files, one for a video of several segments, and one for each stage of work."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description:<17}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None
        self._all: TaskID | None = None
        self._files: TaskID | None = None

    def __enter__(self) -> RichObserver:
        super().__enter__()
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        super().__exit__(kind, error, trace)

    def file(self, event: FileEvent) -> None:
        super().file(event)
        for task in self._progress.tasks:
            if task.id != self._files:
                self._progress.remove_task(task.id)
        self._all = self._task = None
        if self._files is None:
            self._files = self._progress.add_task("All files", total=event.count, detail="", left="")
        self._show_files(event, 0.0)

    def _show_files(self, event: FileEvent, done: float) -> None:
        from rich.markup import escape

        assert self._files is not None
        left_s = all_left_s(event, self._whole)
        left = "" if math.isnan(left_s) else f"{clock(left_s)} left"
        detail = f"{event.number + 1}/{event.count} {shortened(event.name, _NAME_WIDTH)}"
        self._progress.update(self._files, completed=event.number + done, detail=escape(detail), left=left)

    def stage(self, name: str, total: int | None = None) -> None:
        super().stage(name, total)
        if self._task is not None and (self._all is not None or self._files is not None):
            self._progress.remove_task(self._task)  # hours of video have thousands of stages
        steps = 1.0 if name.startswith(_FITTING) else total
        self._task = self._progress.add_task(name, total=steps, detail="", left="")

    def advance(self, count: int = 1) -> None:
        if self._task is not None:
            task = next(task for task in self._progress.tasks if task.id == self._task)
            self._progress.update(self._task, advance=count, detail=f"{int(task.completed) + count} of {task.total:g}")

    def whole(self, event: WholeEvent) -> None:
        super().whole(event)
        if self._file is not None:
            self._show_files(self._file, 0.0 if math.isnan(event.fraction) else event.fraction)
        if event.segment_count == 1 or math.isnan(event.left_s):
            return
        if self._all is None:
            self._all = self._progress.add_task("Whole video", total=1.0, detail="", left="")
        place = "shared" if event.segment is None else f"{event.segment + 1}/{event.segment_count}"
        self._progress.update(self._all, completed=event.fraction, detail=place, left=f"{clock(event.left_s)} left")

    def work(self, event: WorkEvent) -> None:
        super().work(event)
        if self._task is not None:
            left = "" if math.isnan(event.left_s) else f"{clock(event.left_s)} left"
            files = f"{event.files_over}/{event.files} files, " if event.files > 1 else ""
            detail = f"{files}{event.tasks} tasks done, {event.running} running"
            self._progress.update(self._task, total=1.0, completed=event.fraction, detail=detail, left=left)

    def step(self, event: StepEvent) -> None:
        if self._task is None:
            return
        detail = "" if math.isnan(event.psnr_db) else f"{event.psnr_db:5.2f} dB{_rate(event)}"
        self._progress.update(self._task, completed=event.fraction, detail=detail, left=f"{clock(_left_s(event))} left")

    def note(self, text: str) -> None:
        self._progress.console.print(f"nervcodec: {one_line(text)}", markup=False, highlight=False)


def observer(quiet: bool) -> ProgressObserver:
    """The observer that suits stderr."""
    if quiet:
        return QuietObserver()
    return RichObserver() if sys.stderr.isatty() else PlainObserver()
