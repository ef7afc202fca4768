# SPDX-License-Identifier: MIT
"""Segments of a video whose frames all fit into memory: fitted as one network, which is then taken apart.

What a segment decodes alone must know nothing of its neighbours. So the grids of that network do not interpolate from
one segment to the next: each has entries of its own there, which are the segment's grids as they stand.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nervcodec.encoding.head import Tensors
from nervcodec.fitting.rate_control import SizeGoal, coded_to
from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import RoundedTensor
from nervcodec.formats.fields import from_json, to_json
from nervcodec.network.config import Geometry, GridConfig
from nervcodec.network.field import Field
from nervcodec.network.ownership import is_own
from nervcodec.network.timeline import entries_in

_TRIES = 5  # at a size
_SPARE_BYTES = 60  # below it, from one try to the next
# What a segment's stream takes beside what its values take of that of all, about: its table and its models.
APART_BYTES = 150


@dataclass(frozen=True)
class Piece:
    """What a segment has of the network.

    Attributes:
        config: of the segment alone.
        tensors: its own parameters, as they are stored.
    """

    config: GridConfig
    tensors: Tensors

    def to_facts(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        stream = torch.from_numpy(bitstream.encode(self.tensors).copy())
        return {"config": json.dumps(to_json(self.config)), "tensors": stream}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Piece:
        """The inverse of :meth:`to_facts`."""
        config = from_json(GridConfig, json.loads(facts["config"]), "network")
        return cls(config, bitstream.read(facts["tensors"].numpy()))


def divided(whole: GridConfig, lengths: Sequence[int]) -> tuple[GridConfig, tuple[GridConfig, ...]]:
    """The networks of segments, and that of all of them: whose grids have the entries of theirs, one after the other.

    Args:
        whole: of all frames, with a cut where a segment begins.
        lengths: frames of each segment.
    """
    bounds = [0, *whole.cuts, whole.geometry.frames]
    edges = list(itertools.accumulate(lengths, initial=0))
    assert set(edges) <= set(bounds)
    entries = [
        [] if number in whole.lasting else entries_in(grid.times, bounds, whole.pace)
        for number, grid in enumerate(whole.grids)
    ]
    parts = []
    for first, stop in itertools.pairwise(edges):
        shots = slice(bounds.index(first), bounds.index(stop))
        geometry = replace(whole.geometry, frames=stop - first)
        grids = tuple(
            grid if number in whole.lasting else replace(grid, times=_most(sum(entries[number][shots]), geometry))
            for number, grid in enumerate(whole.grids)
        )
        parts.append(
            replace(
                whole,
                geometry=geometry,
                grids=grids,
                cuts=tuple(cut - first for cut in bounds[shots][1:]),
                pace=whole.pace[first : stop - 1],
                scenes=whole.scenes[shots],
            )
        )
    grids = tuple(
        grid if number in whole.lasting else replace(grid, times=sum(part.grids[number].times for part in parts))
        for number, grid in enumerate(whole.grids)
    )
    return replace(whole, grids=grids), tuple(parts)


def _most(times: int, geometry: Geometry) -> int:
    return min(times, max(2, geometry.frames))


def taken_apart(
    field: Field, steps: dict[str, np.ndarray], parts: Sequence[GridConfig], goal: SizeGoal | None
) -> tuple[Tensors, tuple[Piece, ...]]:
    """What all segments share, and what each has alone.

    Args:
        field: of all segments, fitted.
        steps: quantisation steps by tensor.
        parts: configuration of each segment's network.
        goal: what all of it should take when it is stored, or None.

    Raises:
        ContainerError: a weight is not finite.
    """
    aim = goal
    for _ in range(_TRIES):
        stored = bitstream.read(coded_to(field, steps, aim))
        common, pieces = _apart(stored, parts)
        if goal is None or aim is None:
            break
        size = sum(bitstream.encode(tensors).size for tensors in (common, *(piece.tensors for piece in pieces)))
        if size <= goal.limit_bytes:
            break
        aim = aim.less(size - goal.limit_bytes + _SPARE_BYTES, 1)
    return common, pieces


def _apart(stored: Tensors, parts: Sequence[GridConfig]) -> tuple[Tensors, tuple[Piece, ...]]:
    common = {name: tensor for name, tensor in stored.items() if not is_own(parts[0], name)}
    pieces, begun = [], dict.fromkeys(stored, 0)
    for part in parts:
        own: Tensors = {}
        for number, grid in enumerate(part.grids):
            name = f"grids.{number}.values"
            if is_own(part, name):
                own[name] = _moments(stored[name], begun[name], grid.times)
                begun[name] += grid.times
        pieces.append(Piece(part, own))
    return common, tuple(pieces)


def _moments(tensor: RoundedTensor | np.ndarray, first: int, count: int) -> RoundedTensor | np.ndarray:
    """Entries of a grid."""
    if isinstance(tensor, RoundedTensor):
        return replace(tensor, integers=tensor.integers[first : first + count])
    return tensor[first : first + count]
