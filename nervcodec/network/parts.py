# SPDX-License-Identifier: MIT
"""What each tensor of a network is for, by its name: the one map, for reports and for logs. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
from nervcodec.formats.header import AUDIO, FRAME_TIMES
from nervcodec.network.config import CELL, STAGES, GridConfig, NetworkConfig, network_from_json

GRIDS, DECODER, RGB_HEAD, SEMANTIC_HEAD = PARTS = ("grids", "decoder", "RGB head", "semantic head")

_OWNERS = {  # what tensors' names begin with
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
        """With a tensor of that shape in so many bytes."""
        return PartSize(self.bytes + count, self.parameters + math.prod(shape))


def part_of(name: str) -> str:
    """The part, one of :data:`PARTS`, that a tensor belongs to.

    Raises:
        ContainerError: no network has such a tensor.
    """
    owner = name.partition(".")[0]
    if owner not in _OWNERS:
        raise ContainerError(f"tensor {name[:80]!r} belongs to no part of a network")
    return _OWNERS[owner]


def weights_by_part(opened: Container) -> dict[str, PartSize]:
    """Weights of all segments by what they are for, grids by the scale they feed; shared ones count once.

    Raises:
        ContainerError: what is stored is damaged, or not of the networks that the header describes.
    """
    sums: dict[str, PartSize] = {}
    shared = opened.shared_weights()
    for number, segment in enumerate(opened.header.segments):
        stored = opened.stored(segment.prefix)
        if shared is not None and not number:
            stored |= shared.table()
        try:
            network = network_from_json(segment.network)
            for name, (shape, count) in stored.items():
                part = _scaled_part(name, network)
                sums[part] = sums.get(part, PartSize(0, 0)).plus(shape, count)
        except ContainerError as error:
            raise ContainerError(f"{opened.path}: {error}") from None
    order = [*(_grids_of(stage) for stage in range(STAGES)), DECODER, RGB_HEAD, SEMANTIC_HEAD]
    return {part: sums[part] for part in order if part in sums}


def shared_weights(opened: Container) -> PartSize | None:
    """Those of the weights that all segments share; None where each has all its own.

    Raises:
        ContainerError: what is stored is damaged.
    """
    shared = opened.shared_weights()
    if shared is None:
        return None
    size = PartSize(0, 0)
    for shape, count in shared.table().values():
        size = size.plus(shape, count)
    return size


def bytes_by_part(opened: Container, weights: Mapping[str, PartSize]) -> dict[str, int]:
    """Bytes of the file by what they are for, given what :func:`weights_by_part` found; they add up to its size."""
    parts = {name: part.bytes for name, part in weights.items()}
    parts["base"] = sum(opened.nbytes(name) for name in opened.header.base_arrays())
    parts |= {"frame times": opened.nbytes(FRAME_TIMES), "audio": opened.nbytes(AUDIO)}
    parts["header and tables"] = opened.size_bytes - sum(parts.values())
    return {part: count for part, count in parts.items() if count}


def _grids_of(stage: int) -> str:
    return f"{GRIDS} 1/{CELL >> stage}"


def _scaled_part(name: str, network: NetworkConfig) -> str:
    """As :func:`part_of`, with the scale of grids."""
    part = part_of(name)
    if part != GRIDS:
        return part
    number = name.split(".")[1:2]
    grids = network.grids if isinstance(network, GridConfig) else ()
    if not number or number[0] not in map(str, range(len(grids))):
        raise ContainerError(f"tensor {name[:80]!r} belongs to no grid of the network")
    return _grids_of(grids[int(number[0])].stage)
