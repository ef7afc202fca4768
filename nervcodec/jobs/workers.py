# SPDX-License-Identifier: MIT
"""Where tasks run on this machine: in this process, or in worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nervcodec.events import EvaluationEvent, Observer, StepEvent
from nervcodec.threads import abandoned_readers

if TYPE_CHECKING:
    from nervcodec.encoding.pipeline import TaskRunner

MakeRunner = Callable[[Observer, bool], "TaskRunner"]


class Done(NamedTuple):
    """A task that ended.

    Attributes:
        key: by which it was submitted.
        value: its result; None where it failed.
        error: why it failed, or None.
    """

    key: Any
    value: Any = None
    error: BaseException | None = None


class WorkerLostError(Exception):
    """The worker of a task died."""


class Executor(Protocol):
    """Runs tasks.

    Attributes:
        slots: tasks that run at once.
        one_by_one: tasks run in order on this machine, can be asked to stop, and report all progress.
        is_remote: tasks may run on other machines.
        running: tasks that were submitted and have not ended.
    """

    slots: int
    one_by_one: bool
    is_remote: bool

    @property
    def running(self) -> int: ...

    def submit(self, key: Hashable, kind: str, arguments: tuple[Any, ...]) -> None:
        """Run a task.

        Args:
            key: of the task, which has a method ``kind`` of :class:`nervcodec.encoding.pipeline.TaskRunner`.
            kind, arguments: the method and what it takes.
        """

    def next_done(self, within_s: float) -> Done | None:
        """A task that ended; None where none does in this time."""

    def progress(self) -> dict[Any, float]:
        """Fractions of running tasks that are done, by key, as far as they are known."""

    def stop(self) -> None:
        """Ask running tasks to end early."""

    def close(self) -> None:
        """End all workers at once."""


class ThisProcess:
    """Runs tasks in this process, each while its end is waited for."""

    slots, one_by_one, is_remote = 1, True, False

    def __init__(self, observer: Observer):
        from nervcodec.encoding.pipeline import TaskRunner

        self._runner = TaskRunner(observer)
        self._submitted: list[tuple[Hashable, str, tuple[Any, ...]]] = []

    @property
    def running(self) -> int:
        return len(self._submitted)

    def submit(self, key: Hashable, kind: str, arguments: tuple[Any, ...]) -> None:
        self._submitted.append((key, kind, arguments))

    def next_done(self, within_s: float) -> Done | None:
        key, kind, arguments = self._submitted.pop()
        try:
            return Done(key, self._runner.run(kind, *arguments))
        except Exception as error:
            return Done(key, error=error)

    def progress(self) -> dict[Any, float]:
        return {}

    def stop(self) -> None:
        """The task itself checks its observer."""

    def close(self) -> None:
        self._runner.close()


class LocalWorkers:
    """Runs tasks in worker processes of this machine; one that dies or hangs is replaced when it is needed.

    Each worker is a pool of its own, so that the death of one does not touch the others.

    Args:
        count: of workers. Each has its share of the cores, one worker as many threads as this process would have.
        observer: told of all progress of a single worker, and of the notes of several.
        make_runner: of the object whose methods are the tasks, in each worker; importable.
    """

    is_remote = False

    def __init__(self, count: int, observer: Observer, make_runner: MakeRunner | None = None):
        threads = None if count == 1 else max(1, core_count() // count)
        self.slots, self.one_by_one = count, count == 1
        self._workers = [_Worker(observer, threads, count > 1, make_runner) for _ in range(count)]

    @property
    def running(self) -> int:
        return sum(worker.future is not None for worker in self._workers)

    def submit(self, key: Hashable, kind: str, arguments: tuple[Any, ...]) -> None:
        next(worker for worker in self._workers if worker.future is None).submit(key, kind, arguments)

    def next_done(self, within_s: float) -> Done | None:
        busy = {worker.future: worker for worker in self._workers if worker.future is not None}
        ended, _ = futures.wait(busy, within_s, futures.FIRST_COMPLETED)
        for worker in busy.values():
            worker.forward()
        return busy[next(iter(ended))].take() if ended else None

    def progress(self) -> dict[Any, float]:
        return {worker.key: worker.fraction for worker in self._workers if worker.future is not None}

    def stop(self) -> None:
        for worker in self._workers:
            worker.send_stop()

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()


class _Worker:
    """A worker process, which starts with its first task.

    Attributes:
        key, future: of the task that runs; future None where none does.
        fraction: of that task that is done.
    """

    def __init__(self, observer: Observer, threads: int | None, is_one_of_many: bool, make_runner: MakeRunner | None):
        self._observer, self._is_one_of_many = observer, is_one_of_many
        self._settings = threads, is_one_of_many, make_runner
        self._pool: futures.ProcessPoolExecutor | None = None
        self._process: BaseProcess | None = None
        self._channel: Connection | None = None
        self._is_stuck = self._is_stopping = False
        self.key: Hashable = None
        self.future: futures.Future[Any] | None = None
        self.fraction, self._count, self._total = 0.0, 0, 0

    def submit(self, key: Hashable, kind: str, arguments: tuple[Any, ...]) -> None:
        self.key, self.fraction, self._total = key, 0.0, 0
        if self._pool is not None:
            self.future = self._pool.submit(_run, kind, arguments)
            return
        spawn = multiprocessing.get_context("spawn")
        self._channel, theirs = spawn.Pipe()
        self._is_stuck, others = False, multiprocessing.active_children()
        self._pool = futures.ProcessPoolExecutor(1, spawn, _initialize, (theirs, *self._settings))
        with _signals_blocked():
            self.future = self._pool.submit(_run, kind, arguments)
        (self._process,) = (child for child in multiprocessing.active_children() if child not in others)
        theirs.close()
        if self._is_stopping:
            self.send_stop()

    def forward(self) -> None:
        """Pass on what the worker reported."""
        with contextlib.suppress(EOFError, OSError):  # it died
            while self._channel is not None and self._channel.poll():
                name, arguments = self._channel.recv()
                self._take_event(name, arguments)

    def _take_event(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "stuck":
            self._is_stuck = True
        elif not self._is_one_of_many or name in ("note", "hint", "evaluated"):
            getattr(self._observer, name)(*arguments)
        if name == "step":
            self.fraction = max(self.fraction, arguments[0].fraction)
        elif name == "stage":
            self._count, self._total = 0, arguments[1] or 0
        elif name == "advance" and self._total:
            self._count += arguments[0]
            self.fraction = max(self.fraction, min(self._count / self._total, 1.0))

    def take(self) -> Done:
        """The result of the task that ended."""
        future, self.future = self.future, None
        assert future is not None
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            self.kill()
            return Done(self.key, error=WorkerLostError())
        self.forward()
        if self._is_stuck:
            self.kill()
        return Done(self.key, error=error) if error is not None else Done(self.key, future.result())

    def send_stop(self) -> None:
        self._is_stopping = True
        if self._channel is not None:
            with contextlib.suppress(OSError):  # it died
                self._channel.send(None)

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._pool is not None and self._process is not None and self._channel is not None:
            self._process.kill()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._channel.close()
        self._pool = self._process = self._channel = self.future = None


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Around the start of a worker, which inherits this: Ctrl-C in a terminal goes to all processes."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------ in the worker


class _ChannelObserver(Observer):
    """Reports to the process that submits tasks."""

    def __init__(self, channel: Connection):
        self._channel, self._sending, self._stop = channel, threading.Lock(), threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Wait for a request to stop; the end of the other process is the end of this one."""
        try:
            while True:
                self._channel.recv()
                self._stop.set()
        except (EOFError, OSError):
            os._exit(1)

    def send(self, name: str, *arguments: object) -> None:
        with self._sending, contextlib.suppress(OSError):  # the other process ended
            self._channel.send((name, arguments))

    def begin_segment(self, number: int, count: int) -> None:
        self.send("begin_segment", number, count)

    def stage(self, name: str, total: int | None = None) -> None:
        self.send("stage", name, total)

    def worth_keeping(self) -> None:
        self.send("worth_keeping")

    def advance(self, count: int = 1) -> None:
        self.send("advance", count)

    def step(self, event: StepEvent) -> None:
        self.send("step", event)

    def evaluated(self, event: EvaluationEvent) -> None:
        self.send("evaluated", event)

    def note(self, text: str) -> None:
        self.send("note", text)

    def hint(self, text: str) -> None:
        self.send("hint", text)

    def stop_requested(self) -> bool:
        return self._stop.is_set()


_observer: _ChannelObserver
_runner: TaskRunner


def _initialize(channel: Connection, threads: int | None, seeks: bool, make_runner: MakeRunner | None) -> None:
    """Prepare a worker process. A terminal sends signals to all processes; the one that submits tasks handles them."""
    global _observer, _runner
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _observer = _ChannelObserver(channel)
    if threads is not None:
        from nervcodec.device import set_threads

        set_threads(threads)
    from nervcodec.encoding.pipeline import TaskRunner

    _runner = (make_runner or TaskRunner)(_observer, seeks)


def _run(kind: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return _runner.run(kind, *arguments)
    finally:
        if abandoned_readers():
            _observer.send("stuck")
