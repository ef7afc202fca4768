# SPDX-License-Identifier: MIT
"""Configuration -> network, and network <-> named arrays."""

from __future__ import annotations

import numpy as np
import torch

from nervcodec.network.config import GridConfig, HeadOnlyConfig, NetworkConfig, PatchConfig
from nervcodec.network.field import Field
from nervcodec.network.grid import GridField
from nervcodec.network.heads import SemanticHead, semantic_head
from nervcodec.network.original import PatchField
from nervcodec.network.shapes import SEMANTIC, check_shapes


def build(config: NetworkConfig) -> Field:
    """A network with random weights from torch's global generator.

    Raises:
        ValueError: a configuration of a semantic head alone.
    """
    if isinstance(config, HeadOnlyConfig):
        raise ValueError("there is no network with a base layer; see head_from_arrays")
    return GridField(config) if isinstance(config, GridConfig) else PatchField(config)


def to_arrays(field: Field) -> dict[str, np.ndarray]:
    """Parameters by name as float32 arrays, without frozen ones.

    The semantic head comes first, so that search decodes nothing else.
    """
    live = {name: p for name, p in field.named_parameters() if name not in field.frozen}
    arrays = {name: p.detach().float().cpu().numpy() for name, p in live.items()}
    return dict(sorted(arrays.items(), key=lambda item: not item[0].startswith(SEMANTIC)))


def from_arrays(config: NetworkConfig, arrays: dict[str, np.ndarray]) -> Field:
    """A network with stored weights.

    Raises:
        ContainerError: names or shapes do not fit the configuration.
    """
    check_shapes(config, {name: a.shape for name, a in arrays.items()})
    field = build(config)
    field.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()}, strict=True)
    return field.eval().requires_grad_(False)


def head_from_arrays(config: NetworkConfig, arrays: dict[str, np.ndarray]) -> SemanticHead:
    """The semantic head alone, of a network where embeddings depend on nothing else.

    Args:
        config: of the whole network.
        arrays: parameters whose names begin with :data:`SEMANTIC`, with checked shapes.
    """
    assert not isinstance(config, PatchConfig)
    head = semantic_head(config, 0)
    assert head is not None
    head.load_state_dict({name[len(SEMANTIC) :]: torch.from_numpy(a) for name, a in arrays.items()}, strict=True)
    return head.eval().requires_grad_(False)
