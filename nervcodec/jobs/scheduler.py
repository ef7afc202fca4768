# SPDX-License-Identifier: MIT
"""Encodes any number of sources: tasks of all of them go to this process, to local workers or to a Ray cluster.

A source that fails, or whose worker dies, does not stop the others.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nervcodec import options
from nervcodec.errors import ConfigError, LockedError, NervError, is_out_of_memory
from nervcodec.events import FileEvent, Observer, WorkEvent
from nervcodec.formats.text import count_noun
from nervcodec.jobs.inputs import Job, Sources, find, is_up_to_date
from nervcodec.jobs.workers import Done, Executor, LocalWorkers, ThisProcess
from nervcodec.options import EncodeOptions
from nervcodec.outputs import UnchangedOutput, locked, require_folder, require_free
from nervcodec.worker import WorkerLostError

if TYPE_CHECKING:
    from nervcodec.encoding import EncodeReport
    from nervcodec.encoding.pipeline import EncodeJob, Task

DONE, SKIPPED, FAILED, STOPPED = "done", "skipped", "failed", "stopped"
STATUSES = (DONE, SKIPPED, FAILED, STOPPED)
_POLL_S = 0.1  # between looks at progress and at whether to stop
_ATTEMPTS = 3  # of a task whose worker dies
_UP_TO_DATE = "up to date: whole and of this source"


@dataclass(frozen=True)
class FileReport:
    """What became of one source.

    Attributes:
        source: file or folder.
        target: its container.
        status: ``done``; ``skipped``, since the container was there; ``failed``; or ``stopped``, where the encode was
            ended early and the container holds the best state by then.
        reason: why, in words; empty where it is done.
        report: of its encode, or None where there was none.
        seconds: that it took.
    """

    source: Path
    target: Path
    status: str
    reason: str = ""
    report: EncodeReport | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, object]:
        """As ``encode --json`` prints it for several inputs."""
        return {
            "source": str(self.source),
            "target": str(self.target),
            "status": self.status,
            "reason": self.reason,
            "seconds": round(self.seconds, 2),
            "report": None if self.report is None else self.report.to_json(),
        }


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    Attributes:
        count: how many at once; on a cluster None for as many as suit its cores.
        address: of a Ray cluster, or ``auto`` for the one that this machine is a part of; None for this machine.

    Raises:
        ConfigError: fewer than one.
    """

    count: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ConfigError("workers must be 1 or more")

    def start(self, settings: EncodeOptions, observer: Observer) -> Executor:
        """Connect to the cluster, or prepare local workers.

        Raises:
            ConfigError: there is no cluster at the address, or Ray is not installed.
        """
        if self.address is not None:
            from nervcodec.jobs.ray_cluster import RayCluster

            return RayCluster(self.address, self.count, settings.device != "cpu", observer)
        return ThisProcess(observer) if self.count is None else LocalWorkers(self.count, observer)


def encode_many(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    recursive: bool = False,
    force: bool = False,
    observer: Observer | None = None,
    workers: int | None = None,
    ray: str | None = None,
    **settings: object,
) -> list[FileReport]:
    """Encode many videos, each to a container of its own.

    A container that is whole and of its source is skipped, and so is one that another process is writing. An encode
    that was killed or stopped is resumed if its settings are the same. A source that cannot be encoded is reported, and
    the others are encoded all the same.

    Args:
        inputs: video files, folders of numbered frames, and where ``recursive`` folders that hold such.
        out: folder of the containers, which is made; None puts each beside its source. How they are named:
            :func:`nervcodec.jobs.inputs.find`.
        recursive: look below folders.
        force: encode also what is up to date.
        observer: told of progress; may ask to stop, which ends the encode under way as that of a single file, and
            begins no other.
        workers: number of processes for files and segments; a process that crashes is replaced. The calling
            script needs an ``if __name__ == "__main__":`` guard, as for :mod:`multiprocessing`. None encodes in this
            process, or on a cluster with as many tasks at once as suit its cores.
        ray: address of a Ray cluster (extra ``ray``), or ``auto`` for the one that this machine is a part of.
        **settings: as :func:`nervcodec.encode` takes them, for each of the videos.

    Returns:
        One report for each source, in order; without those that were not begun.

    Raises:
        ConfigError: a setting is out of range; two sources would have one container; ``out`` cannot be written.
        VideoError: an input is not there.
        EncoderError: the semantic encoder cannot be loaded.
    """
    checked = options.from_flat(**settings)
    paths = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    sources = find(paths, None if out is None else Path(out), recursive)
    reports = list(encode_each(sources, checked, force, observer or Observer(), Workers(workers, ray)))
    order = {job.source: number for number, job in enumerate(sources.jobs)}
    return sorted(reports, key=lambda report: order[report.source])


