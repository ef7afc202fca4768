# SPDX-License-Identifier: MIT
"""Configurations of the networks, as stored in a container's header. Standard library only.

Sizes are explicit (every grid is listed), so a decoder does not depend on how an encoder chooses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nervcodec.coordinates import PatchGrid
from nervcodec.errors import ContainerError
from nervcodec.formats.fields import Row, from_json, to_json
from nervcodec.formats.header import HEAD_ONLY, MAX_DIMENSION, MAX_PACE, MAX_PATCHES, MAX_PIXELS, MAX_SEGMENT_FRAMES
from nervcodec.formats.weights import FrameTables

CELL = 16  # pixels across and down for one position of the coarsest stage
STAGES = 3  # at 1/16, 1/8 and 1/4 of the frame's resolution

MAX_WIDTH = 8_192
MAX_DEPTH = 64


def _check(ok: bool, message: str) -> None:
    if not ok:
        raise ValueError(message)


@dataclass(frozen=True)
class SemanticConfig:
    """The semantic head, which predicts an embedding for each patch.

    Attributes:
        dimension: numbers in one embedding.
        hidden: width of the MLP.
        rank: number of basis vectors of embeddings.
        grid_channels, grid_times: a feature grid of the head with one position per patch; 0 channels for none.
        code_frames: frames with stored codes, ``rank`` numbers a patch, ascending; others are interpolated in time.
            Empty until the frame tables are read: see :func:`with_frame_tables`.
        codes: number of code frames.
    """

    dimension: int
    hidden: int = 64
    rank: int = 32
    grid_channels: int = 0
    grid_times: int = 1
    code_frames: tuple[int, ...] = ()
    codes: int = 0

    def __post_init__(self) -> None:
        if not self.codes:
            object.__setattr__(self, "codes", len(self.code_frames))
        _check(0 <= self.codes <= MAX_SEGMENT_FRAMES, "too many semantic codes")
        _check(len(self.code_frames) in (0, self.codes), "there is a code for each code frame")
        _check(all(a < b for a, b in zip(self.code_frames, self.code_frames[1:], strict=False)), "code frames ascend")
        _check(1 <= self.dimension <= MAX_DIMENSION, "embedding dimension is out of range")
        _check(1 <= self.hidden <= MAX_WIDTH and 1 <= self.rank <= MAX_WIDTH, "semantic head is out of range")
        _check(0 <= self.grid_channels <= MAX_WIDTH and 1 <= self.grid_times <= MAX_SEGMENT_FRAMES, "semantic grid")


@dataclass(frozen=True)
class Geometry(Row):
    """Dimensions of a segment.

    Attributes:
        frames, height, width: of the segment.
        patch_rows, patch_columns: the patch grid.
    """

    frames: int
    height: int
    width: int
    patch_rows: int
    patch_columns: int

    def __post_init__(self) -> None:
        _check(1 <= self.frames <= MAX_SEGMENT_FRAMES, "frame count is out of range")
        _check(self.height >= 1 and self.width >= 1 and self.height * self.width <= MAX_PIXELS, "frame size")
        _check(1 <= self.patch_rows <= self.height and 1 <= self.patch_columns <= self.width, "patch grid")
        _check(self.patch_rows * self.patch_columns <= MAX_PATCHES, "patch grid")

    @property
    def patches(self) -> PatchGrid:
        """The patch grid with its pixel boxes."""
        return PatchGrid(self.height, self.width, self.patch_rows, self.patch_columns)

    @property
    def cells(self) -> tuple[int, int]:
        """(rows, columns) of 16 x 16 pixel cells that cover a frame."""
        return -(-self.height // CELL), -(-self.width // CELL)


@dataclass(frozen=True)
class GridShape(Row):
    """One feature grid over (t, y, x), linearly interpolated to the resolution of its stage.

    Attributes:
        stage: 0, 1 or 2: its features enter at 1/16, 1/8 or 1/4 of the frame's resolution.
        channels, times, rows, columns: its shape.
    """

    stage: int
    channels: int
    times: int
    rows: int
    columns: int

    def __post_init__(self) -> None:
        _check(0 <= self.stage < STAGES, "grid stage is out of range")
        _check(1 <= self.channels <= MAX_WIDTH and 1 <= self.times <= MAX_SEGMENT_FRAMES, "grid size is out of range")
        _check(1 <= self.rows <= MAX_PIXELS and 1 <= self.columns <= MAX_PIXELS, "grid size is out of range")

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.channels * self.times * self.rows * self.columns


def _check_codes(semantic: SemanticConfig | None, geometry: Geometry) -> None:
    if semantic is not None:
        codes = semantic.code_frames
        _check(semantic.codes <= geometry.frames, "too many semantic codes")
        _check(not codes or codes[0] >= 0 and codes[-1] < geometry.frames, "a code frame is out of range")


@dataclass(frozen=True)
class GridConfig:
    """The ``grid`` network: feature grids, ConvNeXt-like blocks at three scales, a pixel-shuffle head.

    Attributes:
        geometry: of the segment.
        grids: the feature grids.
        widths, depths, expansions: channels, number of blocks and growth inside a block, by stage.
        semantic: the second head, or None.
        cuts: first frames of the shots after the first, ascending; no grid interpolates across a cut.
        pace: time warp of the grids: time between consecutive frames; empty for uniform time.
        lapped: whether the RGB head's blocks of pixels overlap, see :mod:`nervcodec.network.overlap`.
        lasting: numbers of static grids, ascending, which all segments of a video share; they have an entry for each
            scene.
        scenes: scene of each shot, where there are static grids.
    """

    geometry: Geometry
    grids: tuple[GridShape, ...]
    widths: tuple[int, int, int]
    depths: tuple[int, int, int]
    expansions: tuple[int, int, int]
    semantic: SemanticConfig | None = None
    cuts: tuple[int, ...] = ()
    pace: tuple[int, ...] = ()
    lapped: bool = False
    lasting: tuple[int, ...] = ()
    scenes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        bounds = [0, *self.cuts, self.geometry.frames]
        _check(all(a < b for a, b in zip(bounds, bounds[1:], strict=False)), "cuts must ascend inside the segment")
        _check(len(self.pace) in (0, self.geometry.frames - 1), "pace does not go from frame to frame")
        _check(all(0 <= step <= MAX_PACE for step in self.pace), "pace is out of range")
        _check(len(self.grids) <= 64, "too many grids")
        _check({g.stage for g in self.grids} == set(range(STAGES)), "every stage needs a grid")
        rows, columns = self.geometry.cells
        for number, g in enumerate(self.grids):
            fits = number in self.lasting or g.times <= max(2, self.geometry.frames)
            _check(fits, "a grid has more times than there are frames")
            limit = 1 << g.stage
            _check(g.rows <= rows * limit and g.columns <= columns * limit, "a grid is finer than its stage")
        bounds = [-1, *self.lasting, len(self.grids)]
        _check(all(a < b for a, b in zip(bounds, bounds[1:], strict=False)), "numbers of lasting grids must ascend")
        _check(len(self.scenes) == (len(self.cuts) + 1 if self.lasting else 0), "there is a scene for each shot")
        exist = all(0 <= scene < self.grids[number].times for number in self.lasting for scene in self.scenes)
        _check(exist, "a scene has no entry in a grid")
        _check(all(1 <= w <= MAX_WIDTH for w in self.widths), "width is out of range")
        _check(all(0 <= d <= MAX_DEPTH for d in self.depths), "depth is out of range")
        _check(all(1 <= e <= 16 for e in self.expansions), "expansion is out of range")
        _check_codes(self.semantic, self.geometry)


@dataclass(frozen=True)
class PatchConfig:
    """The original method: positional encoding, fully connected stem, NeRV blocks, one forward pass a patch.

    Attributes:
        geometry: of the segment.
        base, levels: the positional encoding ``pe_BASE_LEVELS``.
        fc_hw, fc_dim: height, width and channels of the stem's output.
        strides: upscaling of each NeRV block.
        reduce, lower_width: channels are divided by ``reduce`` at every block, never below ``lower_width``.
        semantic: the second head, or None.
    """

    geometry: Geometry
    base: float = 1.25
    levels: int = 80
    fc_hw: tuple[int, int] = (9, 16)
    fc_dim: int = 192
    strides: tuple[int, ...] = (5, 3, 2, 2, 2)
    reduce: float = 1.2
    lower_width: int = 32
    semantic: SemanticConfig | None = None

    def __post_init__(self) -> None:
        _check(1.0 < self.base <= 16 and 1 <= self.levels <= 512, "positional encoding is out of range")
        _check(self.base ** (self.levels - 1) < 1e12, "positional encoding has frequencies beyond float32")
        _check(all(1 <= side <= 512 for side in self.fc_hw), "fc_hw is out of range (1 to 512)")
        _check(1 <= self.fc_dim <= MAX_WIDTH and 1 <= self.lower_width <= MAX_WIDTH, "width is out of range")
        _check(1 <= len(self.strides) <= 12 and all(1 <= s <= 16 for s in self.strides), "strides are out of range")
        _check(1.0 <= self.reduce <= 16, "reduce is out of range (1 to 16)")
        _check(self.semantic is None or not self.semantic.codes, "this kind of network has no semantic codes")
        height, width = self.native_size
        _check(height * width <= 1 << 24, "strides and fc_hw give patches of more than 16 million pixels")

    @property
    def cuts(self) -> tuple[int, ...]:
        """None: this kind of network knows no shots."""
        return ()

    @property
    def native_size(self) -> tuple[int, int]:
        """(height, width) of the last block's output, before it is resized to the patch size."""
        factor = 1
        for stride in self.strides:
            factor *= stride
        return self.fc_hw[0] * factor, self.fc_hw[1] * factor

    @property
    def widths(self) -> list[int]:
        """Channels after each block."""
        result, width = [], float(self.fc_dim)
        for _ in self.strides:
            width = max(width / self.reduce, self.lower_width)
            result.append(max(1, int(width)))
        return result


