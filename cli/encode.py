# SPDX-License-Identifier: MIT
"""``nervcodec encode``."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from nervcodec.cli import options
from nervcodec.cli.options import DURATION, PAIR, PATCHES, SCALE, SIZE, Parsed
from nervcodec.errors import ConfigError
from nervcodec.fitting.config import PIXEL_LOSSES


def _strides(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d{1,2}([,_]\d{1,2})*", text):
        raise ConfigError(f"{text!r} is not a list of strides such as 5,3,2,2,2")
    return tuple(int(part) for part in re.split("[,_]", text))


def _rate(text: str) -> Fraction:
    if not re.fullmatch(r"\d{1,6}(/\d{1,6}|\.\d{1,6})?", text) or text.endswith("/0") or not (rate := Fraction(text)):
        raise ConfigError(f"{text!r} is not a frame rate such as 25 or 30000/1001")
    return rate


@click.command(epilog="Example: nervcodec encode Kitchen.mp4 -o kitchen.nerv --time 3m")
@click.argument("source", metavar="INPUT", type=options.SOURCE)
@click.option("-o", "--output", type=click.Path(), help="The container. Default: INPUT's name with .nerv.")
@click.option("--preset", help="A set of defaults; nervcodec presets lists them. Other options override its values.")
@click.option("--time", "time_s", type=DURATION, help="Fit for so long (90s, 5m, 1h). Default: 3m for every 10 s.")
@click.option("--epochs", type=click.IntRange(1), help="Or fit for so many passes over the video.")
@click.option("--size", "size_bytes", type=SIZE, help="Size of the container, such as 400KB. Default: under INPUT's.")
@click.option("--bpp", type=click.FloatRange(0, min_open=True), help="Or its size in bits per pixel.")
@click.option(
    "--psnr", "psnr_db", type=click.FloatRange(0, 100, True, True), help="Stop once this many dB are reached."
)
@click.option("--embed", help="Positional encoding: grid (default) or pe_1.25_80 (the original method).")
@click.option("--parameters", type=click.IntRange(1), help="About how many parameters the grid network gets.")
@click.option("--fc-dim", type=click.IntRange(1), help="pe: channels of the stem.")
@click.option("--fc-hw", type=PAIR, help="pe: height and width of the stem's output, such as 9_16.")
@click.option("--strides", type=Parsed("LIST", _strides), help="pe: upscaling of each block, such as 5,3,2,2,2.")
@click.option("--reduce", type=click.FloatRange(1), help="pe: channels shrink by this factor at every block.")
@click.option("--lower-width", type=click.IntRange(1), help="pe: but never below this.")
@click.option("--patches", type=PATCHES, help="Rows x columns of patches. Default: 2x4.")
@click.option("--crop", type=PAIR, help="Height and width of a window cut from the middle, such as 640_1280.")
@click.option("--scale", type=SCALE, help="Scale frames to 1280x720, or by a factor such as 0.5.")
@click.option("--start", "start_s", type=DURATION, help="Skip what comes before this time.")
@click.option("--duration", "duration_s", type=DURATION, help="Keep this much.")
@click.option(
    "--fps",
    "frame_rate",
    type=Parsed("RATE", _rate),
    help="Frame rate of a folder of frames, or of a stream that states none. Default: 25.",
)
@click.option(
    "--stream",
    type=click.IntRange(0),
    help="Which video stream of several, from 0. Default: the one marked as default, else the largest.",
)
@click.option("--split", help="Hold frames out from the fit: 6_6_10 fits 6 of every 10. Default: all are fitted.")
@click.option("--segment", help="Longest stretch one network is fitted to: 10s (default), 250f or none.")
@click.option(
    "--loss",
    type=click.Choice(PIXEL_LOSSES, case_sensitive=False),
    metavar="NAME",
    help="Pixel loss: log-l2 (default), l1, l2, ssim, or fusion1 to fusion12.",
)
@click.option("--semantic-loss", type=click.Choice(["centred", "cosine"]), help="cosine: as the original method's.")
@click.option("--semantic-weight", type=click.FloatRange(0), help="Weight of the semantic loss.")
@click.option(
    "--pixel-warmup", type=click.FloatRange(0), help="Fit pixels only for this fraction of the fit, or so many epochs."
)
@click.option(
    "--rate-weight", type=click.FloatRange(0), help="Price of a bit: more makes the file smaller. Default: 0.1."
)
@click.option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    help="Learning rate. Default: 0.02 with muon, lower for a fit of many steps; 0.001 with adam.",
)
@click.option("--lr-type", help="Schedule, such as cosine_0.1_1_0.1, linear_0.03_1_0, step_0.25_0.5 or constant.")
@click.option("--optimizer", type=click.Choice(["muon", "adam"]), help="Default: muon for grid, adam for pe.")
@click.option("--batch-size", type=click.IntRange(1), help="Frames (grid) or patches (pe) in a batch.")
@click.option("--encoder", help="auto (default), offline, none, openclip:MODEL/PRETRAINED or openclip:PATH.")
@click.option("--semantic-fps", type=click.FloatRange(0, min_open=True), help="Frames a second that get embeddings.")
@click.option("--eval-every", type=click.IntRange(1), metavar="N", help="Measure some frames every N epochs.")
@click.option("--debug-run", is_flag=True, help="A handful of batches and a container, to see whether all works.")
@click.option("--seed", type=click.IntRange(0), help="Of weights and batches. Default: 0.")
@click.option(
    "--audio", type=click.Choice(["copy", "none"]), help="Keep the source's sound as it is (default), or not."
)
@click.option("--resume", is_flag=True, help="Go on where an encode with the same options was killed.")
@click.option(
    "--log-dir", type=click.Path(file_okay=False), metavar="DIR", help="Write the fit's course for TensorBoard."
)
@options.hardware
@options.force
@options.as_json
@options.quiet
@options.verbose
@options.debug
def encode(
    source: str, output: str | None, force: bool, as_json: bool, verbose: bool, quiet: bool, **settings: Any
) -> None:
    """Fit a small network to a video file, or a folder of numbered frames, and write it as a .nerv container.

    Ctrl-C ends the fit early and writes the best state so far.
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
            }
        )
    elif not quiet:
        share = report.size_bytes / report.source_bytes
        rows = [
            ("file", str(report.path)),
            ("size", f"{human_bytes(report.size_bytes)} ({share:.0%} of the source, {report.rate_bpp:.4f} bpp)"),
            ("quality", f"{report.psnr_db:.2f} dB PSNR after quantisation"),
            ("fit", f"{report.fit_s:.1f} s, {report.steps} steps, {report.frames} frames"),
        ]
        if report.held_out_psnr_db is not None:
            rows.insert(3, ("held out", f"{report.held_out_psnr_db:.2f} dB at the frames that were not fitted"))
        if verbose:
            rows += [("parameters", f"{report.parameters:,}"), ("embedding", f"{report.embed_s:.1f} s")]
        print_pairs(f"Encoded {Path(source).name}", rows)
    if not report.complete:
        raise click.exceptions.Exit(INTERRUPTED)
