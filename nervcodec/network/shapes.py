# SPDX-License-Identifier: MIT
"""Names and shapes of a network's parameters from its configuration alone, and which of them segments share. No torch.

Names and shapes are those of ``build(config).named_parameters()``.

Segments of a video can share what a ``grid`` network knows of *how* the video looks (its decoder, the basis of its
embeddings, and static grids: a background in front of which things move). What it knows of *when and where* (feature
grids, codes) is per segment. The original method's network keeps a whole segment in its decoder: nothing is shared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from nervcodec.errors import ContainerError
from nervcodec.network.config import STAGES, GridConfig, HeadOnlyConfig, NetworkConfig, PatchConfig, SemanticConfig

SEMANTIC = "semantic."  # prefix of the semantic head's parameters

Shapes = dict[str, tuple[int, ...]]

_RGB, _SHUFFLED = 3, 2  # channels of a pixel, and the upscaling from one stage to the next
_PACKED = 4  # pixels across and down for one position of the finest stage
_KERNEL = (3, 3)
_COORDINATES, _WAVES = 3, 2  # of a patch; sine and cosine
_PER_SEGMENT = ("grids.", "semantic.codes", "semantic.grid")


def parameter_count(config: NetworkConfig) -> int:
    """Parameters of a network."""
    return sum(map(math.prod, parameter_shapes(config).values()))


def parameter_shapes(config: NetworkConfig) -> Shapes:
    """Shapes of all parameters of a network, by name."""
    if isinstance(config, HeadOnlyConfig):
        return _of_head(0, config.semantic, (config.geometry.patch_rows, config.geometry.patch_columns))
    return _of_grid_network(config) if isinstance(config, GridConfig) else _of_patch_network(config)


def check_shapes(config: NetworkConfig, shapes: Shapes) -> None:
    """Compare expected with stored shapes, before memory is allocated.

    Raises:
        ContainerError: a tensor is missing, surplus, or of another shape.
    """
    expected = parameter_shapes(config)
    for name in sorted(set(expected) | set(shapes)):
        if expected.get(name) != shapes.get(name):
            raise ContainerError(
                f"tensor {name[:80]!r}: expected {expected.get(name, 'none')}, stored {shapes.get(name, 'none')}"
            )


def is_self_contained(config: NetworkConfig) -> bool:
    """Whether embeddings depend on the semantic head only."""
    return not isinstance(config, PatchConfig) and config.semantic is not None and bool(config.semantic.codes)


def _of_grid_network(config: GridConfig) -> Shapes:
    widths, geometry = config.widths, config.geometry
    shapes: Shapes = {f"grids.{i}.values": (g.times, g.channels, g.rows, g.columns) for i, g in enumerate(config.grids)}
    for stage, width in enumerate(widths):
        channels = sum(g.channels for g in config.grids if g.stage == stage)
        shapes |= _layer(f"enter.{stage}", (width, channels), bias=stage == 0)
        for block in range(config.depths[stage]):
            shapes |= _block(f"stages.{stage}.{block}", width, config.expansions[stage])
    for stage in range(STAGES - 1):
        shapes |= _layer(f"raise_.{stage}", (_SHUFFLED**2 * widths[stage + 1], widths[stage]))
    shapes |= _layer("pixels.project", (_RGB * _PACKED**2, widths[-1]))
    return shapes | _of_head(widths[0], config.semantic, (geometry.patch_rows, geometry.patch_columns))


def _block(name: str, width: int, expansion: int) -> Shapes:
    shapes = _layer(f"{name}.spatial", (width, 1, *_KERNEL))
    shapes |= _layer(f"{name}.widen", (width * expansion, width), bias=False)
    return shapes | _layer(f"{name}.narrow", (width, width * expansion), bias=False)


def _of_patch_network(config: PatchConfig) -> Shapes:
    widths = [config.fc_dim, *config.widths]
    shapes = _layer("stem", (config.fc_dim * math.prod(config.fc_hw), _COORDINATES * _WAVES * config.levels))
    for block, stride in enumerate(config.strides):
        shapes |= _layer(f"blocks.{block}.convolution", (widths[block + 1] * stride**2, widths[block], *_KERNEL))
    shapes |= _layer("pixels", (_RGB, widths[-1], *_KERNEL))
    return shapes | _of_head(widths[-1], config.semantic, (1, 1))


def _of_head(features: int, head: SemanticConfig | None, patches: tuple[int, int]) -> Shapes:
    """Of the semantic head, with ``patches`` (rows, columns)."""
    if head is None:
        return {}
    shapes: Shapes = {"mean": (head.dimension,)}
    if head.grid_channels:
        shapes["grid"] = (head.grid_times, math.prod(patches), head.grid_channels)
    if head.codes:
        shapes |= {"codes": (head.codes, head.rank, *patches), "gain": (head.rank,)}
    else:
        shapes |= _layer("hidden", (head.hidden, features + head.grid_channels))
        shapes |= _layer("reduce", (head.rank, head.hidden))
    shapes |= _layer("directions", (head.dimension, head.rank), bias=False)
    return {f"{SEMANTIC}{name}": shape for name, shape in shapes.items()}


def _layer(name: str, weight: tuple[int, ...], bias: bool = True) -> Shapes:
    """A matrix or kernel ``(outputs, ...)``, with a constant for each output or without."""
    shapes: Shapes = {f"{name}.weight": weight}
    return shapes | {f"{name}.bias": weight[:1]} if bias else shapes


def is_per_segment(config: NetworkConfig, name: str) -> bool:
    """Whether a parameter is stored for each segment, not shared.

    Args:
        config: of the network.
        name: of the parameter.
    """
    static = config.lasting if isinstance(config, GridConfig) else ()
    if any(name.startswith(f"grids.{number}.") for number in static):
        return False
    return isinstance(config, PatchConfig) or name.startswith(_PER_SEGMENT)


def per_segment_parameter_count(config: NetworkConfig) -> int:
    """Number of per-segment parameters of a network."""
    return sum(math.prod(shape) for name, shape in parameter_shapes(config).items() if is_per_segment(config, name))


def check_sharing(config: NetworkConfig, own: Iterable[str], shared: Iterable[str]) -> None:
    """Check that shared parameters are none of the per-segment ones, and that none is stored twice.

    Args:
        config: of the network.
        own: names of the parameters stored for the segment.
        shared: names of the shared parameters.

    Raises:
        ContainerError: a parameter is on the wrong side, or on both.
    """
    own_names = set(own)
    for name in shared:
        if is_per_segment(config, name):
            raise ContainerError(f"tensor {name[:80]!r} should be among the segment's own parameters")
        if name in own_names:
            raise ContainerError(f"tensor {name[:80]!r} stands among the shared parameters and a segment's own")