@dataclass(frozen=True)
class HeadOnlyConfig:
    """A semantic head, or nothing at all: pixels come from the base layer.

    Attributes:
        geometry: of the segment.
        semantic: the head, with codes, or None.
        cuts: first frames of the shots after the first, ascending.
    """

    geometry: Geometry
    semantic: SemanticConfig | None = None
    cuts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        bounds = [0, *self.cuts, self.geometry.frames]
        _check(all(a < b for a, b in zip(bounds, bounds[1:], strict=False)), "cuts must ascend inside the segment")
        _check_codes(self.semantic, self.geometry)
        own = self.semantic is None or self.semantic.codes
        _check(bool(own), "the semantic head beside a base layer has codes of its own")


NetworkConfig = GridConfig | PatchConfig | HeadOnlyConfig
_KINDS: dict[str, type] = {"grid": GridConfig, "pe": PatchConfig, HEAD_ONLY: HeadOnlyConfig}


def network_to_json(config: NetworkConfig) -> dict[str, Any]:
    """The configuration with its kind as stored in a header, without frame tables."""
    (kind,) = [name for name, cls in _KINDS.items() if isinstance(config, cls)]
    return {"kind": kind, **to_json(_with_frames(config, (), ()), compact=True)}


def network_from_json(data: dict[str, Any]) -> NetworkConfig:
    """The inverse of :func:`network_to_json`, without frame tables.

    Raises:
        ContainerError: unknown kind, or a value out of range.
    """
    kind = data.get("kind")
    if kind not in _KINDS:
        raise ContainerError(f"unknown kind of network {str(kind)[:40]!r}; this file needs a newer nervcodec")
    unused = ("kind", "expansion") if kind == HEAD_ONLY else ("kind",)  # earlier files have an unused expansion
    return from_json(_KINDS[kind], {k: v for k, v in data.items() if k not in unused}, "network")


