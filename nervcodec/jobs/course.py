# SPDX-License-Identifier: MIT
"""One source on its way through the tasks of its encode: looked at, what its segments share, each segment, the file."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nervcodec.encoding import identity_of
from nervcodec.encoding.assemble import EncodeReport, assemble
from nervcodec.encoding.basis import Embedded, basis_for
from nervcodec.encoding.segment import EncodedSegment
from nervcodec.encoding.shared import NOTHING_SHARED, Shared
from nervcodec.errors import CheckpointError
from nervcodec.events import Observer
from nervcodec.formats.atomic import replacing
from nervcodec.jobs import work
from nervcodec.jobs.inputs import Job
from nervcodec.jobs.standing import set_date
from nervcodec.media.probe import modified
from nervcodec.options import EncodeOptions
from nervcodec.outputs import require_free
from nervcodec.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from nervcodec.encoding.plan import Plan
    from nervcodec.jobs.cluster import Cluster

_BEGIN, _SHARE, _EMBED, _SEGMENT = "begin", "share", "embed", "segment"
Step = tuple[str, int]  # a kind of task, and the segment that it is about


class Course:
    """What is done of a source, and what can be done next. Nothing in it waits.

    Args:
        job: the source and its container.
        wanted: all settings.
        observer: told what tasks have to say.

    Attributes:
        waiting: tasks that can be given to a worker now.
        report: of the encode, once its container is written.

    Raises:
        ConfigError, OSError: the container cannot be written.
    """

    def __init__(self, job: Job, wanted: EncodeOptions, observer: Observer):
        self.job, self._wanted, self._observer = job, wanted, observer
        self.waiting: deque[Step] = deque([(_BEGIN, 0)])
        self.report: EncodeReport | None = None
        self._begun, self._changed = time.perf_counter(), modified(job.source)
        self._plan: Plan | None = None
        self._sent: dict[str, object] = {}  # what a cluster keeps for its tasks
        self._shared, self._embed_s = NOTHING_SHARED, 0.0
        self._known: dict[int, Embedded] = {}
        self._tasks = self._done = 0
        job.target.parent.mkdir(parents=True, exist_ok=True)
        require_free(job.target, force=True)

    @property
    def elapsed_s(self) -> float:
        """Since its first task was there to be done."""
        return time.perf_counter() - self._begun

    @property
    def fraction(self) -> float:
        """Of its tasks that are done, of those that are known."""
        return 1.0 if self.report is not None else self._done / self._tasks if self._tasks else 0.0

    @property
    def kept(self) -> int:
        """Segments that a later call need not encode again."""
        return len(self._checkpoint.finished) if self._plan is not None else 0

    def submit(self, cluster: Cluster) -> None:
        """Give the next task to a cluster."""
        kind, index = step = self.waiting.popleft()
        if kind == _BEGIN:
            cluster.submit((self, step), work.begin, Path(os.path.abspath(self.job.source)), self._wanted)
            return
        if "plan" not in self._sent:
            self._sent["plan"] = cluster.put(self._plan)
        plan = self._sent["plan"]
        if kind == _SHARE:
            cluster.submit((self, step), work.share, plan, self._checkpoint.shared)
        elif kind == _EMBED:
            cluster.submit((self, step), work.embed, plan, index)
        else:
            if "shared" not in self._sent:
                self._sent["shared"] = cluster.put(self._shared)
            known = self._known.get(index)
            cluster.submit((self, step), work.encode_segment, plan, self._sent["shared"], index, known)

    def take(self, step: Step, value: Any) -> None:
        """Go on with what a task gave.

        Raises:
            NervError, OSError: the container cannot be written.
        """
        kind, index = step
        self._done += 1
        if kind == _BEGIN and isinstance(value, work.Encoded):
            with replacing(self.job.target) as temporary:
                value.container.tofile(temporary)
            self._finish(replace(value.report, path=self.job.target))
        elif kind == _BEGIN:
            self._plan_is(value)
        elif kind == _SHARE:
            shared, facts = value
            if self._checkpoint.shared is None:
                self._checkpoint.finish_shared(facts)
            self._known = shared.everything
            self._begin_segments(replace(shared, everything={}))
        elif kind == _EMBED:
            self._known[index] = value
            if len(self._known) == len(self._planned.lengths):
                in_order = [self._known[number] for number in range(len(self._known))]
                self._begin_segments(Shared({}, basis_for(self._planned, in_order)))
        else:
            segment, seconds = value
            self._embed_s += seconds
            self._checkpoint.finish_segment(index, segment.to_facts())
            self._finish_if_whole()

    @property
    def _planned(self) -> Plan:
        assert self._plan is not None
        return self._plan

    def _plan_is(self, plan: Plan) -> None:
        self._plan, self._checkpoint = plan, _checkpoint(plan, self.job.target, self._observer)
        segments = range(len(plan.lengths))
        self._tasks = 1 + len(segments)
        if plan.shares_network:
            self._wait_for(_SHARE, [0])
        elif plan.planes is not None and plan.encoder is not None:
            self._wait_for(_EMBED, segments)
        else:
            self._begin_segments(NOTHING_SHARED)

    def _wait_for(self, kind: str, indices: Any) -> None:
        self.waiting.extend((kind, index) for index in indices)
        self._tasks += len(indices) if kind != _SEGMENT else 0

    def _begin_segments(self, shared: Shared) -> None:
        self._shared, self._plan = shared, replace(self._planned, shared_bytes=shared.size_bytes)
        self._sent.clear()
        finished = self._checkpoint.finished
        self._done += len(finished)
        self._wait_for(_SEGMENT, [n for n in range(len(self._planned.lengths)) if n not in finished])
        self._finish_if_whole()

    def _finish_if_whole(self) -> None:
        plan, finished = self._planned, self._checkpoint.finished
        if len(finished) < len(plan.lengths):
            return
        done = [EncodedSegment.from_facts(finished[number]) for number in range(len(finished))]
        report = assemble(plan, self.job.target, done, self._embed_s, self._observer, shared=self._shared)
        self._checkpoint.remove()
        self._finish(report)

    def _finish(self, report: EncodeReport) -> None:
        self.report = report
        set_date(self.job, self._changed, self._observer.note)


def _checkpoint(plan: Plan, target: Path, observer: Observer) -> Checkpoint:
    """What an earlier call left of the same encode, or an empty one."""
    checkpoint = Checkpoint(target, identity_of(plan), observer.note)
    if os.path.lexists(checkpoint.path):
        try:
            checkpoint.load(plan.shares_network)
        except CheckpointError:
            return checkpoint.restarted()
    return checkpoint
