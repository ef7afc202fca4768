# SPDX-License-Identifier: MIT
"""Summary of a container in numbers and in words: bytes by part, weights by their purpose. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
from nervcodec.formats.header import AUDIO, FRAME_TIMES, IDENTICAL_DB, BaseHeader, FitRecord, Header
from nervcodec.formats.text import count_noun, decibels, human_bytes, timecode
from nervcodec.network.config import CELL, STAGES, GridConfig, NetworkConfig, network_from_json

GRIDS, DECODER, RGB_HEAD, SEMANTIC_HEAD = PARTS = ("grids", "decoder", "RGB head", "semantic head")

_PART_OF_PREFIX = {
    "grids": GRIDS,
    "enter": DECODER, "stages": DECODER, "raise_": DECODER,  # of GridField
    "stem": DECODER, "blocks": DECODER,  # of PatchField
    "pixels": RGB_HEAD,
    "semantic": SEMANTIC_HEAD,
}  # fmt: skip


class PartSize(NamedTuple):
    """Weights of one part of the networks: bytes in the file and number of values."""

    bytes: int
    parameters: int

    def plus(self, shape: tuple[int, ...], count: int) -> PartSize:
        """With another tensor of a shape and coded size."""
        return PartSize(self.bytes + count, self.parameters + math.prod(shape))


def part_of(name: str) -> str:
    """The part of the network, one of :data:`PARTS`, of a tensor.

    Raises:
        ContainerError: no network has such a tensor.
    """
    prefix = name.partition(".")[0]
    if prefix not in _PART_OF_PREFIX:
        raise ContainerError(f"tensor {name[:80]!r} belongs to no part of a network")
    return _PART_OF_PREFIX[prefix]


def weights_by_part(opened: Container) -> dict[str, PartSize]:
    """Weights of all segments by part, grids by scale; shared ones count once.

    Raises:
        ContainerError: stored data is damaged, or does not match the networks in the header.
    """
    sums: dict[str, PartSize] = {}
    shared = opened.shared_weights()
    for number, segment in enumerate(opened.header.segments):
        stored = opened.network(segment.prefix).table()
        if shared is not None and not number:
            stored |= shared.table()
        try:
            network = network_from_json(segment.network)
            for name, (shape, count) in stored.items():
                part = _part_with_scale(name, network)
                sums[part] = sums.get(part, PartSize(0, 0)).plus(shape, count)
        except ContainerError as error:
            raise ContainerError(f"{opened.path}: {error}") from None
    order = [*(_grids_of(stage) for stage in range(STAGES)), DECODER, RGB_HEAD, SEMANTIC_HEAD]
    return {part: sums[part] for part in order if part in sums}


def shared_weights(opened: Container) -> PartSize | None:
    """Weights that all segments share; None where there are none.

    Raises:
        ContainerError: stored data is damaged.
    """
    shared = opened.shared_weights()
    if shared is None:
        return None
    size = PartSize(0, 0)
    for shape, count in shared.table().values():
        size = size.plus(shape, count)
    return size


def bytes_by_part(opened: Container, weights: Mapping[str, PartSize]) -> dict[str, int]:
    """Bytes of the file by purpose, given :func:`weights_by_part`; they add up to its size."""
    parts = {name: part.bytes for name, part in weights.items()}
    parts["base"] = sum(opened.nbytes(name) for name in opened.header.base_arrays())
    parts |= {"frame times": opened.nbytes(FRAME_TIMES), "audio": opened.nbytes(AUDIO)}
    parts["header and tables"] = opened.size_bytes - sum(parts.values())
    return {part: count for part, count in parts.items() if count}


def _grids_of(stage: int) -> str:
    return f"{GRIDS} 1/{CELL >> stage}"


def _part_with_scale(name: str, network: NetworkConfig) -> str:
    """As :func:`part_of`, with the scale of grids."""
    part = part_of(name)
    if part != GRIDS:
        return part
    number = name.split(".")[1:2]
    grids = network.grids if isinstance(network, GridConfig) else ()
    if not number or number[0] not in map(str, range(len(grids))):
        raise ContainerError(f"tensor {name[:80]!r} belongs to no grid of the network")
    return _grids_of(grids[int(number[0])].stage)


@dataclass(frozen=True)
class Summary:
    """Summary of a container.

    Attributes:
        header: the container's.
        size_bytes: of the file.
        weights: by part.
        bytes_by_part: of the file; they add up to its size.
        shared: weights that all segments share; None where there are none.
    """

    header: Header
    size_bytes: int
    weights: dict[str, PartSize]
    bytes_by_part: dict[str, int]
    shared: PartSize | None

    @classmethod
    def of(cls, opened: Container) -> Summary:
        """From an open container.

        Raises:
            ContainerError: it is damaged.
        """
        weights = weights_by_part(opened)
        shared = shared_weights(opened)
        return cls(opened.header, opened.size_bytes, weights, bytes_by_part(opened, weights), shared)

    @property
    def parameters(self) -> int:
        """Number of parameters of all networks."""
        return sum(part.parameters for part in self.weights.values())

    @property
    def coded_bytes(self) -> int:
        """Size of all weights."""
        return sum(part.bytes for part in self.weights.values())

    @property
    def rate_bpp(self) -> float:
        """Bits per pixel."""
        video = self.header.video
        return 8 * self.size_bytes / (video.frame_count * video.width * video.height)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for people, without the bytes by part."""
        header, parameters, coded = self.header, self.parameters, self.coded_bytes
        video, fit, aspect, shared = header.video, header.fit, header.video.sample_aspect_ratio, self.shared
        bits = f", {8 * coded / parameters:.2f} bits per parameter" if parameters else ""
        return [
            ("source", video.source_name),
            ("frames", f"{video.frame_count} of {video.width}x{video.height}, {_rate(video.fps)}"),
            *([("pixel shape", ":".join(map(str, aspect)))] if aspect != (1, 1) else []),
            ("duration", timecode(video.duration_s)),
            ("size", f"{human_bytes(self.size_bytes)}, {self.rate_bpp:.4f} bpp"),
            ("patches", f"{header.patch_grid[0]} x {header.patch_grid[1]}"),
            ("segments", str(len(header.segments))),
            *([("base layer", _base(header.base))] if header.base is not None else []),
            ("network", f"{_kind(header)}, {count_noun(parameters, 'parameter')}"),
            *(
                [("shared", f"{count_noun(shared.parameters, 'parameter')}, {shared.bytes:,} bytes")]
                if shared is not None
                else []
            ),
            ("weights", f"{coded:,} bytes{bits}"),
            *([("entropy", _entropy(coded, fit.entropy_bytes))] if fit.entropy_bytes else []),
            ("encoder", header.semantic.encoder if header.semantic else "none: cannot be searched"),
            ("quality", f"{decibels(fit.psnr_db)}{_stopped(fit, video.frame_count)}"),
            *([("fit", f"{fit.fit_s:.1f} s, {count_noun(fit.steps, 'step')}")] if fit.steps else []),
            ("written by", header.tool),
        ]


