# SPDX-License-Identifier: MIT
"""``nervcodec search``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nervcodec.cli import options
from nervcodec.cli.output import can_write, one_thread_for_numpy, remark
from nervcodec.formats.text import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nervcodec.search.moments import Grouping, Moment
    from nervcodec.search.query import Query

_BAR_LENGTH = 10
_ALL = 1_000_000  # moments, with --all
_LOWEST_SCORE = -2.0  # below any score


@click.command(epilog='Example: nervcodec search "sink" kitchen.nerv -k 5; or: search horse + stripes - zoo videos/')
@click.argument("words", metavar="QUERY [+|- QUERY]... [FILE|FOLDER]...", nargs=-1)
@click.option("-k", "k", type=click.IntRange(1), metavar="N", help="Moments to show. Default: 10, or all with --all.")
@click.option(
    "--all", "every", is_flag=True, help="Every stretch, not one moment a scene; copies of a video one by one."
)
@click.option("--per-patch", is_flag=True, help="Every patch for itself, neither grouped into moments nor cut off.")
@click.option(
    "--min-score",
    type=options.FiniteRange(-10, 10),
    metavar="X",
    help="Leave out what scores below this, in place of the calibrated cut-off.",
)
@click.option("--image", type=options.EXISTING, help="Look for what an image shows instead of QUERY.")
@click.option("--sheet", type=click.Path(dir_okay=False), metavar="OUT.png", help="Best frames, patch outlined.")
@click.option("--clips", type=click.Path(file_okay=False), metavar="DIR", help="Decode each moment to a short mp4.")
@options.hardware
@options.force
@options.as_json
@options.debug
def search(
    words: tuple[str, ...],
    k: int | None,
    every: bool,
    per_patch: bool,
    min_score: float | None,
    image: str | None,
    sheet: str | None,
    clips: str | None,
    device: str,
    precision: str,
    force: bool,
    as_json: bool,
) -> None:
    """Find the moments and patches that match a text, in .nerv files and below folders.

    Without FILE or FOLDER, searches every .nerv below the current folder. No pixel is decoded, save for --sheet
    and --clips. A text that matches nothing finds nothing.
    """
    one_thread_for_numpy()
    from nervcodec.cli.output import print_json
    from nervcodec.errors import ConfigError
    from nervcodec.formats.text import short_timecode
    from nervcodec.search.query import parse_query

    try:
        query, rest = parse_query(words, Path(image) if image else None)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    for term in query.terms[1:]:
        if term.text is not None and (os.sep in term.text or term.text.endswith(SUFFIX)) and os.path.exists(term.text):
            remark(f"'{term.text}' after + or - is a text to search for; name files and folders at the end")
    files = _find_containers(rest)
    if sheet or clips:
        _check_outputs(sheet, clips, force, [*files, *([image] if image else [])])
    from nervcodec.index.lookup import search_files
    from nervcodec.search.query import QueryEncoder

    cut_off = min_score is None and not per_patch  # leave out what does not match
    encode = QueryEncoder(query, device, cut_off)
    grouping: Grouping = "patch" if per_patch else "stretch" if every else "scene"
    folders = [path for path in rest or ["."] if os.path.isdir(path)]
    lowest = _LOWEST_SCORE if min_score is None else min_score
    k = k or (_ALL if every else 10)
    result = search_files(files, folders, encode, k, lowest, grouping, remark, device, precision)
    moments, problems, nearest = result
    if len(problems) == len(files):
        raise problems[0]
    for problem in dict.fromkeys(map(str, problems)):
        remark(f"skipped: {problem}")
    for message in (*encode.messages, *query.notes()):
        remark(message)
    if as_json:
        print_json([moment.to_json() for moment in moments])
    elif moments:
        _print_moments(query, moments)
    if not moments:
        if nearest is None:
            remark(f'nothing matches "{query}"')
        else:
            hint = f"; --min-score {_LOWEST_SCORE:g} lists what comes nearest" if cut_off else ""
            remark(f'nothing certain for "{query}"; nearest: {nearest.file} {short_timecode(nearest.start_s)}{hint}')
        return
    if sheet or clips:
        _write_pictures(query, moments, sheet, clips, device, precision, force)


def _find_containers(paths: list[str]) -> dict[Path, os.stat_result]:
    """The containers to search. A path that does not exist is wrong usage, mostly a query without quotation marks."""
    from nervcodec.formats.text import shorten
    from nervcodec.search.files import find_containers

    for path in paths:
        if not os.path.exists(path):
            raise click.UsageError(f"'{shorten(path)}' does not exist; a query of several words needs quotation marks")
    return find_containers(paths)


def _check_outputs(sheet: str | None, clips: str | None, force: bool, inputs: Sequence[str | Path]) -> None:
    from nervcodec.outputs import require_folder, require_free

    if sheet:
        require_free(Path(sheet), force, *inputs)
    if clips:
        require_folder(Path(clips))


def _print_moments(query: Query, moments: list[Moment]) -> None:
    """A line per moment: score, file, start - end, best frame, patch as row,column and as x,y,w,h, and where the
    video has copies, their files."""
    from nervcodec.cli.output import print_table
    from nervcodec.formats.text import timecode

    best = max(m.score for m in moments)
    bars = sys.stdout.isatty()
    block = "█" if can_write("█") else "#"
    rows = []
    for m in moments:
        bar = block * max(1, round(_BAR_LENGTH * m.score / best)) if bars and best > 0 else ""
        row = [f"{m.score:.4f}", str(m.file), f"{timecode(m.start_s)} - {timecode(m.end_s)}", str(m.frame)]
        row += [f"{m.patch[0]},{m.patch[1]}", ",".join(map(str, m.box))]
        rows.append([bar, *row] if bars else row)
    head = ["score", "file", "time", "frame", "patch", "x,y,w,h"]
    if any(m.also_in for m in moments):
        head.append("")
        copies = (", ".join(map(str, m.also_in)) for m in moments)
        rows = [[*row, f"also in {names}" if names else ""] for row, names in zip(rows, copies, strict=True)]
    print_table(f'Moments that match "{query}"', ["", *head] if bars else head, rows)


def _write_pictures(
    query: Query,
    moments: list[Moment],
    sheet: str | None,
    clips: str | None,
    device: str,
    precision: str,
    force: bool,
) -> None:
    from nervcodec.search import render

    with render.VideoCache(device, precision) as open_video:
        if any(open_video(m.file).hdr for m in moments):
            remark("frames in HDR are tone-mapped to 8-bit BT.709")
        if sheet:
            image = render.draw_contact_sheet(moments, str(query), open_video)
            render.write_image(image, Path(sheet))
        if clips:
            for path in render.write_clips(moments, Path(clips), open_video, force):
                remark(f"wrote {path}")
