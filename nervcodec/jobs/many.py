# SPDX-License-Identifier: MIT
"""Many sources encoded, one after the other in this process or by workers. One that fails does not stop the rest."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nervcodec import options
from nervcodec.errors import ConfigError, NervError
from nervcodec.events import FileEvent, Observer
from nervcodec.jobs.cluster import Workers, started
from nervcodec.jobs.failures import is_of_a_source, reason
from nervcodec.jobs.inputs import Found, Job, find
from nervcodec.jobs.report import DONE, SKIPPED, STOPPED, FileReport, failed
from nervcodec.jobs.standing import is_done, set_date
from nervcodec.media.probe import modified
from nervcodec.options import EncodeOptions
from nervcodec.outputs import require_folder, require_free

if TYPE_CHECKING:
    from nervcodec.encoding import EncodeReport
    from nervcodec.encoding.plan import Equipment

_THERE = "is there, whole and newer than its source"


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

    What is there, whole and newer than its source is skipped; what a killed or stopped call with the same settings
    left goes on where it was. A source that cannot be encoded is reported, and the others are encoded all the same.

    Args:
        inputs: video files, folders of numbered frames, and where ``recursive`` folders that hold such.
        out: folder of the containers, which is made; None puts each beside its source. How they are named:
            :func:`nervcodec.jobs.inputs.find`.
        recursive: look below folders.
        force: encode also what is there and whole.
        observer: told of progress; may ask to stop, which ends the encode under way as that of a single file, and
            begins no other.
        workers: encode with so many at once, files and segments alike (extra ``ray``); None for one after the other in
            this process, or on a cluster for as many as its cores suit.
        ray: address of a Ray cluster, or ``auto`` for the one that this machine is a part of; None for this machine.
        **settings: as :func:`nervcodec.encode` takes them, for each of the videos.

    Returns:
        One report for each source, in order; without those that were not begun.

    Raises:
        ConfigError: a setting is out of range; two sources would have one container; ``out`` cannot be written.
        VideoError: an input is not there.
        EncoderError: the semantic encoder cannot be loaded.
    """
    wanted, place = options.from_flat(**settings), Workers.of(workers, ray)
    named = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    found = find(named, None if out is None else Path(out), recursive)
    return list(encode_each(found, wanted, force, observer or Observer(), place))


def encode_each(
    found: Found, wanted: EncodeOptions, force: bool, observer: Observer, workers: Workers | None = None
) -> Iterator[FileReport]:
    """The same for sources that are found already: a report as soon as it is known what became of a source.

    Args:
        found: sources and containers.
        wanted: all settings, for each of them.
        force: encode also what is there and whole.
        observer: told of progress; may ask to stop.
        workers: where to encode; None for this process.

    Raises:
        ConfigError, EncoderError: what holds for all sources is wrong; nothing was encoded then.
    """
    if workers is not None and wanted.log_dir is not None:
        raise ConfigError("--log-dir writes the log of a fit in this process; it does not go with --workers or --ray")
    for text in found.notes:
        observer.note(text)
    known = {} if force else _looked_at(found.jobs, observer)
    jobs = [job for job in found.jobs if job not in known]
    if workers is not None:
        yield from known.values()
        if jobs:
            yield from _by_workers(workers, jobs, wanted, observer)
        return
    if jobs:
        equipment = _equip(wanted, observer)
    number = 0
    for job in found.jobs:
        if job in known:
            yield known[job]
        elif not observer.stop_requested():
            observer.file(FileEvent(number, len(jobs), str(job.source)))
            number += 1
            yield _reported(job, _with_log_of(job, found, wanted), equipment, force, observer)


def _by_workers(
    workers: Workers, jobs: Sequence[Job], wanted: EncodeOptions, observer: Observer
) -> Iterator[FileReport]:
    observer.stage("Starting workers")
    if workers.address is None:
        _equip(wanted, observer)  # what is missing here is missing for all
    from nervcodec.jobs.parallel import encode_on

    with started(workers, on_gpu=wanted.device != "cpu") as cluster:
        observer.stage(f"Encoding, {cluster.slots} at once")
        observer.worth_keeping()
        yield from encode_on(cluster, jobs, wanted, observer)


def _looked_at(jobs: Sequence[Job], observer: Observer) -> dict[Job, FileReport]:
    """Reports of the jobs for which there is nothing to do, or nothing that may be done."""
    known = {}
    observer.stage("Checking", len(jobs))
    for job in jobs:
        if (report := _needless(job, observer)) is not None:
            known[job] = report
        observer.advance()
    return known


def _needless(job: Job, observer: Observer) -> FileReport | None:
    """Why a job need not or must not be begun; None where it is to be done."""
    try:
        if is_done(job, observer.note):
            return FileReport(job.source, job.target, SKIPPED, _THERE)
    except (NervError, OSError) as error:
        return failed(job, reason(error), observer)
    return None


def _equip(wanted: EncodeOptions, observer: Observer) -> Equipment:
    """What all encodes have in common; from here on torch is in memory."""
    observer.stage("Preparing")
    from nervcodec.encoding.plan import equip
    from nervcodec.training.hooks import require_tensorboard

    if wanted.log_dir is not None:
        require_folder(Path(wanted.log_dir))
        require_tensorboard()
    return equip(wanted, observer)


def _with_log_of(job: Job, found: Found, wanted: EncodeOptions) -> EncodeOptions:
    """Settings in which the log of a job has a folder of its own, named as its container."""
    if wanted.log_dir is None:
        return wanted
    top = os.path.commonpath([other.target.absolute().parent for other in found.jobs])
    name = job.target.absolute().relative_to(top).with_suffix("")
    return replace(wanted, log_dir=str(Path(wanted.log_dir, name)))


def _reported(job: Job, wanted: EncodeOptions, equipment: Equipment, force: bool, observer: Observer) -> FileReport:
    """Encode one source; what goes wrong with it is told and reported."""
    start = time.perf_counter()
    try:
        if not force and is_done(job, lambda _text: None):  # somebody else made it meanwhile
            return FileReport(job.source, job.target, SKIPPED, _THERE)
        report = _encoded(job, wanted, equipment, observer)
    except Exception as error:
        if not is_of_a_source(error):
            raise
        return failed(job, reason(error), observer, time.perf_counter() - start)
    status, why = (DONE, "") if report.complete else (STOPPED, "holds the best state by then")
    return FileReport(job.source, job.target, status, why, report, time.perf_counter() - start)


def _encoded(job: Job, wanted: EncodeOptions, equipment: Equipment, observer: Observer) -> EncodeReport:
    """Encode one source, going on where an encode of it was left.

    Raises:
        NervError, OSError: it cannot be read or encoded, or its container not be written.
    """
    from nervcodec.encoding import encode_plan
    from nervcodec.encoding.plan import make_plan

    job.target.parent.mkdir(parents=True, exist_ok=True)
    require_free(job.target, force=True)
    changed = modified(job.source)
    plan = make_plan(job.source, wanted, observer, equipment)
    report = encode_plan(plan, job.target, observer, goes_on=True)
    set_date(job, changed, observer.note)
    return report
