# SPDX-License-Identifier: MIT
"""``nervcodec encode`` for several inputs: all that is shown of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nervcodec.formats.text import count_noun

if TYPE_CHECKING:
    from nervcodec.encoding import EncodeReport
    from nervcodec.events import Observer
    from nervcodec.jobs.inputs import Job
    from nervcodec.jobs.report import FileReport

_NOT_ENCODED = "not encoded"


@dataclass(frozen=True)
class Arguments:
    """The command's arguments, settings of the fit apart; paths as they were given."""

    sources: tuple[str, ...]
    output: str | None
    recursive: bool
    force: bool
    as_json: bool
    quiet: bool
    workers: int | None = None
    ray: str | None = None

    @property
    def means_many(self) -> bool:
        """Whether the command may write several containers, in a folder or beside their sources."""
        below = self.recursive and any(map(os.path.isdir, self.sources))
        return len(self.sources) > 1 or below or (self.output is not None and _is_folder(self.output))


def encode_all(arguments: Arguments, settings: dict[str, Any]) -> None:
    """Encode each input; a table or JSON of what became of all of them, and the exit status that says so."""
    from nervcodec import options
    from nervcodec.cli.output import FAILED, INTERRUPTED, remark
    from nervcodec.cli.progress import observer
    from nervcodec.errors import NothingFoundError
    from nervcodec.formats.text import SUFFIX
    from nervcodec.jobs import report as reported
    from nervcodec.jobs.inputs import find
    from nervcodec.jobs.scheduler import Workers, encode_each
    from nervcodec.outputs import is_media_name

    out = arguments.output
    if out is not None and not _is_folder(out) and (os.path.exists(out) or out.endswith(SUFFIX) or is_media_name(out)):
        raise click.UsageError(f"'{out}' is the name of one file; several inputs go to a folder, such as -o nerv/")
    checked, workers = options.from_flat(**settings), Workers(arguments.workers, arguments.ray)
    if arguments.ray is None and arguments.workers is None:
        workers = Workers(1)  # so that a decoder that crashes or hangs takes down one task, not the run
    try:
        found = find(arguments.sources, None if out is None else Path(out), arguments.recursive)
    except NothingFoundError:
        if arguments.as_json:
            _show([], [], arguments)
        raise
    reports: list[FileReport] = []
    with observer(arguments.quiet) as progress:
        try:
            for report in encode_each(found, checked, arguments.force, progress, workers):
                reports.append(report)
            stopped = progress.stop_requested()
        except KeyboardInterrupt:
            stopped = True
    if not reports:
        raise KeyboardInterrupt
    order = {job.source: number for number, job in enumerate(found.jobs)}
    reports.sort(key=lambda report: order[report.source])  # workers are done with them in another one
    begun = {report.source for report in reports}
    _show(reports, [job for job in found.jobs if job.source not in begun], arguments)
    rest = len(found.jobs) - sum(report.status != reported.STOPPED for report in reports)
    if stopped and rest:
        remark(f"interrupted; {rest} of {count_noun(len(found.jobs), 'file')} not finished")
        raise click.exceptions.Exit(INTERRUPTED)
    if any(report.status == reported.FAILED for report in reports):
        raise click.exceptions.Exit(FAILED)


def encode_by_workers(arguments: Arguments, progress: Observer, settings: dict[str, Any]) -> EncodeReport:
    """Encode one input, its segments side by side.

    Raises:
        NervError: as :func:`nervcodec.encode`.
    """
    from nervcodec import options
    from nervcodec.cli.output import INTERRUPTED, remark
    from nervcodec.errors import NervError
    from nervcodec.jobs import report as reported
    from nervcodec.jobs.inputs import Found, Job
    from nervcodec.jobs.scheduler import Workers, encode_each
    from nervcodec.outputs import beside, require_container

    source = Path(arguments.sources[0])
    job = Job(source, beside(source) if arguments.output is None else Path(arguments.output))
    require_container(job.target, arguments.force, source)
    checked, workers = options.from_flat(**settings), Workers(arguments.workers, arguments.ray)
    found = list(encode_each(Found((job,)), checked, arguments.force, progress, workers))
    if not found or found[0].status == reported.STOPPED:
        remark(f"interrupted{f'; {found[0].reason}' if found else ''}")
        raise click.exceptions.Exit(INTERRUPTED)
    (one,) = found
    if one.report is None:
        raise NervError(f"{source}: {one.reason}")
    return one.report


def _is_folder(output: str) -> bool:
    """Whether an output is meant to be a folder."""
    return os.path.isdir(output) or output.endswith(("/", os.sep))


def _show(reports: Sequence[FileReport], others: Sequence[Job], arguments: Arguments) -> None:
    """A file a line: source, status, container's size, PSNR, seconds, and why where it is not done."""
    from nervcodec.cli.render import print_json, print_table
    from nervcodec.formats.text import human_bytes
    from nervcodec.jobs.report import STATUSES

    counts = Counter(report.status for report in reports)
    if arguments.as_json:
        totals = {status: counts[status] for status in STATUSES}
        print_json({"files": [report.to_json() for report in reports], **totals, "not_begun": len(others)})
    elif not arguments.quiet:
        rows = []
        for report in reports:
            made = report.report
            figures = ["", ""] if made is None else [human_bytes(made.size_bytes), f"{made.psnr_db:.2f} dB"]
            seconds = f"{report.seconds:.1f} s" if report.seconds else ""
            rows.append([str(report.source), report.status, *figures, seconds, report.reason])
        rows += [[str(job.source), _NOT_ENCODED, "", "", "", ""] for job in others]
        counts[_NOT_ENCODED] = len(others)
        summary = ", ".join(f"{counts[status]:,} {status}" for status in (*STATUSES, _NOT_ENCODED) if counts[status])
        print_table(
            f"{count_noun(len(rows), 'file')}: {summary}", ["file", "status", "size", "quality", "time", "why"], rows
        )