def with_frame_tables(config: NetworkConfig, tables: FrameTables) -> NetworkConfig:
    """A configuration with the frame tables of a stream of weights.

    Raises:
        ContainerError: tables contradict the header, or do not apply to this network.
    """
    semantic = config.semantic
    if getattr(config, "pace", ()) or (semantic is not None and semantic.code_frames):
        raise ContainerError("the header has frame tables, which belong to the stream of weights")
    if semantic is not None and semantic.codes not in (0, len(tables.embedded)):
        raise ContainerError(f"{len(tables.embedded)} frames with embeddings for {semantic.codes} semantic codes")
    if semantic is None and tables.embedded:
        raise ContainerError("frames with embeddings for a network without a semantic head")
    if tables.pace and not hasattr(config, "pace"):
        raise ContainerError("a pace for a network that has none")
    try:
        return _with_frames(config, tables.pace, tables.embedded)
    except ValueError as error:
        raise ContainerError(str(error)) from None


def frame_tables(config: NetworkConfig, embedded: Sequence[int]) -> FrameTables:
    """Frame tables to store in a stream of weights.

    Args:
        config: of the network.
        embedded: frames whose embeddings were fitted.
    """
    return FrameTables(tuple(embedded), getattr(config, "pace", ()))


def _with_frames(config: NetworkConfig, pace: tuple[int, ...], embedded: tuple[int, ...]) -> NetworkConfig:
    """The configuration with a pace and code frames, where it has them."""
    changes: dict[str, Any] = {"pace": pace} if hasattr(config, "pace") else {}
    if config.semantic is not None and config.semantic.codes:
        changes["semantic"] = replace(config.semantic, code_frames=embedded)
    return replace(config, **changes)
