# SPDX-License-Identifier: MIT
"""Configuration -> network, and network <-> named arrays."""

from __future__ import annotations

import numpy as np
import torch

from nervcodec.errors import ContainerError
from nervcodec.network.config import GridConfig, NetworkConfig
from nervcodec.network.field import Field
from nervcodec.network.grid_field import GridField
from nervcodec.network.patch_field import PatchField


def build(config: NetworkConfig) -> Field:
    """A network with random weights, drawn from torch's global generator."""
    return GridField(config) if isinstance(config, GridConfig) else PatchField(config)


def parameter_count(config: NetworkConfig) -> int:
    """Parameters of a network, computed without allocating it."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(config).parameters())


def to_arrays(field: Field) -> dict[str, np.ndarray]:
    """Parameters by name as float32 arrays, ready for the container."""
    return {name: p.detach().float().cpu().numpy() for name, p in field.named_parameters()}


def check_shapes(config: NetworkConfig, shapes: dict[str, tuple[int, ...]]) -> None:
    """Compare the shapes a configuration implies with those stored, before any memory is taken.

    Raises:
        ContainerError: a tensor is missing, surplus, or of another shape.
    """
    with torch.device("meta"):
        expected = {name: tuple(p.shape) for name, p in build(config).named_parameters()}
    for name in sorted(set(expected) | set(shapes)):
        if expected.get(name) != shapes.get(name):
            raise ContainerError(
                f"tensor {name[:80]!r}: expected {expected.get(name, 'none')}, stored {shapes.get(name, 'none')}"
            )


def from_arrays(config: NetworkConfig, arrays: dict[str, np.ndarray]) -> Field:
    """A network with given weights.

    Raises:
        ContainerError: names or shapes do not fit the configuration.
    """
    check_shapes(config, {name: a.shape for name, a in arrays.items()})
    field = build(config)
    field.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()}, strict=True)
    return field.eval().requires_grad_(False)
