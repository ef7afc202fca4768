# SPDX-License-Identifier: MIT
"""``nervcodec search``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nervcodec.cli import options

if TYPE_CHECKING:
    import numpy as np

    from nervcodec.retrieval import Moment
    from nervcodec.semantic.encoder import SemanticEncoder

_BAR = 10


@click.command(epilog='Example: nervcodec search "sink" kitchen.nerv -k 5')
@click.argument("query")
@click.argument("paths", metavar="[FILE|FOLDER]...", nargs=-1, type=options.EXISTING_ANY)
@click.option("-k", "k", type=click.IntRange(1), default=10, show_default=True, help="Moments to show.")
@click.option("--per-patch", is_flag=True, help="Every patch for itself, not grouped into moments.")
@click.option("--min-score", type=float, default=-2.0, help="Leave out what scores below this.")
@click.option("--image", is_flag=True, help="QUERY names an image file to look for instead of a text.")
@options.hardware
@options.as_json
@options.debug
def search(
    query: str,
    paths: tuple[str, ...],
    k: int,
    per_patch: bool,
    min_score: float,
    image: bool,
    device: str,
    precision: str,
    as_json: bool,
) -> None:
    """Find the moments and places that match a text, in .nerv files or in all of those below folders.

    Without FILE or FOLDER, searches every .nerv below the current folder. No pixel is decoded.
    """
    from nervcodec.cli.render import print_json
    from nervcodec.decoding import open_video
    from nervcodec.errors import ContainerError, EncoderError
    from nervcodec.retrieval import search_video

    if not query.strip():
        raise click.UsageError("the query is empty")
    files = _containers(paths)
    embed = _query_embedder(query, image, device)
    found: list[Moment] = []
    searched = 0
    problems = []
    for file in files:
        try:
            video = open_video(file, device, precision)
            found += search_video(video, embed(video.require_embeddings().encoder), k, min_score, per_patch)
            searched += 1
        except (ContainerError, EncoderError) as error:
            problems.append(error)
    if not searched:
        raise problems[0]
    for problem in problems:
        click.echo(f"nervcodec: skipped: {problem}", err=True)
    found.sort(key=lambda m: -m.score)
    found = found[:k]
    if as_json:
        print_json([moment.to_json() for moment in found])
    else:
        _show(query, found)


def _containers(paths: tuple[str, ...]) -> list[Path]:
    """The files named, and all containers below the folders named; below the current folder without any.

    Raises:
        ContainerError: there is no container.
    """
    from nervcodec.errors import ContainerError

    files: dict[Path, None] = {}
    for path in map(Path, paths or (".",)):
        found = sorted(p for p in path.rglob("*.nerv") if p.is_file()) if path.is_dir() else [path]
        files.update(dict.fromkeys(found))
    if not files:
        where = ", ".join(paths) or "the current folder"
        raise ContainerError(f"no .nerv file below {where}")
    return list(files)


def _query_embedder(query: str, image: bool, device: str) -> Callable[[str], np.ndarray]:
    """A function from an encoder's name to the query's vector; each encoder is loaded once."""
    from nervcodec.device import choose
    from nervcodec.errors import ConfigError, EncoderError
    from nervcodec.semantic.encoder import load

    vectors: dict[str, np.ndarray | EncoderError] = {}
    pixels = None
    if image:
        import numpy
        from PIL import Image

        try:
            with Image.open(query) as opened:
                pixels = numpy.asarray(opened.convert("RGB"))
        except OSError as error:
            raise ConfigError(f"{query}: is no image that can be read ({error})") from None

    def embedded(name: str) -> np.ndarray:
        if name not in vectors:
            try:
                encoder: SemanticEncoder = load(name, choose(device).device)
                rows = encoder.embed_text([query]) if pixels is None else encoder.embed_images([pixels])
                vectors[name] = rows[0]
            except EncoderError as error:
                vectors[name] = error
        vector = vectors[name]
        if isinstance(vector, EncoderError):
            raise vector
        return vector

    return embedded


def _show(query: str, found: list[Moment]) -> None:
    """A moment a line: score, file, start - end, best frame, patch as row,column and as x,y,w,h."""
    from nervcodec.cli.render import print_table, timecode

    if not found:
        click.echo("nothing found", err=True)
        return
    best = max(m.score for m in found)
    bars = sys.stdout.isatty()
    rows = []
    for m in found:
        bar = "█" * max(1, round(_BAR * m.score / best)) if bars and best > 0 else ""
        row = [f"{m.score:.4f}", str(m.file), f"{timecode(m.start_s)} - {timecode(m.end_s)}", str(m.frame)]
        row += [f"{m.patch[0]},{m.patch[1]}", ",".join(map(str, m.box))]
        rows.append([bar, *row] if bars else row)
    head = ["score", "file", "time", "frame", "patch", "x,y,w,h"]
    print_table(f'Moments that match "{query}"', ["", *head] if bars else head, rows)