def encode_each(
    sources: Sources, settings: EncodeOptions, force: bool, observer: Observer, workers: Workers
) -> Iterator[FileReport]:
    """The same for sources that are found already: a report as soon as the result of a source is known.

    Args:
        sources: and their containers.
        settings: all of them, for each of them.
        force: encode also what is up to date.
        observer: told of progress; may ask to stop.
        workers: where to encode.

    Raises:
        ConfigError, EncoderError: what holds for all sources is wrong; nothing was encoded then.
    """
    if workers.address is not None and settings.log_dir is not None:
        raise ConfigError("--log-dir writes the log of a fit on this machine; it does not go with --ray")
    for text in sources.notes:
        observer.note(text)
    finished = {} if force else _check(sources.jobs, observer)
    yield from finished.values()
    jobs = [job for job in sources.jobs if job not in finished]
    if not jobs:
        return
    if settings.log_dir is not None:
        from nervcodec.training.hooks import require_tensorboard

        require_folder(Path(settings.log_dir))
        require_tensorboard()
    if workers.address is not None or workers.count is not None:
        observer.stage("Starting workers")
    with contextlib.closing(workers.start(settings, observer)) as executor:
        yield from Scheduler(executor, jobs, settings, force, observer).reports()


def _check(jobs: Sequence[Job], observer: Observer) -> dict[Job, FileReport]:
    """Reports of the jobs that are up to date or cannot be encoded."""
    reports = {}
    observer.stage("Checking", len(jobs))
    for job in jobs:
        try:
            if is_up_to_date(job, observer.note):
                reports[job] = FileReport(job.source, job.target, SKIPPED, _UP_TO_DATE)
        except (NervError, OSError) as error:
            reports[job] = _failed(job, _reason(error), observer)
        observer.advance()
    return reports


@dataclass(eq=False)
class _Active:
    """A job under way.

    Attributes:
        job: source and container.
        encode: its tasks.
        cleanup: releases the lock of its output, and more.
        begun: when.
        attempts: of each of its tasks.
    """

    job: Job
    encode: EncodeJob
    cleanup: contextlib.ExitStack
    begun: float
    attempts: Counter[tuple[str, int]]


