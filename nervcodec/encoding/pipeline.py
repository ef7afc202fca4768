# SPDX-License-Identifier: MIT
"""The tasks of an encode, in the order in which they depend on each other.

A source is planned (first pass: facts, checksums, cuts); what its segments share is made; each segment is encoded; the
container is assembled. :class:`EncodeJob` says which tasks can run next, :class:`TaskRunner` runs one. Arguments and
results of a task are plain data, so that it runs in this process, in a worker or on another machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nervcodec.device import choose, trim_memory
from nervcodec.encoding.assemble import EncodeReport, assemble
from nervcodec.encoding.base_segment import MEASURED, encode_base_segment
from nervcodec.encoding.embeddings import SegmentEmbeddings, basis_for
from nervcodec.encoding.plan import Plan, Runtime, make_plan, setup_runtime
from nervcodec.encoding.segment import EncodedSegment, fit_segment, segment_task
from nervcodec.encoding.segment_reader import SegmentReader
from nervcodec.encoding.shared import NO_SHARED_PARAMETERS, SharedParameters, embed_base_segment, share
from nervcodec.encoding.stream_copy import CopyResult, copy_source
from nervcodec.errors import ChangedError, CheckpointError, ConfigError
from nervcodec.events import Observer
from nervcodec.formats.header import COPY
from nervcodec.formats.text import count_noun
from nervcodec.options import EncodeOptions
from nervcodec.outputs import UnchangedOutput
from nervcodec.training.checkpoint import Checkpoint, identity
from nervcodec.training.hooks import CheckpointHook, Hook, TensorBoardLog

PLAN, PACKETS, SHARE, EMBED, SEGMENT = "plan", "copy", "share", "embed", "encode"


@dataclass(frozen=True, eq=False)
class Task:
    """A part of an encode that can run on its own.

    Attributes:
        kind: the method of :class:`TaskRunner` that runs it.
        index: of the segment that it is about, from 0.
        arguments: of that method.
        description: what it does, as in "a worker died while encoding segment 2 of 5".
    """

    kind: str
    index: int
    arguments: tuple[Any, ...]
    description: str


class TaskRunner:
    """Runs tasks in this process.

    Args:
        observer: told of progress; may request a stop.
        seeks: seek to every segment, where other processes encode the ones before it.
    """

    def __init__(self, observer: Observer, seeks: bool = False):
        self._observer, self._seeks = observer, seeks
        self._runtimes: dict[tuple[str, ...], Runtime] = {}
        self._reader: SegmentReader | None = None
        self._on_cpu: Path | None = None  # source whose fit the memory of the GPU did not hold

    def run(self, kind: str, *arguments: Any) -> Any:
        """Run a task.

        Args:
            kind: ``setup``, ``plan``, ``copy``, ``share``, ``embed`` or ``encode``.
            arguments: of the method of that name.
        """
        return getattr(self, kind)(*arguments)

    def setup(self, options: EncodeOptions) -> None:
        """Choose the hardware and load the encoder, before any source is read.

        Raises:
            ConfigError, EncoderError: they are not available.
        """
        self._observer.stage("Preparing")
        self._runtimes[_runtime_key(options)] = setup_runtime(options, self._observer)

    def plan(self, source: Path, options: EncodeOptions) -> Plan:
        """Read a source once and plan its encode.

        Raises:
            ConfigError, VideoError, EncoderError: see :func:`nervcodec.encoding.encode`.
        """
        plan = make_plan(source, options, self._observer, self._runtimes.get(_runtime_key(options)))
        self._runtimes[_runtime_key(options)] = Runtime(plan.hardware, plan.encoder)
        return plan

    def copy(self, plan: Plan, folder: Path | None) -> CopyResult:
        """Copy and compare the packets of a source.

        Args:
            plan: of an encode that copies them.
            folder: of the file of packets, on this machine; None returns its bytes.
        """
        plan = self._with_runtime(plan)
        with contextlib.ExitStack() as stack:
            copy_folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with plan.info.snapshot.watched():
                copied = copy_source(plan, copy_folder, self._observer)
            if folder is None:
                copied = replace(copied, data=np.fromfile(copied.file, np.uint8))
            return copied

    def share(self, plan: Plan, stored: dict[str, Any] | None, checkpoint: Checkpoint | None) -> SharedParameters:
        """Fit what the networks of all segments share, see :func:`nervcodec.encoding.shared.share`.

        Args:
            plan: of the encode.
            stored: its state in a checkpoint, or None.
            checkpoint: for the state of the fit, or None.
        """
        plan = self._with_runtime(plan)
        hooks = self._hooks(plan, "shared", checkpoint)
        shared = share(plan, stored, None if checkpoint is None else checkpoint.trainer, hooks, self._observer)
        if shared.fit is not None and shared.fit.fell_back:
            self._on_cpu = plan.source
        return shared

    def embed(self, plan: Plan, index: int) -> SegmentEmbeddings | None:
        """Embeddings of a segment with a base layer."""
        plan = self._with_runtime(plan)
        embedded = embed_base_segment(plan, index, self._reader_of(plan), self._observer)
        trim_memory()
        return embedded

    def encode(
        self,
        plan: Plan,
        shared: SharedParameters,
        index: int,
        embedded: SegmentEmbeddings | None,
        checkpoint: Checkpoint | None,
    ) -> tuple[EncodedSegment | None, float]:
        """Encode a segment.

        Args:
            plan: of the encode.
            shared: what all segments share.
            index: of the segment, from 0.
            embedded: its embeddings, where they are known.
            checkpoint: for the state of the fit, or None.

        Returns:
            The segment, None where it was stopped before there was anything to keep; and the seconds that its
            embeddings took.
        """
        plan, observer, count = self._with_runtime(plan), self._observer, len(plan.lengths)
        if embedded is not None:
            shared = replace(shared, embeddings_by_segment={index: embedded})
        observer.begin_segment(index, count)
        reader, embed_s = self._reader_of(plan), 0.0
        if plan.planes is not None:
            segment = encode_base_segment(plan, index, reader, observer, shared, checkpoint)
        else:
            pixels, first = reader.segment(index), plan.first_frame(index)
            task, embed_s = segment_task(plan, pixels, first, index, observer, shared)
            observer.partial_result_ready()
            hooks = self._hooks(plan, f"segment_{index}", checkpoint)
            segment = fit_segment(task, observer, hooks, None if checkpoint is None else checkpoint.trainer)
            if segment is not None and segment.fell_back:
                self._on_cpu = plan.source
            del task, pixels  # so that at most one segment is in memory
        if index == count - 1:  # a background thread may still be at the end of its last frame
            self.close()
        trim_memory()
        observer.partial_result_ready()
        return segment, embed_s

    def close(self) -> None:
        """Close the source."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _with_runtime(self, plan: Plan) -> Plan:
        """A plan with the hardware and the encoder of this process."""
        key = _runtime_key(plan.options)
        if key not in self._runtimes:
            self._runtimes[key] = setup_runtime(plan.options, Observer())
        runtime = self._runtimes[key]
        on_cpu = self._on_cpu == plan.source
        hardware = choose("cpu", plan.options.precision) if on_cpu else runtime.hardware
        return replace(plan, hardware=hardware, encoder=runtime.encoder)

    def _reader_of(self, plan: Plan) -> SegmentReader:
        """A reader of the source, which continues after the frames of the previous task."""
        if self._reader is None or not self._reader.reads_same(plan):
            self.close()
            self._reader = SegmentReader(plan, self._seeks)
        return self._reader

    def _hooks(self, plan: Plan, name: str, checkpoint: Checkpoint | None) -> list[Hook]:
        hooks: list[Hook] = []
        if plan.options.log_dir is not None:
            folder = Path(plan.options.log_dir)
            hooks.append(TensorBoardLog(folder if len(plan.lengths) == 1 else folder / name))
        if checkpoint is not None:
            checkpoint.warn = self._observer.note
            hooks.append(CheckpointHook(checkpoint))
        return hooks


