# SPDX-License-Identifier: MIT
"""``nervcodec eval``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nervcodec.cli import options

if TYPE_CHECKING:
    from nervcodec.evaluation.compare import EvalReport


def _codecs(text: str) -> list[str]:
    from nervcodec.evaluation.classical import parse_codecs

    return parse_codecs(text)


CODECS = options.Parsed("LIST", _codecs)


@dataclass(frozen=True)
class _Wanted:
    """The command's arguments; paths as they were given."""

    file: str
    original: str | None
    per_frame: str | None
    per_patch: str | None
    dump_images: str | None
    against: list[str] | None
    plot: str | None
    page: str | None
    queries: str | None
    device: str
    precision: str
    force: bool
    as_json: bool
    quiet: bool


@click.command("eval", epilog="Example: nervcodec eval kitchen.nerv Kitchen.mp4 --json")
@click.argument("file", type=options.EXISTING)
@click.argument("original", required=False, type=options.SOURCE)
@click.option("--per-frame", type=click.Path(dir_okay=False), metavar="OUT.csv", help="Write every frame's figures.")
@click.option("--per-patch", type=click.Path(dir_okay=False), metavar="OUT.csv", help="The same of every patch.")
@click.option("--against", type=CODECS, help="Also encode with these at the same bytes: x264,x265,svtav1,vvenc.")
@click.option("--plot", type=click.Path(dir_okay=False), metavar="OUT.png", help="Draw --against as curves.")
@click.option("--report", "page", type=click.Path(dir_okay=False), metavar="OUT.html", help="All of it as one page.")
@click.option("--queries", type=options.EXISTING, help="Texts to compare rankings by, one a line. Default: 50 shipped.")
@click.option(
    "--dump-images",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Ten PNGs: original, decoded, difference.",
)
@options.hardware
@options.force
@options.as_json
@options.quiet
@options.debug
def evaluate(**given: Any) -> None:
    """Measure a .nerv container against the video it was made from.

    ORIGINAL is looked for beside FILE under the name in the container where it is not given.
    """
    from nervcodec.cli.progress import observer
    from nervcodec.cli.render import print_json, print_pairs
    from nervcodec.evaluation.compare import evaluate as run
    from nervcodec.evaluation.fidelity import read_queries

    wanted = _Wanted(**given)
    original = _original(wanted)
    _require_outputs(wanted)
    with observer(wanted.quiet) as progress:
        report = run(
            wanted.file, original, wanted.device, wanted.precision, progress,
            dump_images=wanted.dump_images,
            against=wanted.against or (),
            queries=read_queries(Path(wanted.queries)) if wanted.queries else None,
            per_patch=wanted.per_patch is not None,
        )  # fmt: skip
    _write_files(wanted, original, report)
    if wanted.as_json:
        print_json(report.to_json())
    else:
        print_pairs(f"{Path(wanted.file).name} against {Path(original).name}", _rows(report))


def _original(wanted: _Wanted) -> str:
    from nervcodec.formats.container import read_header

    if wanted.original is not None:
        return wanted.original
    beside = Path(wanted.file).parent / read_header(Path(wanted.file)).video.source_name
    if not beside.name or not os.path.exists(beside):
        raise click.UsageError(f"name the original video; {beside} is not there")
    return str(beside)


def _require_outputs(wanted: _Wanted) -> None:
    """Refuse outputs that cannot be written before anything is measured."""
    from nervcodec.evaluation.plots import require_plots
    from nervcodec.outputs import require_folder, require_free

    if wanted.plot and not wanted.against:
        raise click.UsageError("--plot draws what --against measures; name codecs there")
    if wanted.plot or wanted.page:
        require_plots()
    for output in (wanted.per_frame, wanted.per_patch, wanted.plot, wanted.page):
        if output:
            require_free(Path(output), wanted.force)
    if wanted.dump_images:
        require_folder(Path(wanted.dump_images))


def _write_files(wanted: _Wanted, original: str, report: EvalReport) -> None:
    """Tables, curves and the page, those that were asked for."""
    from nervcodec.errors import ConfigError
    from nervcodec.evaluation.plots import rate_distortion
    from nervcodec.evaluation.report import write_report
    from nervcodec.formats.atomic import writing
    from nervcodec.formats.container import Container
    from nervcodec.network.parts import bytes_by_part, weights_by_part

    for table, text in ((wanted.per_frame, report.per_frame_csv), (wanted.per_patch, report.per_patch_csv)):
        if table:
            with writing(Path(table), ConfigError) as temporary:
                temporary.write_text(text())
    if wanted.plot:
        curves = {c[0].codec: [(p.size_bytes, p.quality.psnr_db) for p in c] for c in report.against}
        curves = {"nervcodec": [(report.size_bytes, report.psnr_db)], **curves}
        rate_distortion(curves, f"{Path(original).name}, {len(report.per_frame)} frames", Path(wanted.plot))
    if wanted.page:
        with Container.at(Path(wanted.file)) as opened:
            parts = bytes_by_part(opened, weights_by_part(opened))
        write_report(wanted.file, original, report, parts, wanted.page, wanted.device, wanted.precision)


def _rows(report: EvalReport) -> list[tuple[str, str]]:
    """The report as names and figures, other codecs at the end."""
    from nervcodec.display import human_bytes

    rows = report.rows()
    for curve in report.against:
        best = curve[0]
        ms_ssim = "" if best.quality.ms_ssim is None else f", MS-SSIM {best.quality.ms_ssim:.4f}"
        vmaf = "" if best.quality.vmaf is None else f", VMAF {best.quality.vmaf:.1f}"
        measured = f"{best.quality.psnr_db:.2f} dB{ms_ssim}{vmaf}, {human_bytes(best.size_bytes)}"
        rows.append((f"{best.codec} {best.setting}", f"{measured}, {best.encode_s:.1f} s to encode"))
    return rows
