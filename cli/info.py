# SPDX-License-Identifier: MIT
"""``nervcodec info``: everything a header says. Needs no torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from nervcodec.cli import options

if TYPE_CHECKING:
    from nervcodec.formats.container import Container
    from nervcodec.network.config import NetworkConfig

_PARTS = {"pixels": "RGB head", "semantic": "semantic head"}
_COARSEST = 16  # pixels between positions of the first stage's features; half as many at each stage after


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
    weights = by_part(opened)
    parameters = sum(part.parameters for part in weights.values())
    coded = sum(part.bytes for part in weights.values())
    parts = bytes_by_part(size, opened)
    pixels = header.video.frame_count * header.video.width * header.video.height
    if as_json:
        facts = {
            "bytes": size,
            "bpp": 8 * size / pixels,
            "parameters": parameters,
            "bits_per_parameter": 8 * coded / parameters,
            "bytes_by_part": parts,
            "parameters_by_part": {name: part.parameters for name, part in weights.items()},
        }
        print_json({**to_json(header), **facts})
        return
    video, fit = header.video, header.fit
    rows = [
        ("source", video.source_name),
        ("frames", f"{video.frame_count} of {video.width}x{video.height}, {_rate(video.fps)}"),
        ("duration", timecode(video.duration_s)),
        ("size", f"{human_bytes(size)}, {8 * size / pixels:.4f} bpp"),
        ("patches", f"{header.patch_grid[0]} x {header.patch_grid[1]}"),
        ("segments", str(len(header.segments))),
        ("network", f"{header.segments[0].network.get('kind')}, {parameters:,} parameters"),
        ("weights", f"{coded:,} bytes, {8 * coded / parameters:.2f} bits per parameter"),
        ("encoder", header.semantic.encoder if header.semantic else "none: cannot be searched"),
        ("quality", f"{fit.psnr_db:.2f} dB PSNR{'' if fit.complete else ' (the fit was stopped early)'}"),
        ("fit", f"{fit.fit_s:.1f} s, {fit.steps} steps"),
        ("written by", header.tool),
    ]
    if video.sample_aspect_ratio != (1, 1):
        rows.insert(2, ("pixel shape", ":".join(map(str, video.sample_aspect_ratio))))
    if fit.entropy_bytes is not None:
        place = next(i for i, row in enumerate(rows) if row[0] == "weights") + 1
        difference = coded / fit.entropy_bytes - 1
        rows.insert(
            place, ("entropy", f"{fit.entropy_bytes:,} bytes, each tensor alone; coded in {difference:+.1%} of it")
        )
    for part, count in parts.items():
        own = weights.get(part)
        detail = f", {own.parameters:,} parameters at {8 * own.bytes / own.parameters:.2f} bits" if own else ""
        rows.append((f"bytes, {part}", f"{count:,} ({count / size:.1%}){detail}"))
    print_pairs(path.name, rows)


def _rate(fps: float) -> str:
    return f"{fps:.6g} a second" if fps >= 1 else f"one every {1 / fps:.6g} s"


class Part(NamedTuple):
    """Weights of one part of the networks: bytes in the file and number of values."""

    bytes: int
    parameters: int


def by_part(opened: Container) -> dict[str, Part]:
    """Weights of all segments by what they are for: grids by the scale they feed, decoder, heads."""
    from nervcodec.network.config import network_from_json

    sums: dict[str, Part] = {}
    for segment in opened.header.segments:
        network = network_from_json(segment.network)
        for name, (shape, count) in opened.stored(segment.prefix).items():
            part = _part_of(name, network)
            before = sums.get(part, Part(0, 0))
            sums[part] = Part(before.bytes + count, before.parameters + math.prod(shape))
    order = [f"grids 1/{_COARSEST >> stage}" for stage in range(3)] + ["decoder", *_PARTS.values()]
    return {part: sums[part] for part in order if part in sums}


def _part_of(name: str, network: NetworkConfig) -> str:
    from nervcodec.network.config import GridConfig

    owner, *rest = name.split(".")
    if owner == "grids" and isinstance(network, GridConfig):
        number = int(rest[0]) if rest and rest[0].isdecimal() else len(network.grids)
        if number < len(network.grids):
            return f"grids 1/{_COARSEST >> network.grids[number].stage}"
    return _PARTS.get(owner, "decoder")


def bytes_by_part(size: int, opened: Container) -> dict[str, int]:
    """Bytes of the file by what they are for; the parts add up to ``size``."""
    from nervcodec.formats.header import AUDIO, FRAME_TIMES

    parts = {name: part.bytes for name, part in by_part(opened).items()}
    for part, name in (("frame times", FRAME_TIMES), ("audio", AUDIO)):
        parts[part] = opened.arrays[name].nbytes if name in opened.arrays else 0
    parts["header and tables"] = size - sum(parts.values())
    return {part: count for part, count in parts.items() if count}
