# SPDX-License-Identifier: MIT
"""Many sources on the workers of a cluster: each task goes to whichever is free; containers are written here."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence

from nervcodec.events import Observer, WorkEvent
from nervcodec.formats.text import counted
from nervcodec.jobs.cluster import Cluster, WorkerLostError, unseen
from nervcodec.jobs.course import Course, Step
from nervcodec.jobs.failures import is_of_a_source, reason
from nervcodec.jobs.inputs import Job
from nervcodec.jobs.report import DONE, STOPPED, FileReport, failed
from nervcodec.options import EncodeOptions

_LOOK_S = 0.2  # between looks at whether to stop
_LOST = "its worker died, and so did each that it was given to again (out of memory?)"


def encode_on(cluster: Cluster, jobs: Sequence[Job], wanted: EncodeOptions, observer: Observer) -> Iterator[FileReport]:
    """Encode sources; a report as soon as it is known what became of one.

    What is finished of a source when the encode is stopped or killed is in its checkpoint, and the next call with the
    same settings goes on from there.

    Args:
        cluster: to work on.
        jobs: what to encode.
        wanted: all settings.
        observer: told of progress; may ask to stop.
    """
    blind = unseen(cluster, [os.path.abspath(job.source) for job in jobs]) if cluster.is_elsewhere else {}
    for job in jobs:
        if (why := blind.get(os.path.abspath(job.source))) is not None:
            yield failed(job, why, observer)
    run = _Run(cluster, [job for job in jobs if os.path.abspath(job.source) not in blind], wanted, observer)
    yield from run.reports()


class _Run:
    """Courses under way."""

    def __init__(self, cluster: Cluster, jobs: Sequence[Job], wanted: EncodeOptions, observer: Observer):
        self._cluster, self._wanted, self._observer = cluster, wanted, observer
        self._later, self._count = deque(jobs), len(jobs)
        self._courses: list[Course] = []
        self._over = self._tasks = 0

    def reports(self) -> Iterator[FileReport]:
        """Of each source, as it is over."""
        while self._later or self._courses:
            if self._observer.stop_requested():
                self._cluster.cancel()
                yield from map(self._stopped, self._courses)
                return
            yield from self._hand_out()
            if not self._cluster.running:
                continue
            try:
                found = self._cluster.next_done(_LOOK_S)
            except WorkerLostError as lost:
                (course, _), result, why = lost.args[0], None, _LOST
            else:
                if found is None:
                    self._tell()
                    continue
                (course, step), result = found
                why = result.failure
                for text in result.notes:
                    self._observer.note(text)
            self._tasks += 1
            if course not in self._courses:
                continue  # it failed while this was under way
            if result is not None and not why:
                why = self._take(course, step, result.value)
            if why or course.report is not None:
                self._courses.remove(course)
                self._over += 1
                yield self._report(course, why)
            self._tell()

    def _hand_out(self) -> Iterator[FileReport]:
        """Give tasks to workers that have none: of sources that were begun before others."""
        while self._cluster.running < self._cluster.slots:
            course = next((course for course in self._courses if course.waiting), None)
            if course is None and not self._later:
                return
            if course is None:
                job = self._later.popleft()
                try:
                    course = Course(job, self._wanted, self._observer)
                except Exception as error:
                    if not is_of_a_source(error):
                        raise
                    self._over += 1
                    yield failed(job, reason(error), self._observer)
                    continue
                self._courses.append(course)
            course.submit(self._cluster)

    def _take(self, course: Course, step: Step, value: object) -> str:
        """Let a course go on; why it cannot, in words."""
        try:
            course.take(step, value)
        except Exception as error:
            if not is_of_a_source(error):
                raise
            return reason(error)
        return ""

    def _report(self, course: Course, why: str) -> FileReport:
        job, seconds = course.job, course.elapsed_s
        if why:
            return failed(job, why, self._observer, seconds)
        return FileReport(job.source, job.target, DONE, report=course.report, seconds=seconds)

    def _stopped(self, course: Course) -> FileReport:
        kept = f"{counted(course.kept, 'segment')} kept" if course.kept else "nothing of it is kept"
        return FileReport(course.job.source, course.job.target, STOPPED, kept, seconds=course.elapsed_s)

    def _tell(self) -> None:
        done = self._over + sum(course.fraction for course in self._courses)
        self._observer.work(WorkEvent(self._over, self._count, self._tasks, self._cluster.running, done))
