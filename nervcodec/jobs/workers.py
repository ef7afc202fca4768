# SPDX-License-Identifier: MIT
"""Where tasks run on this machine: in this process, or in worker processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple

from nervcodec.events import Observer, StepEvent
from nervcodec.threads import core_count
from nervcodec.worker import Worker

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


class Executor:
    """Base class of what runs tasks.

    Attributes:
        slots: tasks that run at once.
        one_by_one: tasks run in order on this machine, can be asked to stop, and report all progress.
        is_remote: tasks may run on other machines.
        running: tasks that were submitted and have not ended.
    """

    slots: int
    one_by_one = is_remote = False

    @property
    def running(self) -> int:
        raise NotImplementedError

    def submit(self, key: Hashable, kind: str, arguments: tuple[Any, ...]) -> None:
        """Run a task.

        Args:
            key: of the task, which has a method ``kind`` of :class:`nervcodec.encoding.pipeline.TaskRunner`.
            kind, arguments: the method and its arguments.
        """
        raise NotImplementedError

    def next_done(self, within_s: float) -> Done | None:
        """A task that ended; None where none does in this time."""
        raise NotImplementedError

    def progress(self) -> dict[Any, float]:
        """Fractions of running tasks that are done, by key, as far as they are known."""
        return {}

    def stop(self) -> None:
        """Ask running tasks to end early, where requests reach them."""

    def close(self) -> None:
        """End all workers at once."""
        raise NotImplementedError


class ThisProcess(Executor):
    """Runs tasks in this process, each while its end is waited for."""

    slots, one_by_one = 1, True

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

    def close(self) -> None:
        self._runner.close()


class LocalWorkers(Executor):
    """Runs tasks in worker processes of this machine; one that dies or hangs is replaced when it is needed.

    Args:
        count: of workers. Each has its share of the cores, one worker as many threads as this process would have.
        observer: receives all progress of a single worker, and the notes of several.
        make_runner: of the object whose methods are the tasks, in each worker; importable.
    """

    def __init__(self, count: int, observer: Observer, make_runner: MakeRunner | None = None):
        threads = None if count == 1 else max(1, core_count() // count)
        make_handler = partial(_task_handler, threads, count > 1, make_runner)
        self.slots, self.one_by_one, self._observer = count, count == 1, observer
        self._workers = [Worker(make_handler) for _ in range(count)]
        self._tasks: dict[Worker, tuple[Hashable, _TaskProgress]] = {}  # keys and progress of running tasks

    @property
    def running(self) -> int:
        return len(self._tasks)

    def submit(self, key: Hashable, kind: str, arguments: tuple[Any, ...]) -> None:
        worker = next(worker for worker in self._workers if worker not in self._tasks)
        worker.submit(kind, *arguments)
        progress = _TaskProgress(self._observer)
        worker.observer = self._observer if self.one_by_one else progress
        self._tasks[worker] = key, progress

    def next_done(self, within_s: float) -> Done | None:
        busy = {worker.pipe: worker for worker in self._tasks}
        start, elapsed_s = time.monotonic(), 0.0
        while elapsed_s < within_s:
            for pipe in wait(list(busy), within_s - elapsed_s):
                worker = busy[pipe]  # type: ignore[index]
                task = self._tasks.pop(worker)
                if (result := worker.receive()) is not None:
                    return Done(task[0], *result)
                self._tasks[worker] = task
            elapsed_s = time.monotonic() - start
        for worker in busy.values():
            worker.silent_s += within_s  # not the time between calls: this process may have been suspended
            if worker.is_silent:
                return Done(self._tasks.pop(worker)[0], *worker.lost())
        return None

    def progress(self) -> dict[Any, float]:
        return {key: progress.fraction for key, progress in self._tasks.values()}

    def stop(self) -> None:
        for worker in self._workers:
            worker.request_stop()

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._tasks.clear()


class _TaskProgress(Observer):
    """Passes on the notes of one of several tasks that run at once, and keeps its progress.

    Attributes:
        fraction: of the task that is done.
    """

    def __init__(self, observer: Observer):
        self.fraction, self._count, self._total = 0.0, 0, 0
        self.note, self.hint, self.evaluated = observer.note, observer.hint, observer.evaluated  # type: ignore[method-assign]

    def step(self, event: StepEvent) -> None:
        self.fraction = max(self.fraction, event.fraction)

    def stage(self, name: str, total: int | None = None) -> None:
        self._count, self._total = 0, total or 0

    def advance(self, count: int = 1) -> None:
        self._count += count
        if self._total:
            self.fraction = max(self.fraction, min(self._count / self._total, 1.0))


def _task_handler(
    threads: int | None, seeks: bool, make_runner: MakeRunner | None, observer: Observer
) -> Callable[..., Any]:
    """In a worker: the function that runs a task."""
    if threads is not None:
        from nervcodec.device import set_threads

        set_threads(threads)
    from nervcodec.encoding.pipeline import TaskRunner

    return (make_runner or TaskRunner)(observer, seeks).run
