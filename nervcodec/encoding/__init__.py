# SPDX-License-Identifier: MIT
"""Video in, ``.nerv`` out: plan -> segment task -> :func:`fit_segment` -> assemble.

A task is plain data and its fit a pure function of it, so that segments may be fitted anywhere.
A copy has no fit: its segments are heads alone, above the source's packets (:mod:`nervcodec.encoding.copied`).
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from nervcodec import options
from nervcodec.device import give_back_memory
from nervcodec.encoding.assemble import EncodeReport, assemble
from nervcodec.encoding.copied import copy_source
from nervcodec.encoding.layered import code_segment
from nervcodec.encoding.material import SegmentReader, segments
from nervcodec.encoding.plan import Plan, make_plan
from nervcodec.encoding.prepare import prepare
from nervcodec.encoding.segment import EncodedSegment, SegmentTask
from nervcodec.encoding.shared import Shared, shared_by_all
from nervcodec.encoding.task import fit_segment
from nervcodec.errors import ChangedError, CheckpointError, ConfigError
from nervcodec.events import Observer
from nervcodec.formats.header import COPY
from nervcodec.media.probe import require_file
from nervcodec.outputs import beside, require_folder, require_free
from nervcodec.training.checkpoint import Checkpoint, identity
from nervcodec.training.hooks import CheckpointHook, Hook, Hooks, ProgressHook, TensorBoardLog, require_tensorboard

__all__ = ["EncodeReport", "EncodedSegment", "SegmentTask", "encode", "encode_plan", "fit_segment"]


def encode(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    observer: Observer | None = None,
    force: bool = False,
    **settings: object,
) -> EncodeReport:
    """Fit a network to a video and write it to a container.

    Args:
        path: a video file, or a folder of numbered PNG or JPEG frames.
        out: the container; by default the source's name with ``.nerv``.
        observer: told of progress; may ask to stop early, which keeps the best state so far.
        force: overwrite an existing output.
        **settings: fields of :class:`nervcodec.options.EncodeOptions` and its parts by name, such as ``time_s=180``,
            ``encoder="none"``, ``crop=(640, 1280)``, and ``preset``.

    Raises:
        ConfigError: a setting is out of range, or the output exists.
        VideoError: the source cannot be read.
        EncoderError: the semantic encoder cannot be loaded.
        DivergedError: the fit produced values that are not finite.
        ContainerError: the output cannot be written.
    """
    wanted, observer = options.from_flat(**settings), observer or Observer()
    source = Path(path)
    require_file(source)
    target = Path(out) if out is not None else beside(source)
    _require_output(source, target, force)
    if wanted.log_dir is not None:
        require_folder(Path(wanted.log_dir))
        require_tensorboard()
    return encode_plan(make_plan(source, wanted, observer), target, observer)


def encode_plan(plan: Plan, target: Path, observer: Observer, goes_on: bool = False) -> EncodeReport:
    """Carry a plan out and write its container, over one that is there.

    Args:
        plan: of the encode.
        target: the container.
        observer: told of progress; may ask to stop early.
        goes_on: take over the checkpoint of the same encode where there is one, and begin anew where it is another's;
            an encode that is stopped leaves its checkpoint to be gone on from.

    Raises:
        ConfigError, VideoError, DivergedError, ContainerError: see :func:`encode`.
    """
    if plan.wanted.layer.base == COPY:
        with tempfile.TemporaryDirectory() as folder:
            with plan.info.snapshot.watched():
                copied = copy_source(plan, Path(folder), observer)
            common = Shared({}, copied.basis)
            return assemble(plan, target, copied.segments, copied.embed_s, observer, copied.base, common)
    checkpoint = Checkpoint(target, identity_of(plan), observer.note)
    try:
        if plan.wanted.resume or (goes_on and os.path.lexists(checkpoint.path)):
            try:
                checkpoint.load(plan.shares_network)
                return _carry_out(plan, checkpoint, target, observer, goes_on)
            except CheckpointError:
                if not goes_on:
                    raise
            checkpoint = checkpoint.restarted()
        return _carry_out(plan, checkpoint, target, observer, goes_on)
    except ChangedError:
        checkpoint.remove()
        raise


def _carry_out(plan: Plan, checkpoint: Checkpoint, target: Path, observer: Observer, goes_on: bool) -> EncodeReport:
    """Fit what a checkpoint does not have yet, and write the container of all."""
    start = time.perf_counter()
    logs = _log(plan, "shared") if plan.shares_network else []
    before = Hooks([ProgressHook(observer), *logs, CheckpointHook(checkpoint)])
    shared = shared_by_all(plan, checkpoint, before, observer)
    before_s = time.perf_counter() - start - (0.0 if shared.fit is None else shared.fit.elapsed_s)
    plan = replace(plan, shared_bytes=shared.size_bytes)
    if shared.fit is not None and shared.fit.fell_back:
        plan = plan.on_cpu()
    done, embed_s = _fit_in_order(plan, shared, checkpoint, observer)
    if len(checkpoint.finished) == len(done):
        checkpoint.delete_fit()
    report = assemble(plan, target, done, before_s + embed_s, observer, shared=shared)
    if report.complete or not goes_on:
        checkpoint.remove()
    return report


def _fit_in_order(
    plan: Plan, shared: Shared, checkpoint: Checkpoint, observer: Observer
) -> tuple[list[EncodedSegment], float]:
    """Fit one segment after the other; returns those that are done, and the seconds that embeddings took."""
    done: list[EncodedSegment] = []
    embed_s = 0.0
    if checkpoint.finished:
        observer.worth_keeping()
    keeps = shared.fit is None or shared.fit.complete  # what was stopped is nothing to go on from
    while len(done) in checkpoint.finished:
        done.append(EncodedSegment.from_facts(checkpoint.finished[len(done)]))
    source = SegmentReader(plan) if plan.planes is not None else segments(plan, len(done))
    for index in range(len(done), len(plan.lengths)):
        observer.begin_segment(index, len(plan.lengths))
        if index in checkpoint.finished:  # others before it were not
            if not isinstance(source, SegmentReader):
                next(source)
            done.append(EncodedSegment.from_facts(checkpoint.finished[index]))
            continue
        if isinstance(source, SegmentReader):
            hooks = Hooks([ProgressHook(observer, index, len(plan.lengths)), CheckpointHook(checkpoint)])
            segment = code_segment(plan, index, source, hooks, shared)
        else:
            task, seconds = prepare(plan, next(source), plan.first_frame(index), index, observer, shared)
            embed_s += seconds
            observer.worth_keeping()
            progress = ProgressHook(observer, index, task.count, task.expected_bpp)
            hooks = Hooks([progress, *_log(plan, f"segment_{index}"), CheckpointHook(checkpoint)])
            segment = fit_segment(task, hooks, checkpoint.trainer)
            del task  # so that no more than one segment is in memory
        if segment is None:
            break  # stopped before this segment was begun; those before it are whole
        if segment.fell_back:
            plan = plan.on_cpu()
        if segment.complete and keeps and len(plan.lengths) > 1:  # it leaves memory, and need not be fitted again
            segment = EncodedSegment.from_facts(checkpoint.finish_segment(index, segment.to_facts()))
        done.append(segment)
        give_back_memory()
        observer.worth_keeping()
        if not segment.complete:
            break
    if not isinstance(source, SegmentReader):  # a background thread may still be at the end of its last frame
        source.close()
    return done, embed_s


def _log(plan: Plan, name: str) -> list[Hook]:
    if plan.wanted.log_dir is None:
        return []
    folder = Path(plan.wanted.log_dir)
    return [TensorBoardLog(folder if len(plan.lengths) == 1 else folder / name)]


def identity_of(plan: Plan) -> str:
    """What an encode that is resumed must have in common with this one."""
    source, wanted = plan.source, replace(plan.wanted, resume=False, log_dir=None)
    snapshot = plan.info.snapshot
    return identity(wanted, source.resolve(), plan.info.file_bytes, plan.info.frame_count, max(snapshot.modified_ns))


def _require_output(source: Path, target: Path, force: bool) -> None:
    """Refuse, before any work, an output that cannot or must not be written.

    Raises:
        ConfigError: it exists, is the source itself, or its folder is not there.
    """
    if os.path.exists(target) and os.path.exists(source) and target.samefile(source):
        raise ConfigError(f"{target}: input and output are the same file")
    require_free(target, force)