def _kind(header: Header) -> str:
    """Kind of network; with a base layer, the semantic head."""
    return SEMANTIC_HEAD if header.base is not None else str(header.segments[0].network.get("kind"))


def _rate(fps: float) -> str:
    return f"{fps:.6g} a second" if fps >= 1 else f"one every {1 / fps:.6g} s"


def _entropy(coded: int, entropy: int) -> str:
    than = coded / entropy - 1
    return f"{entropy:,} bytes, each tensor alone; coded in {abs(than):.1%} {'more' if than > 0 else 'less'}"


def _stopped(fit: FitRecord, frames: int) -> str:
    """Note on an interrupted fit and missing frames; empty for a complete one."""
    if fit.complete:
        return ""
    missing = fit.missing_frames or 0
    of = count_noun(frames + missing, "frame")
    return f" (the fit was stopped early{f'; {missing:,} of {of} missing' if missing else ''})"


def _base(base: BaseHeader) -> str:
    facts = [] if base.kind == base.codec else [base.kind]
    facts += [base.codec, f"{base.width}x{base.height}", f"{base.planes.depth} bit {base.planes.chroma}"]
    facts += [] if base.crf is None else [f"crf {base.crf:g}"]
    facts += [] if base.psnr_db in (None, IDENTICAL_DB) else [f"{base.psnr_db:.2f} dB"]
    return ", ".join(facts)
