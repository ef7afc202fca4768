# SPDX-License-Identifier: MIT
"""Drawing progress on stderr: rich bars in a terminal, plain lines elsewhere, and orderly stops on a signal."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from nervcodec.cli.output import one_line, remark
from nervcodec.events import EvaluationEvent, FileEvent, Observer, StepEvent, WorkEvent
from nervcodec.formats.text import count_noun, shorten

if TYPE_CHECKING:
    from rich.progress import TaskID

_PLAIN_EVERY_S = 10.0
_NAME_WIDTH = 30  # of a file beside a bar
_FILES, _SEGMENTS, _STAGE = "Files", "Segments", "stage"  # keys of the bars
_SPEED_OVER_S = 86_400.0  # a segment or a file may take long: the speed is that of all steps that rich remembers


@contextlib.contextmanager
def signal_handler(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a handler for SIGINT and SIGTERM, and restore the previous ones afterwards."""
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


class ProgressObserver(Observer):
    """An observer that is a context manager. The first SIGINT or SIGTERM during a fit ends it at its next step.

    Without a partial result to keep, and the second time, the signal raises KeyboardInterrupt as usual.
    """

    def __init__(self) -> None:
        self._stage, self._count = "", 0
        self._total: int | None = None
        self._by_workers = self._has_result = self._stop = False
        self._handling = contextlib.ExitStack()

    def __enter__(self) -> ProgressObserver:
        self._handling.enter_context(signal_handler(self._interrupt))
        return self

    def __exit__(self, *_: object) -> None:
        self._handling.close()

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop or not self._has_result:
            raise KeyboardInterrupt
        self._stop = True
        result = "finished segments are kept" if self._by_workers else "the best state so far will be written"
        self.note(f"stopping; {result} (once more to give up)")

    def stop_requested(self) -> bool:
        return self._stop

    def file(self, event: FileEvent) -> None:
        self._has_result = False

    def work(self, event: WorkEvent) -> None:
        self._by_workers = True

    def stage(self, name: str, total: int | None = None) -> None:
        self._stage, self._total, self._count = name, total, 0

    def advance(self, count: int = 1) -> None:
        self._count += count

    def partial_result_ready(self) -> None:
        self._has_result = True

    def note(self, text: str) -> None:
        remark(text)

    def hint(self, text: str) -> None:
        self.note(text)

    def evaluated(self, event: EvaluationEvent) -> None:
        held_out = "" if event.held_out_db is None else f", held out {event.held_out_db:.2f} dB"
        self.note(f"epoch {event.epoch}: fitted {event.fitted_db:.2f} dB{held_out}")


class QuietObserver(ProgressObserver):
    """Notes only."""

    def evaluated(self, event: EvaluationEvent) -> None:
        """Not shown: it is progress."""

    def hint(self, text: str) -> None:
        """Not shown: it is no warning."""


