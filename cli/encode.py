# SPDX-License-Identifier: MIT
"""``nervcodec encode``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nervcodec.cli import options
from nervcodec.options import GROUPS, SECTIONS


@click.command(cls=options.SectionedCommand, epilog="Example: nervcodec encode Kitchen.mp4 -o kitchen.nerv --time 3m")
@click.argument("source", metavar="INPUT", type=options.SOURCE)
@click.option("-o", "--output", type=click.Path(), help="The container. Default: INPUT's name with .nerv.")
@options.settings(GROUPS, SECTIONS)
@options.force
@options.as_json
@options.quiet
@options.verbose
@options.debug
def encode(
    source: str, output: str | None, force: bool, as_json: bool, verbose: bool, quiet: bool, **settings: Any
) -> None:
    """Fit a small network to a video file, or a folder of numbered frames, and write it as a .nerv container.

    Ctrl-C ends the fit early and writes the best state so far, of segments fitted one by one those that are finished.
    """
    from nervcodec.cli.output import INTERRUPTED
    from nervcodec.cli.progress import observer
    from nervcodec.cli.render import human_bytes, print_json, print_pairs
    from nervcodec.video.probe import require_file

    require_file(Path(source))  # before seconds go by for torch
    from nervcodec.encoding import encode as run

    with observer(quiet) as progress:
        report = run(source, output, observer=progress, force=force, **settings)
    if as_json:
        print_json(
            {
                "file": str(report.path),
                "bytes": report.size_bytes,
                "source_bytes": report.source_bytes,
                "bpp": round(report.rate_bpp, 6),
                "psnr": round(report.psnr_db, 4),
                "held_out_psnr": None if report.held_out_psnr_db is None else round(report.held_out_psnr_db, 4),
                "parameters": report.parameters,
                "frames": report.frames,
                "steps": report.steps,
                "embed_s": round(report.embed_s, 2),
                "fit_s": round(report.fit_s, 2),
                "complete": report.complete,
                "base": None if report.base is None else report.base.to_json(),
            }
        )
    elif not quiet:
        share = report.size_bytes / report.source_bytes
        rows = [
            ("file", str(report.path)),
            ("size", f"{human_bytes(report.size_bytes)} ({share:.0%} of the source, {report.rate_bpp:.4f} bpp)"),
            ("quality", f"{report.psnr_db:.2f} dB PSNR as it is decoded"),
            ("fit", f"{report.fit_s:.1f} s, {report.steps} steps, {report.frames} frames"),
        ]
        if report.held_out_psnr_db is not None:
            rows.insert(3, ("held out", f"{report.held_out_psnr_db:.2f} dB at the frames that were not fitted"))
        if report.base is not None:
            rows.insert(2, ("base", report.base.in_words(report.psnr_db)))
        if verbose:
            rows += [("parameters", f"{report.parameters:,}"), ("embedding", f"{report.embed_s:.1f} s")]
        print_pairs(f"Encoded {Path(source).name}", rows)
    if not report.complete:
        raise click.exceptions.Exit(INTERRUPTED)
