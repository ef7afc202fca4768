# SPDX-License-Identifier: MIT
"""``nervcodec info``: everything a header says. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nervcodec.cli import options

if TYPE_CHECKING:
    from nervcodec.formats.header import BaseFacts, FitRecord, Header


@click.command(epilog="Example: nervcodec info kitchen.nerv --json")
@click.argument("file", type=options.EXISTING)
@options.as_json
@options.debug
def info(file: str, as_json: bool) -> None:
    """Show a container's header, its network, sizes by part, and the quality recorded at encode."""
    from nervcodec.cli.render import decibels, human_bytes, print_json, print_pairs, timecode
    from nervcodec.formats.container import Container
    from nervcodec.formats.fields import to_json
    from nervcodec.network.parts import bytes_by_part, shared_weights, weights_by_part

    path = Path(file)
    with Container.at(path) as opened:
        header, size = opened.header, opened.size_bytes
        weights = weights_by_part(opened)
        parts = bytes_by_part(opened, weights)
        shared = shared_weights(opened)
    parameters = sum(part.parameters for part in weights.values())
    coded = sum(part.bytes for part in weights.values())
    pixels = header.video.frame_count * header.video.width * header.video.height
    if as_json:
        facts = {
            "bytes": size,
            "bpp": 8 * size / pixels,
            "parameters": parameters,
            "bits_per_parameter": 8 * coded / parameters if parameters else None,
            "bytes_by_part": parts,
            "parameters_by_part": {name: part.parameters for name, part in weights.items()},
        }
        if shared is not None:
            facts |= {"shared_parameters": shared.parameters, "shared_bytes": shared.bytes}
        print_json({**to_json(header), **facts})
        return
    video, fit, aspect = header.video, header.fit, header.video.sample_aspect_ratio
    bits = f", {8 * coded / parameters:.2f} bits per parameter" if parameters else ""
    rows = [
        ("source", video.source_name),
        ("frames", f"{video.frame_count} of {video.width}x{video.height}, {_rate(video.fps)}"),
        *([("pixel shape", ":".join(map(str, aspect)))] if aspect != (1, 1) else []),
        ("duration", timecode(video.duration_s)),
        ("size", f"{human_bytes(size)}, {8 * size / pixels:.4f} bpp"),
        ("patches", f"{header.patch_grid[0]} x {header.patch_grid[1]}"),
        ("segments", str(len(header.segments))),
        *([("base layer", _base(header.base))] if header.base is not None else []),
        ("network", f"{_kind(header, weights)}, {parameters:,} parameters"),
        *([("shared", f"{shared.parameters:,} parameters, {shared.bytes:,} bytes")] if shared is not None else []),
        ("weights", f"{coded:,} bytes{bits}"),
        *([("entropy", _entropy(coded, fit.entropy_bytes))] if fit.entropy_bytes else []),
        ("encoder", header.semantic.encoder if header.semantic else "none: cannot be searched"),
        ("quality", f"{decibels(fit.psnr_db)}{_stopped(fit, video.frame_count)}"),
        ("fit", f"{fit.fit_s:.1f} s, {fit.steps} steps"),
        ("written by", header.tool),
    ]
    for part, count in parts.items():
        own = weights.get(part)
        detail = f", {own.parameters:,} parameters at {8 * own.bytes / own.parameters:.2f} bits" if own else ""
        rows.append((f"bytes, {part}", f"{count:,} ({count / size:.1%}){detail}"))
    print_pairs(path.name, rows)


def _kind(header: Header, parts: Collection[str]) -> str:
    """Of the networks; above a base layer that they leave as it is, they hold embeddings alone."""
    from nervcodec.network.parts import SEMANTIC_HEAD

    alone = header.base is not None and set(parts) <= {SEMANTIC_HEAD}
    return SEMANTIC_HEAD if alone else str(header.segments[0].network.get("kind"))


def _rate(fps: float) -> str:
    return f"{fps:.6g} a second" if fps >= 1 else f"one every {1 / fps:.6g} s"


def _entropy(coded: int, entropy: int) -> str:
    than = coded / entropy - 1
    return f"{entropy:,} bytes, each tensor alone; coded in {abs(than):.1%} {'more' if than > 0 else 'less'}"


def _stopped(fit: FitRecord, frames: int) -> str:
    """That a fit was stopped, and how much of the video is missing; nothing where it was not."""
    if fit.complete:
        return ""
    missing = fit.missing_frames or 0
    of = frames + missing
    return f" (the fit was stopped early{f'; {missing:,} of {of:,} frames are missing' if missing else ''})"


def _base(base: BaseFacts) -> str:
    from nervcodec.formats.header import IDENTICAL_DB

    facts = [base.kind, base.codec, f"{base.width}x{base.height}", f"{base.planes.depth} bit {base.planes.chroma}"]
    facts += [] if base.crf is None else [f"crf {base.crf:g}"]
    facts += [] if base.psnr_db in (None, IDENTICAL_DB) else [f"{base.psnr_db:.2f} dB alone"]
    return ", ".join(facts)
