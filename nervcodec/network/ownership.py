# SPDX-License-Identifier: MIT
"""Whose a parameter is: shared by all segments of a video, or one segment's own.

What a ``grid`` network knows of *how* a video looks (its decoder, the basis of its embeddings) may serve every
segment; what it knows of *when and where* (feature grids, codes) is the segment's own, but for grids of what lasts: a
background before which things move. The original method's network
keeps a whole segment in its decoder, so that all of it is the segment's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from nervcodec.errors import ContainerError
from nervcodec.network.config import GridConfig, NetworkConfig, PatchConfig
from nervcodec.network.shapes import parameter_shapes

_OWN = ("grids.", "semantic.codes", "semantic.grid")


def is_own(config: NetworkConfig, name: str) -> bool:
    """Whether a parameter belongs to one segment alone.

    Args:
        config: of the network.
        name: of the parameter.
    """
    lasting = config.lasting if isinstance(config, GridConfig) else ()
    if any(name.startswith(f"grids.{number}.") for number in lasting):
        return False
    return isinstance(config, PatchConfig) or name.startswith(_OWN)


def own_parameter_count(config: NetworkConfig) -> int:
    """Parameters of a network that belong to its segment alone, where the others are shared."""
    return sum(math.prod(shape) for name, shape in parameter_shapes(config).items() if is_own(config, name))


def check_owners(config: NetworkConfig, own: Iterable[str], shared: Iterable[str]) -> None:
    """Where segments share parameters, what is one segment's own must not be among them, and nothing stands twice.

    Args:
        config: of the network.
        own: names of the parameters stored for its segment.
        shared: names of those stored for all.

    Raises:
        ContainerError: a parameter stands on the wrong side, or on both.
    """
    found = set(own)
    for name in shared:
        if is_own(config, name):
            raise ContainerError(f"tensor {name[:80]!r} should be among the segment's own parameters")
        if name in found:
            raise ContainerError(f"tensor {name[:80]!r} stands among the shared parameters and a segment's own")