class Scheduler:
    """Gives the tasks of jobs to an executor: those of jobs that were begun first come first.

    Args:
        executor: where they run.
        jobs: sources and containers.
        settings: all of them.
        force: encode also what is up to date, and overwrite what appears meanwhile.
        observer: told of progress; may ask to stop.
    """

    def __init__(
        self, executor: Executor, jobs: Sequence[Job], settings: EncodeOptions, force: bool, observer: Observer
    ):
        self._executor, self._settings, self._force, self._observer = executor, settings, force, observer
        self._jobs, self._pending = jobs, deque(jobs)
        self._active: list[_Active] = []
        self._begun = self._over = self._tasks = 0

    def reports(self) -> Iterator[FileReport]:
        """A report of each source, as soon as its result is known.

        Raises:
            ConfigError, EncoderError: what holds for all sources is wrong.
        """
        try:
            if self._executor.is_remote:
                yield from self._unseen()
            else:
                self._setup()
            if not self._executor.one_by_one:
                self._observer.stage(f"Encoding, {self._executor.slots} at once")
                self._report_work()  # before an interrupt is told what is kept
                self._observer.partial_result_ready()
            while self._pending or self._active:
                stopping = self._observer.stop_requested()
                if stopping:
                    self._pending.clear()
                    self._executor.stop()
                    if not self._executor.one_by_one:
                        self._executor.close()
                        yield from [self._end(active) for active in list(self._active)]
                        return
                yield from self._submit(stopping)
                if not self._executor.running:
                    yield from [self._end(active) for active in list(self._active)]
                elif (done := self._executor.next_done(_POLL_S)) is not None:
                    self._tasks += 1
                    yield from self._take(done)
                if not self._executor.one_by_one:
                    self._report_work()
        finally:
            for active in self._active:
                active.cleanup.close()

    def _setup(self) -> None:
        """Load what all encodes need: what is missing is missing for all of them."""
        for _ in range(_ATTEMPTS):
            self._executor.submit(None, "setup", (self._settings,))
            while (done := self._executor.next_done(_POLL_S)) is None:
                continue
            if done.error is None:
                return
            if not isinstance(done.error, WorkerLostError):
                raise done.error
        raise NervError("a worker died while starting (out of memory?)")

    def _unseen(self) -> Iterator[FileReport]:
        """Reports of sources that a machine of the cluster does not see."""
        from nervcodec.jobs.ray_cluster import RayCluster

        assert isinstance(self._executor, RayCluster)
        unseen = self._executor.unseen([os.path.abspath(job.source) for job in self._jobs])
        for job in self._jobs:
            if (why := unseen.get(os.path.abspath(job.source))) is not None:
                self._pending.remove(job)
                self._over += 1
                yield _failed(job, why, self._observer)

    def _submit(self, stopping: bool) -> Iterator[FileReport]:
        """Give tasks to workers that have none."""
        while self._executor.running < self._executor.slots:
            ready = ((active, active.encode.next_task(stopping)) for active in self._active)
            pair = next(((active, task) for active, task in ready if task is not None), None)
            if pair is not None:
                self._run(*pair)
            elif self._pending and not (self._executor.one_by_one and self._active):
                yield from self._begin(self._pending.popleft())
            else:
                return

    def _run(self, active: _Active, task: Task) -> None:
        active.attempts[task.kind, task.index] += 1
        self._executor.submit((active, task), task.kind, task.arguments)

    def _begin(self, job: Job) -> Iterator[FileReport]:
        """Begin a job; a report where there is nothing to do, or nothing that can be done."""
        if self._executor.one_by_one:
            self._observer.file(FileEvent(self._begun, len(self._jobs), str(job.source)))
        self._begun += 1
        with contextlib.ExitStack() as stack:
            report: FileReport | None = None
            try:
                job.target.parent.mkdir(parents=True, exist_ok=True)
                require_free(job.target, force=True)
                stack.enter_context(locked(job.target))
                if not self._force and is_up_to_date(job, lambda _text: None):  # another process made it meanwhile
                    report = FileReport(job.source, job.target, SKIPPED, _UP_TO_DATE)
            except LockedError as error:
                self._observer.note(f"{error}; {job.source} is skipped")
                report = FileReport(job.source, job.target, SKIPPED, str(error))
            except (NervError, OSError) as error:
                report = _failed(job, _reason(error), self._observer)
            if report is not None:
                self._over += 1
                yield report
                return
            encode = stack.enter_context(contextlib.closing(self._encode_job(job)))
            self._active.append(_Active(job, encode, stack.pop_all(), time.perf_counter(), Counter()))

    def _encode_job(self, job: Job) -> EncodeJob:
        from nervcodec.encoding.pipeline import EncodeJob

        return EncodeJob(
            job.source,
            job.target,
            self._with_log_of(job),
            self._observer,
            UnchangedOutput(job.target, self._force),
            resumes_any=True,
            one_by_one=self._executor.one_by_one,
            is_remote=self._executor.is_remote,
        )

    def _with_log_of(self, job: Job) -> EncodeOptions:
        """Settings in which the log of a job has a folder of its own, named as its container."""
        if self._settings.log_dir is None:
            return self._settings
        top = os.path.commonpath([other.target.absolute().parent for other in self._jobs])
        name = job.target.absolute().relative_to(top).with_suffix("")
        return replace(self._settings, log_dir=str(Path(self._settings.log_dir, name)))

    def _take(self, done: Done) -> Iterator[FileReport]:
        """Take the end of a task; a report where it is that of its job."""
        active, task = done.key
        if active not in self._active:
            return  # the job failed while this was under way
        error = done.error
        if isinstance(error, WorkerLostError):
            if active.attempts[task.kind, task.index] < _ATTEMPTS:
                self._observer.note(f"{active.job.source}: a worker died while {task.description}; it is tried again")
                self._run(active, active.encode.retry(task))
                return
            yield self._fail(active, f"a worker died while {task.description}, {_ATTEMPTS} times (out of memory?)")
            return
        try:
            if error is not None:
                raise error
            active.encode.finish(task, done.value)
        except Exception as raised:
            if active.encode.fail(raised):
                return
            if not _concerns_one_source(raised):
                raise
            yield self._fail(active, _reason(raised))
            return
        if active.encode.report is not None:
            yield self._end(active)

    def _fail(self, active: _Active, why: str) -> FileReport:
        self._close(active)
        return _failed(active.job, why, self._observer, time.perf_counter() - active.begun)

    def _end(self, active: _Active) -> FileReport:
        """The report of a job that is complete, or that was stopped."""
        try:
            active.encode.end_early()
        except (NervError, OSError) as error:
            return self._fail(active, _reason(error))
        report, kept, job = active.encode.report, active.encode.kept, active.job
        self._close(active)
        seconds = time.perf_counter() - active.begun
        if report is not None and report.complete:
            return FileReport(job.source, job.target, DONE, report=report, seconds=seconds)
        why = f"{count_noun(kept, 'segment')} kept" if kept else "nothing of it is kept"
        if report is not None:
            why = "holds the best state by then"
        return FileReport(job.source, job.target, STOPPED, why, report, seconds)

    def _close(self, active: _Active) -> None:
        self._active.remove(active)
        self._over += 1
        active.cleanup.close()

    def _report_work(self) -> None:
        running: defaultdict[_Active, float] = defaultdict(float)
        for (active, _), fraction in self._executor.progress().items():
            running[active] += fraction
        sources = tuple(str(active.job.source) for active in self._active if active in running)
        done = self._over + sum(active.encode.fraction(running[active]) for active in self._active)
        count = self._executor.running
        self._observer.work(WorkEvent(self._over, len(self._jobs), self._tasks, count, done, sources))


def _failed(job: Job, why: str, observer: Observer, seconds: float = 0.0) -> FileReport:
    """A report of a failure, which the observer is told at once."""
    told = why.removeprefix(f"{os.path.abspath(job.source)}: ").removeprefix(f"{job.source}: ")
    observer.note(why if told == why and str(job.target) in why else f"{job.source}: {told}")
    return FileReport(job.source, job.target, FAILED, told, seconds=seconds)


def _concerns_one_source(error: BaseException) -> bool:
    """Whether an error concerns one source, so that the others can be encoded all the same."""
    return isinstance(error, (NervError, OSError)) or is_out_of_memory(error)


def _reason(error: BaseException) -> str:
    """Such an error in words."""
    if isinstance(error, NervError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return "out of memory; try a smaller --scale or --segment"
