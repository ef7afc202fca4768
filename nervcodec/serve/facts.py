# SPDX-License-Identifier: MIT
"""What a container is made of, in words and numbers for a page; no network is built."""

from __future__ import annotations

from nervcodec.formats.container import Container
from nervcodec.formats.header import Header
from nervcodec.network.parts import PartSize, bytes_by_part, shared_weights, weights_by_part
from nervcodec.serve.fragments import plan
from nervcodec.serve.shelf import Item, Shelf
from nervcodec.serve.sound import TYPE


def described(shelf: Shelf, item: Item) -> dict:
    """All that a page shows of one file.

    Raises:
        ContainerError: it is damaged.
    """
    video = shelf.open(item)
    with Container.at(item.file) as opened:
        weights = weights_by_part(opened)
        parts = bytes_by_part(opened, weights)
        shared = shared_weights(opened)
    header, made = video.header, plan(video)
    times = video.frame_times_s.tolist() if header.video.variable_frame_rate else None
    rows, columns = header.patch_grid
    length = {"fragment_s": float(made.length), "count": made.count}
    facts = shelf.facts(item)
    return {
        **facts,
        "frame_times_s": times,
        "grid": {"rows": rows, "cols": columns},
        "parts": [{"name": name, "bytes": count} for name, count in parts.items()],
        "facts": [{"name": name, "value": value} for name, value in _said(item, header, weights, shared)],
        "psnr_over_time": None,  # no file holds it
        "has_base": header.base is not None,
        "changes_base": header.base is not None and video.changes_base,
        "video": {"type": made.type, **length},
        "audio": {"type": TYPE, **length} if facts["has_sound"] else None,
    }


def _said(item: Item, header: Header, weights: dict[str, PartSize], shared: PartSize | None) -> list[tuple[str, str]]:
    video, fit, network = header.video, header.fit, header.segments[0].network
    parameters, coded = (sum(getattr(part, name) for part in weights.values()) for name in ("parameters", "bytes"))
    bits = f", {8 * coded / parameters:.2f} bits per parameter" if parameters else ""
    pixels = video.frame_count * video.width * video.height
    rows = [
        ("source", video.source_name),
        ("frames", f"{video.frame_count:,} of {video.width} x {video.height}, {_rate(video.fps)}"),
        ("size", f"{item.size:,} bytes, {8 * item.size / pixels:.4f} bits per pixel"),
        ("patches", f"{header.patch_grid[0]} x {header.patch_grid[1]}"),
        ("segments", f"{len(header.segments):,}"),
    ]
    if (base := header.base) is not None:
        crf = "" if base.crf is None else f", crf {base.crf:g}"
        alone = "" if base.psnr_db is None else f", {base.psnr_db:.2f} dB alone"
        rows.append(("base layer", f"{base.codec}, {base.planes.depth} bit {base.planes.chroma}{crf}{alone}"))
    rows.append(("network", f"{network.get('kind')}, {parameters:,} parameters"))
    if shared is not None:
        rows.append(("shared by all segments", f"{shared.parameters:,} parameters, {shared.bytes:,} bytes"))
    stopped = "" if fit.complete else " (the fit was stopped early)"
    return [
        *rows,
        ("weights", f"{coded:,} bytes{bits}"),
        ("search", header.semantic.encoder if header.semantic else "no embeddings: cannot be searched"),
        ("quality", f"{fit.psnr_db:.2f} dB PSNR{stopped}"),
        ("fit", f"{fit.fit_s:.1f} s, {fit.steps:,} steps"),
        ("written by", header.tool),
    ]


def _rate(fps: float) -> str:
    return f"{fps:.6g} a second" if fps >= 1 else f"one every {1 / fps:.6g} s"
