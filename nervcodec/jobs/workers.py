# SPDX-License-Identifier: MIT
"""Where tasks run on this machine: in this process, or in worker processes."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nervcodec.errors import NervError
from nervcodec.events import EvaluationEvent, Observer, StepEvent
from nervcodec.threads import abandoned_readers

if TYPE_CHECKING:
    from nervcodec.encoding.pipeline import TaskRunner

SILENT_S = 60.0  # after which a worker that sends nothing is replaced
_ALIVE_EVERY_S = 5.0  # between messages of a worker
_EXIT_S = 5.0  # from the end of a worker's channel to that of its process
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
    """The worker of a task died, or did not respond."""


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
        atexit.register(self.close)  # before multiprocessing waits for its processes to end by themselves

    @property
    def running(self) -> int:
        return sum(worker.is_busy for worker in self._workers)

    def submit(self, key: Hashable, kind: str, arguments: tuple[Any, ...]) -> None:
        next(worker for worker in self._workers if not worker.is_busy).submit(key, kind, arguments)

    def next_done(self, within_s: float) -> Done | None:
        busy = {worker.channel: worker for worker in self._workers if worker.is_busy}
        start, elapsed_s = time.monotonic(), 0.0
        while elapsed_s < within_s:
            for channel in wait(list(busy), within_s - elapsed_s):
                if (done := busy[channel].receive()) is not None:  # type: ignore[index]
                    return done
            elapsed_s = time.monotonic() - start
        for worker in busy.values():
            worker.silent_s += within_s  # not the time between calls: this process may have been suspended
            if worker.silent_s > SILENT_S and worker.has_started:
                return worker.lost()
        return None

    def progress(self) -> dict[Any, float]:
        return {worker.key: worker.fraction for worker in self._workers if worker.is_busy}

    def stop(self) -> None:
        for worker in self._workers:
            worker.send_stop()

    def close(self) -> None:
        atexit.unregister(self.close)
        for worker in self._workers:
            worker.kill()


class _Worker:
    """A worker process, which starts with its first task.

    It is no pool of ``concurrent.futures``, whose semaphores leak when processes are killed.

    Attributes:
        channel: tasks and requests to stop go to the process, progress and results come back.
        key, is_busy: of the task that runs, and whether one does.
        fraction: of that task that is done.
        has_started: whether the process has sent anything.
        silent_s: waited for a message, of which a process sends one every few seconds.
    """

    channel: Connection

    def __init__(self, observer: Observer, threads: int | None, is_one_of_many: bool, make_runner: MakeRunner | None):
        self._observer, self._is_one_of_many = observer, is_one_of_many
        self._settings = threads, is_one_of_many, make_runner
        self._process: BaseProcess | None = None
        self._is_stopping = False
        self.key: Hashable = None
        self.is_busy = self.has_started = False
        self.fraction, self.silent_s, self._count, self._total = 0.0, 0.0, 0, 0

    def submit(self, key: Hashable, kind: str, arguments: tuple[Any, ...]) -> None:
        """Run a task.

        Raises:
            NervError: no process can be started.
        """
        if self._process is not None and not self._process.is_alive():
            self.kill()
        if self._process is None:
            self._start()
        self.key, self.is_busy, self.fraction, self.silent_s, self._total = key, True, 0.0, 0.0, 0
        with contextlib.suppress(OSError):  # it died: the next message from it is the end of the channel
            self.channel.send((kind, arguments))

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.channel, theirs = spawn.Pipe()
        process = spawn.Process(target=_work, args=(theirs, *self._settings))
        try:
            with _signals_blocked():
                process.start()
        except OSError as error:
            self.channel.close()
            raise NervError(f"a worker process cannot be started: {sys.executable} ({error.strerror})") from None
        finally:
            theirs.close()
        self._process, self.has_started = process, False
        if self._is_stopping:
            self.send_stop()

    def receive(self) -> Done | None:
        """Take what the process sent; returns the end of the task if that is among it.

        Raises:
            NervError: the process failed to start.
        """
        try:
            while self.channel.poll():
                name, arguments = self.channel.recv()
                self.has_started, self.silent_s = True, 0.0
                if name == "done":
                    return self._end(*arguments)
                self._take_event(name, arguments)
        except (EOFError, OSError):
            return self.lost()
        return None

    def _take_event(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "alive":
            return
        if not self._is_one_of_many or name in ("note", "hint", "evaluated"):
            getattr(self._observer, name)(*arguments)
        if name == "step":
            self.fraction = max(self.fraction, arguments[0].fraction)
        elif name == "stage":
            self._count, self._total = 0, arguments[1] or 0
        elif name == "advance" and self._total:
            self._count += arguments[0]
            self.fraction = max(self.fraction, min(self._count / self._total, 1.0))

    def _end(self, value: Any, error: Exception | None, details: str, is_stuck: bool) -> Done:
        self.is_busy = False
        if error is not None:
            error.__cause__ = RuntimeError(details)
        if is_stuck:
            self.kill()
        return Done(self.key, value, error)

    def lost(self) -> Done:
        """The end of a task whose process died or does not respond.

        Raises:
            NervError: the process failed to start.
        """
        assert self._process is not None
        if self.silent_s <= SILENT_S:
            self._process.join(_EXIT_S)
        status = self._process.exitcode
        self.kill()
        if not self.has_started and status is not None and status > 0:
            raise NervError(f"a worker process cannot be started: {sys.executable} (exit status {status})")
        return Done(self.key, error=WorkerLostError())

    def send_stop(self) -> None:
        self._is_stopping = True
        if self._process is not None:
            with contextlib.suppress(OSError):  # it died
                self.channel.send(None)

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self.channel.close()
        self._process, self.is_busy = None, False


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
    """Reports to the process that submits tasks, and receives its messages in a thread.

    Attributes:
        tasks: method and arguments of those that were received.
    """

    def __init__(self, channel: Connection):
        self._channel, self._sending, self._stop = channel, threading.Lock(), threading.Event()
        self.tasks: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Wait for tasks and a request to stop; the end of the other process is the end of this one."""
        try:
            while True:
                self.send("alive")
                if self._channel.poll(_ALIVE_EVERY_S):
                    if (task := self._channel.recv()) is None:
                        self._stop.set()
                    else:
                        self.tasks.put(task)
        except (EOFError, OSError):
            os._exit(1)

    def send(self, name: str, *arguments: object) -> None:
        with self._sending, contextlib.suppress(OSError):  # the other process ended
            self._channel.send((name, arguments))

    def begin_segment(self, number: int, count: int) -> None:
        self.send("begin_segment", number, count)

    def stage(self, name: str, total: int | None = None) -> None:
        self.send("stage", name, total)

    def partial_result_ready(self) -> None:
        self.send("partial_result_ready")

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


def _work(channel: Connection, threads: int | None, seeks: bool, make_runner: MakeRunner | None) -> None:
    """Run tasks until the other process ends. A terminal sends signals to all processes; that one handles them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    observer, runner = _ChannelObserver(channel), None
    while True:
        kind, arguments = observer.tasks.get()
        value, error, details = None, None, ""
        try:
            if runner is None:
                runner = _make_runner(observer, threads, seeks, make_runner)
            value = runner.run(kind, *arguments)
        except Exception as raised:
            error, details = raised, traceback.format_exc()
        is_stuck = bool(abandoned_readers())
        try:
            observer.send("done", value, error, details, is_stuck)
        except Exception as unsent:  # what cannot be pickled
            observer.send("done", None, RuntimeError(repr(error or unsent)), details, is_stuck)
        del value, error, arguments


def _make_runner(observer: Observer, threads: int | None, seeks: bool, make_runner: MakeRunner | None) -> TaskRunner:
    if threads is not None:
        from nervcodec.device import set_threads

        set_threads(threads)
    from nervcodec.encoding.pipeline import TaskRunner

    return (make_runner or TaskRunner)(observer, seeks)
