# SPDX-License-Identifier: MIT
"""``nervcodec eval``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from nervcodec.cli import options


def _codecs(text: str) -> list[str]:
    from nervcodec.classical import parse_codecs

    return parse_codecs(text)


CODECS = options.Parsed("LIST", _codecs)


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
def evaluate(
    file: str,
    original: str | None,
    per_frame: str | None,
    per_patch: str | None,
    dump_images: str | None,
    against: list[str] | None,
    plot: str | None,
    page: str | None,
    queries: str | None,
    device: str,
    precision: str,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a .nerv container against the video it was made from.

    ORIGINAL is looked for beside FILE under the name in the container where it is not given.
    """
    from nervcodec.cli.progress import observer
    from nervcodec.cli.render import human_bytes, print_json, print_pairs
    from nervcodec.errors import ConfigError
    from nervcodec.evaluation import evaluate as run
    from nervcodec.formats.atomic import writing
    from nervcodec.formats.container import Container, read_header
    from nervcodec.network.parts import bytes_by_part, weights_by_part
    from nervcodec.outputs import require_folder, require_free
    from nervcodec.plots import rate_distortion, require_matplotlib
    from nervcodec.report import write_report
    from nervcodec.semantic.fidelity import read_queries
    from nervcodec.split import FITTED, HELD_OUT

    if original is None:
        beside = Path(file).parent / read_header(Path(file)).video.source_name
        if not beside.name or not os.path.exists(beside):
            raise click.UsageError(f"name the original video; {beside} is not there")
        original = str(beside)
    tables = [Path(name) for name in (per_frame, per_patch) if name]
    drawing = Path(plot) if plot else None
    if drawing is not None:
        if not against:
            raise click.UsageError("--plot draws what --against measures; name codecs there")
        require_matplotlib()
    for output in (*tables, drawing, Path(page) if page else None):
        if output is not None:
            require_free(output, force)
    images = Path(dump_images) if dump_images else None
    if images is not None:
        require_folder(images)
    with observer(quiet) as progress:
        texts = read_queries(Path(queries)) if queries else None
        report = run(
            file, original, device, precision, progress, images,
            against=against or (), queries=texts, per_patch=per_patch is not None,
        )  # fmt: skip
    for table, text in ((per_frame, report.per_frame_csv), (per_patch, report.per_patch_csv)):
        if table:
            with writing(Path(table), ConfigError) as temporary:
                temporary.write_text(text())
    if drawing is not None:
        curves = {c[0].codec: [(p.size_bytes, p.quality.psnr_db) for p in c] for c in report.against}
        curves = {"nervcodec": [(report.size_bytes, report.psnr_db)], **curves}
        rate_distortion(curves, f"{Path(original).name}, {len(report.per_frame)} frames", drawing)
    if page:
        with Container.at(Path(file)) as opened:
            parts = bytes_by_part(opened, weights_by_part(opened))
        write_report(file, original, report, parts, page, device, precision)
    if as_json:
        print_json(report.to_json())
        return
    rows = [
        ("PSNR", f"{report.psnr_db:.2f} dB"),
        ("SSIM", f"{report.ssim:.4f}"),
        ("MS-SSIM", "too small for five scales" if report.ms_ssim is None else f"{report.ms_ssim:.4f}"),
        ("rate", f"{report.rate_bpp:.4f} bpp, {human_bytes(report.size_bytes)}"),
        ("decoding", f"{report.decode_fps:.1f} frames/s"),
    ]
    if report.held_out_frames:
        fitted, held_out = report.of_role(FITTED), report.of_role(HELD_OUT)
        rows.insert(1, ("held out", f"{held_out['psnr']:.2f} dB, fitted {fitted['psnr']:.2f} dB"))
    if report.between is not None:
        at_patches = f"the same pixels from patches {report.between.patch_psnr_db:.2f} dB"
        rows.append(("between patches", f"{report.between.psnr_db:.2f} dB, {at_patches}"))
    if report.source_bytes:
        rows.append(("source", f"{human_bytes(report.source_bytes)}, audio included"))
    for role, figures in report.fidelity.items():
        where = ", held out" if role == HELD_OUT else ""
        semantic, ranking = figures.semantic, figures.retrieval
        steady = (
            f"{semantic['smoothness']:.3f} from frame to frame, the reference {semantic['reference_smoothness']:.3f}"
        )
        rows += [
            (f"cosine{where}", f"{semantic['cosine']:.4f}, centred {semantic['centred_cosine']:.4f}"),
            (f"diversity{where}", f"{semantic['diversity']:.3f} of the reference; cosine {steady}"),
            (f"recall@10{where}", f"{ranking['recall_at_10']:.3f}"),
            (f"nDCG@10{where}", f"{ranking['ndcg_at_10']:.3f}"),
            (f"rank correlation{where}", f"{ranking['rank_correlation']:.3f}"),
        ]
    if report.vmaf is not None:
        rows.append(("VMAF", f"{report.vmaf:.1f}"))
    for curve in report.against:
        best = curve[0]
        ms_ssim = "" if best.quality.ms_ssim is None else f", MS-SSIM {best.quality.ms_ssim:.4f}"
        vmaf = "" if best.quality.vmaf is None else f", VMAF {best.quality.vmaf:.1f}"
        measured = f"{best.quality.psnr_db:.2f} dB{ms_ssim}{vmaf}, {human_bytes(best.size_bytes)}"
        rows.append((f"{best.codec} {best.setting}", f"{measured}, {best.encode_s:.1f} s to encode"))
    print_pairs(f"{Path(file).name} against {Path(original).name}", rows)
