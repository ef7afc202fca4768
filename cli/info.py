# SPDX-License-Identifier: MIT
"""``nervcodec info``: everything a header says. Needs no torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nervcodec.cli import options

if TYPE_CHECKING:
    from nervcodec.formats.container import Container

_PARTS = {"grids": "grids", "pixels": "RGB head", "semantic": "semantic head"}


@click.command(epilog="Example: nervcodec info kitchen.nerv --json")
@click.argument("file", type=options.EXISTING)
@options.as_json
@options.debug
def info(file: str, as_json: bool) -> None:
    """Show a container's header, its network, sizes by part, and the quality recorded at encode."""
    from nervcodec.cli.render import human_bytes, print_json, print_pairs, timecode
    from nervcodec.formats.container import read
    from nervcodec.formats.fields import to_json

    path = Path(file)
    opened = read(path)
    header, size = opened.header, path.stat().st_size
    parameters = sum(math.prod(shape) for s in header.segments for shape, _ in opened.stored(s.prefix).values())
    parts = bytes_by_part(size, opened)
    pixels = header.video.frame_count * header.video.width * header.video.height
    if as_json:
        facts = {"bytes": size, "bpp": 8 * size / pixels, "parameters": parameters, "bytes_by_part": parts}
        print_json({**to_json(header), **facts})
        return
    video, fit = header.video, header.fit
    rows = [
        ("source", video.source_name),
        ("frames", f"{video.frame_count} of {video.width}x{video.height}, {video.fps:.6g} a second"),
        ("duration", timecode(video.duration_s)),
        ("size", f"{human_bytes(size)}, {8 * size / pixels:.4f} bpp"),
        ("patches", f"{header.patch_grid[0]} x {header.patch_grid[1]}"),
        ("segments", str(len(header.segments))),
        ("network", f"{header.segments[0].network.get('kind')}, {parameters:,} parameters"),
        ("encoder", header.semantic.encoder if header.semantic else "none: cannot be searched"),
        ("quality", f"{fit.psnr_db:.2f} dB PSNR{'' if fit.complete else ' (the fit was stopped early)'}"),
        ("fit", f"{fit.fit_s:.1f} s, {fit.steps} steps"),
        ("written by", header.tool),
    ]
    if video.sample_aspect_ratio != (1, 1):
        rows.insert(2, ("pixel shape", ":".join(map(str, video.sample_aspect_ratio))))
    rows += [(f"bytes, {part}", f"{count:,} ({count / size:.1%})") for part, count in parts.items()]
    print_pairs(path.name, rows)


def bytes_by_part(size: int, opened: Container) -> dict[str, int]:
    """Bytes of the file by what they are for; the parts add up to ``size``."""
    from nervcodec.formats.header import FRAME_TIMES

    parts = {"grids": 0, "decoder": 0, "RGB head": 0, "semantic head": 0, "frame times": 0}
    for segment in opened.header.segments:
        for name, (_, count) in opened.stored(segment.prefix).items():
            parts[_PARTS.get(name.split(".")[0], "decoder")] += count
    parts["frame times"] = sum(a.nbytes for name, a in opened.arrays.items() if name == FRAME_TIMES)
    parts["header and tables"] = size - sum(parts.values())
    return {part: count for part, count in parts.items() if count}
