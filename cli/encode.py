# SPDX-License-Identifier: MIT
"""``nervcodec encode``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from nervcodec.cli import many, options
from nervcodec.formats.text import count_noun
from nervcodec.options import GROUPS, SECTIONS


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
def encode(verbose: bool, **settings: Any) -> None:
    """Fit a small network to a video file, or a folder of numbered frames, and write it as a .nerv container.

    Ctrl-C ends the fit early and writes the best state so far, of several segments those that are finished.

    Several INPUTs, folders with --recursive, and a folder as the output: one container each, DIR/a/b.nerv for a video
    a/b.mp4 below INPUT. A container that is whole and of its source is skipped, unless --force is given; an encode that
    was killed or stopped is resumed; a file that fails does not stop the rest.
    """
    arguments = many.Arguments(**{each.name: settings.pop(each.name) for each in fields(many.Arguments)})
    if arguments.means_many:
        many.encode_all(arguments, settings)
    else:
        _encode_one(arguments, verbose, settings)


def _encode_one(arguments: many.Arguments, verbose: bool, settings: dict[str, Any]) -> None:
    from nervcodec.cli.output import INTERRUPTED
    from nervcodec.cli.progress import observer
    from nervcodec.cli.render import print_json, print_pairs
    from nervcodec.formats.text import decibels, human_bytes
    from nervcodec.jobs.inputs import require_source
    from nervcodec.media.probe import require_file

    source = Path(arguments.sources[0])
    require_file(source)  # before seconds go by for torch
    require_source(source)
    with observer(arguments.quiet) as progress:
        if arguments.workers is None and arguments.ray is None:
            from nervcodec.encoding import encode as run

            report = run(source, arguments.output, observer=progress, force=arguments.force, **settings)
        else:
            report = many.encode_by_workers(arguments, progress, settings)
    if arguments.as_json:
        print_json(report.to_json())
    elif not arguments.quiet:
        share = report.size_bytes / report.source_bytes
        rows = [
            ("file", str(report.path)),
            ("size", f"{human_bytes(report.size_bytes)} ({share:.0%} of the source, {report.rate_bpp:.4f} bpp)"),
            ("quality", f"{decibels(report.psnr_db)} as it is decoded"),
            ("fit", f"{report.fit_s:.1f} s, {count_noun(report.steps, 'step')}, {count_noun(report.frames, 'frame')}"),
        ]
        if not report.steps:
            rows[-1] = ("encoding", f"{report.fit_s:.1f} s, {count_noun(report.frames, 'frame')}")
        if report.held_out_psnr_db is not None:
            rows.insert(3, ("held out", f"{report.held_out_psnr_db:.2f} dB at the frames that were not fitted"))
        if report.base is not None:
            rows.insert(2, ("base", report.base.in_words()))
        if report.vmaf is not None:
            rows.insert(3, ("VMAF", report.vmaf.in_words()))
        if verbose:
            rows += [("parameters", f"{report.parameters:,}"), ("embedding", f"{report.embed_s:.1f} s")]
        print_pairs(f"Encoded {source.name}", rows)
    if not report.complete:
        raise click.exceptions.Exit(INTERRUPTED)