def _runtime_key(options: EncodeOptions) -> tuple[str, ...]:
    return options.device, options.precision, options.encoder, options.layer.base


class EncodeJob:
    """Non-blocking state machine of one encode: finished tasks, and tasks that can run.

    Args:
        source: file or folder.
        target: the container, over an existing one.
        options: of the encode.
        observer: told of resumed segments and of the result.
        output: state of the target before the encode.
        resumes_any: resume the checkpoint of the same encode if there is one, else start again; a stopped encode
            keeps its checkpoint.
        one_by_one: tasks run one after the other on this machine, so that they save the state of a fit.
        is_remote: tasks may run on other machines.

    Attributes:
        report: of the encode, once its container is written.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        options: EncodeOptions,
        observer: Observer,
        output: UnchangedOutput,
        *,
        resumes_any: bool = False,
        one_by_one: bool = True,
        is_remote: bool = False,
    ):
        self.source, self.target = source, target
        self._options, self._observer, self._output = options, observer, output
        self._resumes_any, self._one_by_one, self._is_remote = resumes_any, one_by_one, is_remote
        self.report: EncodeReport | None = None
        self._ready: deque[tuple[str, int]] = deque([(PLAN, 0)])
        self._plan: Plan | None = None
        self._checkpoint: Checkpoint | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._shared = NO_SHARED_PARAMETERS
        self._copied: CopyResult | None = None
        self._embedded: dict[int, SegmentEmbeddings] = {}
        self._segments: dict[int, EncodedSegment] = {}
        self._planned_at = self._shared_s = self._embed_s = 0.0
        self._is_over = self._began_again = False  # over: a stop ended it
        self._tasks, self._done = 2, 0

    # ------------------------------------------------------------------ what runs next

    def next_task(self, stopping: bool = False) -> Task | None:
        """A task that can run now; None where there is none before another one is finished.

        Args:
            stopping: the encode is to end early: nothing more is begun once there is a segment to write.
        """
        if not self._ready or self._is_over or (stopping and self._segments):
            return None
        kind, index = self._ready.popleft()
        if kind == PLAN:
            return Task(PLAN, 0, (_absolute(self.source, self._is_remote), self._options), "reading it")
        plan, count = self._plan, len(self._planned.lengths)
        assert plan is not None
        plan = plan.without_audio()
        checkpoint = self._checkpoint if self._one_by_one and not self._is_remote else None
        which = f" segment {index + 1} of {count}" if count > 1 else " it"
        if kind == PACKETS:
            if not self._is_remote and self._folder is None:
                self._folder = tempfile.TemporaryDirectory()
            return Task(kind, 0, (plan, None if self._folder is None else Path(self._folder.name)), "copying it")
        if kind == SHARE:
            stored = None if self._checkpoint is None else self._checkpoint.shared
            return Task(kind, 0, (plan, stored, checkpoint), "fitting what its segments share")
        if kind == EMBED:
            return Task(kind, index, (plan, index), f"embedding{which}")
        return Task(kind, index, (plan, self._shared, index, self._embedded.get(index), checkpoint), f"encoding{which}")

    def fraction(self, running: float) -> float:
        """Of its known tasks that are finished.

        Args:
            running: sum of the fractions of running tasks that are done.
        """
        return 1.0 if self.report is not None else min((self._done + running) / self._tasks, 1.0)

    @property
    def kept(self) -> int:
        """Segments that a later call need not encode again."""
        return 0 if self._checkpoint is None else len(self._checkpoint.finished)

    # ------------------------------------------------------------------ results of tasks

    def finish(self, task: Task, value: Any) -> None:
        """Take the result of a task; the last one writes the container.

        Raises:
            NervError, OSError: the container cannot be written.
        """
        self._done += 1
        if task.kind == PLAN:
            self._finish_plan(value)
        elif task.kind == PACKETS:
            self._copied, self._shared = value, SharedParameters({}, value.basis)
            self._segments, self._embed_s = dict(enumerate(value.segments)), value.embed_s
            self._assemble()
        elif task.kind == SHARE:
            if value.fit.complete and self._unfinished.shared is None:
                self._unfinished.finish_shared(value.state_dict())
            self._embedded, fit_s = value.embeddings_by_segment, value.fit.elapsed_s
            self._begin_segments(replace(value, embeddings_by_segment={}), fit_s)
        elif task.kind == EMBED:
            if value is not None:
                self._embedded[task.index] = value
            if len(self._embedded) == len(self._planned.lengths):
                in_order = [self._embedded[number] for number in range(len(self._embedded))]
                self._begin_segments(
                    SharedParameters({}, basis_for(self._planned, in_order) if len(in_order) > 1 else None)
                )
        else:
            self._finish_segment(task.index, *value)

    def retry(self, task: Task) -> Task:
        """The same task after its worker died, which may have saved the state of a fit."""
        if self._checkpoint is not None and self._one_by_one:
            self._checkpoint.reload_fit()
        self._ready.appendleft((task.kind, task.index))
        again = self.next_task()
        assert again is not None
        return again

    def fail(self, error: Exception) -> bool:
        """Take the failure of a task; returns whether the encode continues."""
        if isinstance(error, ChangedError) and self._checkpoint is not None:
            self._checkpoint.remove()
        continues = isinstance(error, CheckpointError) and self._resumes_any and not self._began_again
        if continues:  # the state in the checkpoint is of another network
            self._began_again = True
            self._checkpoint = self._unfinished.restarted()
            self._segments.clear()
            self._ready.clear()
            self._begin()
        return continues

    def end_early(self) -> None:
        """Write the container of the first segments, as far as they are finished, where the encode was stopped."""
        if self.report is None and 0 in self._segments:
            self._assemble()

    def close(self) -> None:
        """Delete temporary files."""
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def _planned(self) -> Plan:
        assert self._plan is not None
        return self._plan

    @property
    def _unfinished(self) -> Checkpoint:
        assert self._checkpoint is not None
        return self._checkpoint

    def _finish_plan(self, plan: Plan) -> None:
        self._plan = plan
        if plan.options.layer.base == COPY:
            self._tasks = 2
            self._ready.append((PACKETS, 0))
            return
        self._checkpoint = Checkpoint(self.target, identity_of(plan), self._observer.note)
        if plan.options.resume or (self._resumes_any and os.path.lexists(self._checkpoint.path)):
            try:
                self._checkpoint.load(plan.shares_network)
                self._observer.hint(_resumed(self.target, self._checkpoint, len(plan.lengths)))
            except CheckpointError:
                if not self._resumes_any:
                    raise
                self._checkpoint = self._checkpoint.restarted()
        self._begin()

    def _begin(self) -> None:
        plan, segments = self._planned, range(len(self._planned.lengths))
        self._planned_at, self._tasks, self._done = time.perf_counter(), 1 + len(segments), 1
        if plan.shares_network:
            self._tasks += 1
            self._ready.append((SHARE, 0))
        elif plan.planes is not None and plan.encoder is not None:
            self._tasks += len(segments)
            self._ready.extend((EMBED, index) for index in segments)
        else:
            self._begin_segments(NO_SHARED_PARAMETERS)

    def _begin_segments(self, shared: SharedParameters, fit_s: float = 0.0) -> None:
        self._shared_s = time.perf_counter() - self._planned_at - fit_s
        self._shared, self._plan = shared, replace(self._planned, shared_bytes=shared.size_bytes)
        finished = self._unfinished.finished
        self._segments = {number: EncodedSegment.from_state_dict(facts) for number, facts in finished.items()}
        if finished:
            self._observer.partial_result_ready()
        self._done += len(finished)
        self._ready.extend((SEGMENT, n) for n in range(len(self._planned.lengths)) if n not in finished)
        self._assemble_if_complete()

    def _finish_segment(self, index: int, segment: EncodedSegment | None, embed_s: float) -> None:
        self._embed_s += embed_s
        self._embedded.pop(index, None)
        shared_fit = self._shared.fit
        if segment is None or not segment.complete:
            self._is_over = True
        elif len(self._planned.lengths) > 1 and (shared_fit is None or shared_fit.complete):
            segment = EncodedSegment.from_state_dict(self._unfinished.finish_segment(index, segment.state_dict()))
        if segment is not None:
            self._segments[index] = segment
        self._assemble_if_complete()

    def _assemble_if_complete(self) -> None:
        if len(self._segments) == len(self._planned.lengths):
            self._assemble()

    def _assemble(self) -> None:
        """Write the container of the first segments, up to one that is missing or was stopped."""
        done: list[EncodedSegment] = []
        while len(done) in self._segments and (not done or done[-1].complete):
            done.append(self._segments[len(done)])
        checkpoint = self._checkpoint
        try:
            self._output.require()
        except ConfigError as error:
            for number, segment in enumerate(done if checkpoint is not None else []):
                if segment.complete and checkpoint is not None and number not in checkpoint.finished:
                    checkpoint.finish_segment(number, segment.state_dict())
            kept = "; --resume --force writes what is encoded" if self.kept else "; --force overwrites it"
            raise ConfigError(f"{error}{kept}") from None
        if checkpoint is not None and len(checkpoint.finished) == len(done):
            checkpoint.delete_fit()
        seconds = self._shared_s + self._embed_s
        report = assemble(self._planned, self.target, done, seconds, self._observer, self._copied, self._shared)
        if checkpoint is not None and (report.complete or not self._resumes_any):
            checkpoint.remove()
        self.report = report


def run_here(job: EncodeJob, runner: TaskRunner, stop_requested: Callable[[], bool]) -> EncodeReport:
    """Run all tasks of an encode in this process, one after the other.

    Raises:
        NervError, OSError: see :func:`nervcodec.encoding.encode`.
    """
    with contextlib.closing(job), contextlib.closing(runner):
        while (task := job.next_task(stop_requested())) is not None:
            try:
                job.finish(task, runner.run(task.kind, *task.arguments))
            except ChangedError as error:
                job.fail(error)
                raise
        job.end_early()
    assert job.report is not None
    return job.report


def identity_of(plan: Plan) -> str:
    """What an encode that is resumed must have in common with this one: options, and the source's name and frames."""
    options, frames = replace(plan.options, resume=False, log_dir=None), hashlib.sha256(plan.info.checksums.tobytes())
    return identity(options, plan.source.resolve(), plan.source_digest, frames.hexdigest())


def _resumed(target: Path, checkpoint: Checkpoint, segments: int) -> str:
    """Where a resumed encode continues."""
    parts = [f"{len(checkpoint.finished)} of {count_noun(segments, 'segment')} finished"] if segments > 1 else []
    if (fit := checkpoint.trainer) is not None and MEASURED in fit:
        parts.append("its search for a crf continues")
    elif fit is not None:
        parts.append(f"a fit continues at {fit['elapsed_s']:.0f} s, step {fit['steps']:,}")
    return f"resuming {target.name}: {', '.join(parts)}"


def _absolute(source: Path, is_remote: bool) -> Path:
    """A source as a worker on another machine finds it; messages of this one name it as it was given."""
    return Path(os.path.abspath(source)) if is_remote else source
