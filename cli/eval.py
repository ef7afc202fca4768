# SPDX-License-Identifier: MIT
"""``nervcodec eval``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nervcodec.cli import options
from nervcodec.formats.text import count_noun

if TYPE_CHECKING:
    from nervcodec.evaluation.compare import EvalReport


def _codecs(text: str) -> list[str]:
    from nervcodec.evaluation.classical import parse_codecs

    return parse_codecs(text)


CODECS = options.Parsed("LIST", _codecs)


@click.command("eval", epilog="Example: nervcodec eval kitchen.nerv Kitchen.mp4 --json")
@click.argument("file", type=options.EXISTING)
@click.argument("original", required=False, type=options.SOURCE)
@click.option(
    "--every", type=click.IntRange(1), metavar="N", help="Compare one frame in N. Default: all, or about 1,000 of more."
)
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
def evaluate(
    file: str,
    original: str | None,
    every: int | None,
    per_frame: str | None,
    per_patch: str | None,
    against: list[str] | None,
    plot: str | None,
    page: str | None,
    queries: str | None,
    dump_images: str | None,
    device: str,
    precision: str,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a .nerv container against the video it was made from.

    ORIGINAL is looked for beside FILE under the name in the container where it is not given.
    """
    from nervcodec.cli.output import print_json, print_pairs
    from nervcodec.cli.progress import observer
    from nervcodec.evaluation.compare import evaluate as run
    from nervcodec.evaluation.fidelity import read_queries
    from nervcodec.evaluation.plots import require_plots
    from nervcodec.outputs import require_folder, require_free

    source = original or _beside(file)
    if plot and not against:
        raise click.UsageError("--plot draws what --against measures; name codecs there")
    if plot or page:
        require_plots()
    for output in (per_frame, per_patch, plot, page):
        if output:
            require_free(Path(output), force, file, source)
    if dump_images:
        require_folder(Path(dump_images))
    with observer(quiet) as progress:
        report = run(
            file, source, device, precision, progress,
            dump_images=dump_images,
            against=against or (),
            queries=read_queries(Path(queries)) if queries else None,
            per_patch=per_patch is not None,
            every=every,
        )  # fmt: skip
    if per_frame:
        _write_text(per_frame, report.per_frame_csv())
    if per_patch:
        _write_text(per_patch, report.per_patch_csv())
    if plot:
        _write_plot(plot, source, report)
    if page:
        _write_page(page, file, source, report, device, precision)
    if as_json:
        print_json(report.to_json())
    else:
        print_pairs(f"{Path(file).name} against {Path(source).name}", _rows(report))


def _beside(file: str) -> str:
    """The original beside a container."""
    from nervcodec.formats.container import read_header

    beside = Path(file).parent / read_header(Path(file)).video.source_name
    if not beside.name or not os.path.exists(beside):
        raise click.UsageError(f"name the original video; {beside} is not there")
    return str(beside)


def _write_text(out: str, text: str) -> None:
    from nervcodec.errors import ConfigError
    from nervcodec.formats.atomic import writing

    with writing(Path(out), ConfigError) as temporary:
        temporary.write_text(text)


def _write_plot(out: str, source: str, report: EvalReport) -> None:
    from nervcodec.evaluation.plots import rate_distortion

    curves = {c[0].codec: [(p.size_bytes, p.quality.psnr_db) for p in c] for c in report.against}
    curves = {"nervcodec": [(report.size_bytes, report.psnr_db)], **curves}
    rate_distortion(curves, f"{Path(source).name}, {count_noun(len(report.per_frame), 'frame')}", Path(out))


def _write_page(out: str, file: str, source: str, report: EvalReport, device: str, precision: str) -> None:
    from nervcodec.evaluation.report import write_report
    from nervcodec.formats.container import Container
    from nervcodec.network.summary import bytes_by_part, weights_by_part

    with Container.open(Path(file)) as opened:
        parts = bytes_by_part(opened, weights_by_part(opened))
    write_report(file, source, report, parts, out, device, precision)


def _rows(report: EvalReport) -> list[tuple[str, str]]:
    """The report as names and figures, other codecs at the end."""
    from nervcodec.formats.text import human_bytes

    rows = report.rows()
    for curve in report.against:
        best = curve[0]
        ms_ssim = "" if best.quality.ms_ssim is None else f", MS-SSIM {best.quality.ms_ssim:.4f}"
        vmaf = "" if best.quality.vmaf is None else f", VMAF {best.quality.vmaf:.1f}"
        measured = f"{best.quality.psnr_db:.2f} dB{ms_ssim}{vmaf}, {human_bytes(best.size_bytes)}"
        rows.append((f"{best.codec} {best.setting}", f"{measured}, {best.encode_s:.1f} s to encode"))
    return rows
