# SPDX-License-Identifier: MIT
"""``nervcodec encode``, of one input or several."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nervcodec.cli import options
from nervcodec.formats.text import count_noun
from nervcodec.options import GROUPS, SECTIONS, from_flat

if TYPE_CHECKING:
    from nervcodec.encoding import EncodeReport
    from nervcodec.events import Observer
    from nervcodec.jobs.inputs import Job
    from nervcodec.jobs.scheduler import FileReport

_NOT_ENCODED = "not encoded"


@dataclass(frozen=True)
class Arguments:
    """The arguments of the command without the settings of an encode; paths as on the command line."""

    sources: tuple[str, ...]
    output: str | None
    recursive: bool
    force: bool
    as_json: bool
    quiet: bool
    verbose: bool
    workers: int | None
    ray: str | None

    @property
    def has_several_outputs(self) -> bool:
        """Whether the command may write several containers, in a folder or beside their sources."""
        below = self.recursive and any(map(os.path.isdir, self.sources))
        return len(self.sources) > 1 or below or (self.output is not None and _is_folder(self.output))


@click.command(
    cls=options.SectionedCommand,
    epilog="Example: nervcodec encode Kitchen.mp4 -o kitchen.nerv --time 3m; or: encode --recursive videos/ -o nerv/",
)
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=options.SOURCE)
@click.option(
    "-o", "--output", type=click.Path(), help="The container, or a folder for those of any number of INPUTs. "
    "Default: INPUT's name with .nerv.",
)  # fmt: skip
@click.option("--recursive", is_flag=True, help="Encode all videos below INPUTs that are folders.")
@click.option(
    "--workers", type=click.IntRange(1), metavar="N", help="Encode N files or segments at once, each in a process."
)
@click.option("--ray", metavar="ADDRESS", help="Encode on a Ray cluster; auto: the one that this machine is part of.")
@options.settings(GROUPS, SECTIONS)
@options.force
@options.as_json
@options.quiet
@options.verbose
@options.debug
def encode(**settings: Any) -> None:
    """Fit a small network to a video file, or a folder of numbered frames, and write it as a .nerv container.

    Ctrl-C ends the fit early and writes the best state so far, of several segments those that are finished.

    Several INPUTs, folders with --recursive, and a folder as the output: one container each, DIR/a/b.nerv for a video
    a/b.mp4 below INPUT. An undamaged container of the same source is skipped, unless --force is given; an encode that
    was killed or stopped is resumed; a file that fails does not stop the rest.
    """
    arguments = Arguments(**{each.name: settings.pop(each.name) for each in fields(Arguments)})
    if arguments.has_several_outputs:
        _encode_several(arguments, settings)
    else:
        _encode_one(arguments, settings)


# ---------------------------------------------------------------------- one input


def _encode_one(arguments: Arguments, settings: dict[str, Any]) -> None:
    from nervcodec.cli.output import INTERRUPTED, print_json, print_pairs
    from nervcodec.cli.progress import observer
    from nervcodec.jobs.inputs import require_source
    from nervcodec.media.probe import require_file

    start, source = time.perf_counter(), Path(arguments.sources[0])
    require_file(source)  # before torch is imported, which takes seconds
    require_source(source)
    with observer(arguments.quiet) as progress:
        if arguments.workers is None and arguments.ray is None:
            from nervcodec.encoding import encode as run

            report = run(source, arguments.output, observer=progress, force=arguments.force, **settings)
        else:
            report = _encode_by_workers(source, arguments, progress, settings)
    if arguments.as_json:
        print_json(report.to_json())
    elif not arguments.quiet:
        print_pairs(f"Encoded {source.name}", _rows(report, time.perf_counter() - start, arguments.verbose))
    if not report.complete:
        raise click.exceptions.Exit(INTERRUPTED)


def _encode_by_workers(
    source: Path, arguments: Arguments, progress: Observer, settings: dict[str, Any]
) -> EncodeReport:
    """Encode the segments of one input side by side."""
    from nervcodec.cli.output import INTERRUPTED, remark
    from nervcodec.errors import NervError
    from nervcodec.jobs.inputs import Job, Sources
    from nervcodec.jobs.scheduler import STOPPED, Workers, encode_each
    from nervcodec.outputs import beside, require_container

    job = Job(source, beside(source) if arguments.output is None else Path(arguments.output))
    require_container(job.target, arguments.force, source)
    workers = Workers(arguments.workers, arguments.ray)
    reports = list(encode_each(Sources((job,)), from_flat(**settings), arguments.force, progress, workers))
    if not reports or reports[0].status == STOPPED:
        remark(f"interrupted{f'; {reports[0].reason}' if reports else ''}")
        raise click.exceptions.Exit(INTERRUPTED)
    if reports[0].report is None:
        raise NervError(f"{source}: {reports[0].reason}")
    return reports[0].report


def _rows(report: EncodeReport, seconds: float, verbose: bool) -> list[tuple[str, str]]:
    """A report as names and figures; ``seconds`` is the time of the whole encode."""
    from nervcodec.formats.text import decibels, human_bytes

    share = report.size_bytes / report.source_bytes
    rows = [
        ("file", str(report.path)),
        ("size", f"{human_bytes(report.size_bytes)}, {share:.0%} of the source ({report.rate_bpp:.4f} bpp)"),
        ("quality", f"{decibels(report.psnr_db)} as it is decoded"),
    ]
    if report.held_out_psnr_db is not None:
        rows.append(("held out", f"{report.held_out_psnr_db:.2f} dB at the frames that were not fitted"))
    if report.vmaf is not None:
        rows.append(("VMAF", report.vmaf.in_words()))
    if report.base is not None:
        rows.append(("base", report.base.in_words()))
    if report.encoder is not None:
        rows.append(("search", f"{count_noun(report.embeddings, 'embedding')} by {report.encoder}"))
    speed = f"{count_noun(report.frames, 'frame')}, {report.frames / seconds:.1f} a second"
    rows.append(("time", f"{seconds:.1f} s for {speed}"))
    if verbose:
        fit = f"{report.fit_s:.1f} s" + (f", {count_noun(report.steps, 'step')}" if report.steps else "")
        rows += [("fit" if report.steps else "coding", fit), ("embedding", f"{report.embed_s:.1f} s")]
        rows.append(("parameters", f"{report.parameters:,}"))
    return rows


# ---------------------------------------------------------------------- several inputs


def _encode_several(arguments: Arguments, settings: dict[str, Any]) -> None:
    """Encode each input, and report all of them with one exit status."""
    from nervcodec.cli.output import FAILED, INTERRUPTED, remark
    from nervcodec.cli.progress import observer
    from nervcodec.errors import NothingFoundError
    from nervcodec.formats.text import SUFFIX
    from nervcodec.jobs import scheduler
    from nervcodec.jobs.inputs import find
    from nervcodec.jobs.scheduler import Workers, encode_each
    from nervcodec.outputs import is_media_name

    out = arguments.output
    if out is not None and not _is_folder(out) and (os.path.exists(out) or out.endswith(SUFFIX) or is_media_name(out)):
        raise click.UsageError(f"'{out}' is the name of one file; several inputs go to a folder, such as -o nerv/")
    checked, workers = from_flat(**settings), Workers(arguments.workers, arguments.ray)
    if arguments.ray is None and arguments.workers is None:
        workers = Workers(1)  # so that a decoder that crashes or hangs takes down one task, not the run
    try:
        inputs = find(arguments.sources, None if out is None else Path(out), arguments.recursive)
    except NothingFoundError:
        if arguments.as_json:
            _print_reports([], [], arguments)
        raise
    reports: list[FileReport] = []
    with observer(arguments.quiet) as progress:
        try:
            for report in encode_each(inputs, checked, arguments.force, progress, workers):
                reports.append(report)
            stopped = progress.stop_requested()
        except KeyboardInterrupt:
            stopped = True
    if not reports:
        raise KeyboardInterrupt
    order = {job.source: number for number, job in enumerate(inputs.jobs)}
    reports.sort(key=lambda report: order[report.source])  # workers may finish in another order
    begun = {report.source for report in reports}
    _print_reports(reports, [job for job in inputs.jobs if job.source not in begun], arguments)
    unfinished = len(inputs.jobs) - sum(report.status != scheduler.STOPPED for report in reports)
    if stopped and unfinished:
        remark(f"interrupted; {unfinished} of {count_noun(len(inputs.jobs), 'file')} not finished")
        raise click.exceptions.Exit(INTERRUPTED)
    if any(report.status == scheduler.FAILED for report in reports):
        raise click.exceptions.Exit(FAILED)


def _is_folder(output: str) -> bool:
    """Whether an output is a folder, or its name ends like that of one."""
    return os.path.isdir(output) or output.endswith(("/", os.sep))


def _print_reports(reports: Sequence[FileReport], not_begun: Sequence[Job], arguments: Arguments) -> None:
    """A row per file: source, status, container's size, PSNR, seconds, and the reason where it is not done."""
    from nervcodec.cli.output import print_json, print_table
    from nervcodec.formats.text import human_bytes
    from nervcodec.jobs.scheduler import STATUSES

    counts = Counter(report.status for report in reports)
    if arguments.as_json:
        totals = {status: counts[status] for status in STATUSES}
        print_json({"files": [report.to_json() for report in reports], **totals, "not_begun": len(not_begun)})
    elif not arguments.quiet:
        rows = []
        for each in reports:
            result = each.report
            figures = ["", ""] if result is None else [human_bytes(result.size_bytes), f"{result.psnr_db:.2f} dB"]
            seconds = f"{each.seconds:.1f} s" if each.seconds else ""
            rows.append([str(each.source), each.status, *figures, seconds, each.reason])
        rows += [[str(job.source), _NOT_ENCODED, "", "", "", ""] for job in not_begun]
        counts[_NOT_ENCODED] = len(not_begun)
        summary = ", ".join(f"{counts[status]:,} {status}" for status in (*STATUSES, _NOT_ENCODED) if counts[status])
        head = ["file", "status", "size", "quality", "time", "why"]
        print_table(f"{count_noun(len(rows), 'file')}: {summary}", head, rows)