class PlainObserver(ProgressObserver):
    """A line when a stage begins and one every ten seconds, for logs and pipes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._clock = clock
        self._next = 0.0
        self._file = self._segment = ""

    def file(self, event: FileEvent) -> None:
        super().file(event)
        self._file, self._segment = f"file {event.number + 1} of {event.count}", ""
        self._say(shorten(event.name))

    def begin_segment(self, number: int, count: int) -> None:
        self._segment = f"segment {number + 1} of {count}" if count > 1 else ""

    def stage(self, name: str, total: int | None = None) -> None:
        super().stage(name, total)
        self._next = self._clock() + _PLAIN_EVERY_S
        self._say(f"{name}{f' ({total})' if total else ''} ...")

    def work(self, event: WorkEvent) -> None:
        super().work(event)
        if self._is_due():
            self._say(f"Encoding: {describe_work(event)}")

    def advance(self, count: int = 1) -> None:
        super().advance(count)
        if self._is_due() and self._total:
            self._say(f"{self._stage}: {self._count} of {self._total}")

    def step(self, event: StepEvent) -> None:
        if self._is_due() or event.fraction >= 1:
            self._say(f"Fitting: {describe(event)}")

    def _say(self, line: str) -> None:
        position = "; ".join(filter(None, [self._file, self._segment]))
        print(f"{line}{f' ({position})' if position else ''}", file=sys.stderr, flush=True)

    def _is_due(self) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + _PLAIN_EVERY_S
        return True


class RichObserver(ProgressObserver):
    """Bars in a terminal: one for all files, one for a video of several segments, and one for the stage of work."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.table import Column

        self.progress = Progress(
            TextColumn("{task.description:<17}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            console=Console(stderr=True),
            expand=True,
            transient=True,
            speed_estimate_period=_SPEED_OVER_S,
            get_time=clock,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> RichObserver:
        super().__enter__()
        self._handling.enter_context(self.progress)
        return self

    def file(self, event: FileEvent) -> None:
        super().file(event)
        self._remove(_SEGMENTS, _STAGE)
        detail = f"{event.number + 1}/{event.count} {shorten(event.name, _NAME_WIDTH)}"
        self._draw(_FILES, _FILES, event.count, event.number, detail)

    def begin_segment(self, number: int, count: int) -> None:
        if count > 1:
            self._draw(_SEGMENTS, _SEGMENTS, count, number, f"{number + 1}/{count}")

    def stage(self, name: str, total: int | None = None) -> None:
        super().stage(name, total)
        self._remove(_STAGE)
        self._draw(_STAGE, name, total)

    def advance(self, count: int = 1) -> None:
        super().advance(count)
        self._draw(_STAGE, self._stage, self._total, self._count, f"{self._count}/{self._total}")

    def work(self, event: WorkEvent) -> None:
        super().work(event)
        self._draw(_STAGE, self._stage, event.files, event.done, describe_work(event))

    def step(self, event: StepEvent) -> None:
        self._draw(_STAGE, self._stage, event.total, event.fraction * event.total, describe(event))

    def note(self, text: str) -> None:
        self.progress.console.print(f"nervcodec: {one_line(text)}", markup=False, highlight=False)

    def _draw(self, bar: str, name: str, total: float | None, completed: float = 0.0, detail: str = "") -> None:
        if bar not in self._bars:
            self._bars[bar] = self.progress.add_task(name, total=total, detail="")
        self.progress.update(self._bars[bar], total=total, completed=completed, detail=detail)

    def _remove(self, *bars: str) -> None:
        for bar in self._bars.keys() & set(bars):
            self.progress.remove_task(self._bars.pop(bar))


def describe(event: StepEvent) -> str:
    """The state of a fit: used budget, quality and rate."""
    used, total = (f"{n:.{int(n < 10 and n != int(n))}f}" for n in (event.fraction * event.total, event.total))
    parts = [f"{used}/{total} {event.unit}"]
    parts += [] if math.isnan(event.psnr_db) else [f"PSNR {event.psnr_db:.2f} dB"]
    parts += [f"{event.rate_bpp:.4f} bpp"] if event.rate_bpp else []
    parts += [] if event.semantic_loss is None else [f"semantic {event.semantic_loss:.3f}"]
    return ", ".join([*parts, f"step {event.step}"])


def describe_work(event: WorkEvent) -> str:
    """Finished files and tasks, and the sources of running tasks."""
    files = f"{event.files_over} of {event.files} files, " if event.files > 1 else ""
    names = f": {', '.join(shorten(name, _NAME_WIDTH) for name in event.sources)}" if event.sources else ""
    return f"{files}{count_noun(event.tasks, 'task')} done, {event.running} running{names}"


def observer(quiet: bool) -> ProgressObserver:
    """The observer for stderr: bars in a terminal, lines elsewhere, notes only if quiet."""
    if quiet:
        return QuietObserver()
    return RichObserver() if sys.stderr.isatty() else PlainObserver()
