# SPDX-License-Identifier: MIT
"""Network size of a segment and the distribution of its parameters, from configurations alone. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nervcodec.errors import ConfigError
from nervcodec.network.config import (
    Geometry,
    GridConfig,
    GridShape,
    NetworkConfig,
    PatchConfig,
    SemanticConfig,
)
from nervcodec.network.shapes import parameter_count
from nervcodec.options import NetworkOptions
from nervcodec.training.config import FitConfig, SizeGoal

# Parameters of a network by default: a share of the pixels plus a constant for the decoder.
PARAMETERS_PER_PIXEL = 0.028
PARAMETERS_PER_PIXEL_DETAILED = 0.033  # with a changing fine grid
BASE_PARAMETERS = 60_000
MINIMUM_PARAMETERS = 48_000
MINIMUM_BYTES = 12_000  # weights are not compressed below this, however small the source
MINIMUM_SEGMENT_BYTES = 2_000  # the same for per-segment weights with a shared decoder
SHARED_SIZE = 0.6  # largest share of a small file for shared weights
# Bytes of a container besides weights and their table: once; for each segment, and for its semantic head; for each
# frame (its pace), for each frame with embeddings, and for each frame with a stored time.
HEADER_BYTES, SEGMENT_BYTES, SEMANTIC_BYTES = 620, 440, 130
FRAME_BYTES, EMBEDDED_BYTES, TIME_BYTES = 0.9, 1.0, 8
BITS_PER_PARAMETER = 3.0  # coded, with tables: of a fit of a few minutes, plus a margin
BITS_PER_PARAMETER_DETAILED = 2.1  # the same with a changing fine grid
BITS_AT_TARGET_SIZE = 2.2  # the same for a requested size: more parameters at fewer bits are better, but slower
MAX_DIRECTIONS, MIN_DIRECTIONS = 64, 8  # of the semantic head
PATCHES_PER_DIRECTION = 6
SHARE_OF_SOURCE = 0.94  # of the source's bytes for weights; the header and tables need the rest

# Share of the time of a fit of several segments for their shared network, and its maximum in seconds.
SHARED_FIT, MAX_SHARED_S = 0.5, 600.0
# RGB bytes of the sample that the shared network is fitted to, and of the default segment without a base layer. A
# constant, so that a file does not depend on the machine.
SAMPLE_BYTES = 400e6

# With a base layer: the share of the time for its encoder, and its number of encodes in a search for a target.
BASE_TIME_SHARE, BASE_SEARCHES = 0.5, 3

# Decoders from large to small: widths, depths, expansions by stage; then the share of the parameters each may take (at
# low rates grids are worth more: bunny at 150 KB has 28.5 dB with the fourth, 28.2 with the third), and the minimum
# number of epochs that justifies its slower steps.
_DECODERS = (
    ((96, 48, 20), (2, 2, 1), (4, 4, 2), 0.1, 300),
    ((64, 40, 20), (2, 2, 1), (4, 4, 2), 0.11, 0),
    ((48, 28, 16), (2, 2, 1), (4, 4, 2), 0.08, 0),
    ((32, 20, 12), (2, 1, 1), (4, 4, 2), 0.4, 0),
    ((20, 12, 8), (1, 1, 1), (4, 4, 2), 0.4, 0),
)
# Training time per million pixels, to predict the number of epochs.
_SECONDS_PER_MEGAPIXEL = {"cpu": 0.056, "cuda": 0.003}

# Grids: stage, channels, positions in time per frame, pixels per position across and down.
_Layout = tuple[tuple[int, int, float, int], ...]
_COARSE = ((0, 16, 1.0, 128), (0, 8, 1 / 4, 64), (0, 2, 1 / 2, 32), (0, 4, 1 / 4, 16))
QUICK: _Layout = (*_COARSE, (1, 4, 1 / 16, 8), (2, 4, 0.0, 4))
# Largest share of parameters for the static grid, and smaller variants: channels, and whether it is limited to one
# position in time for each shot.
_STATIC_SHARE, _STATIC_GRIDS = 0.3, ((4, False), (4, True), (2, True), (1, True))
# A fine grid that changes slowly is useful in a long fit of a video with persistent details: elsewhere it is learned
# too late, or details vanish before its next entry.
_DETAILED: _Layout = (*_COARSE, (1, 4, 1 / 8, 8), (2, 4, 0.0, 4), (2, 2, 1 / 8, 4))
_MIN_EPOCHS, _MIN_PERSISTENCE = 40.0, 0.8  # for detailed grids
_MIN_PER_PIXEL = 0.024  # parameters of the whole network for detailed grids


@dataclass(frozen=True)
class SegmentTraits:
    """Properties of a segment and its fit that determine the network.

    Attributes:
        fitted: number of fitted frames, if not all. No grid gets more positions in time, since some would be fitted to
            nothing.
        cuts: first frames of the shots after the first.
        pace: time warp of the grids; empty for uniform time.
        persistence: how much of the video is static, see :func:`nervcodec.media.shots.persistence`.
        passes: expected number of epochs.
        fewest: minimum positions in time of a grid.
        lean: limit the static grid to one position for each shot.
        scenes: scene of each shot, where static grids are shared; else empty.
        scene_count: number of scenes.
    """

    fitted: int | None = None
    cuts: tuple[int, ...] = ()
    pace: tuple[int, ...] = ()
    persistence: float = 0.0
    passes: float = 0.0
    fewest: int = 2
    lean: bool = False
    scenes: tuple[int, ...] = ()
    scene_count: int = 0

    @property
    def shots(self) -> int:
        """Number of shots."""
        return len(self.cuts) + 1


def parameter_budget(geometry: Geometry, goal: SizeGoal | None, detailed: bool = False, own: bool = False) -> int:
    """Number of parameters for a segment.

    Args:
        geometry: of the segment.
        goal: for their stored size, or None.
        detailed: for detailed grids, where a goal limits the size.
        own: per-segment parameters only, with a shared decoder.
    """
    detailed = detailed and goal is not None
    per_pixel = PARAMETERS_PER_PIXEL_DETAILED if detailed else PARAMETERS_PER_PIXEL
    count = per_pixel * geometry.frames * geometry.height * geometry.width + (0 if own else BASE_PARAMETERS)
    if goal is not None and goal.reach:
        count = goal.limit_bytes * 8 / BITS_AT_TARGET_SIZE
    elif goal is not None:
        bits = BITS_PER_PARAMETER_DETAILED if detailed else BITS_PER_PARAMETER
        count = min(count, goal.limit_bytes * 8 / bits)
    return max(0 if own else MINIMUM_PARAMETERS, int(count))


def semantic_config(dimension: int, embedded_frames: Sequence[int], vectors: int) -> SemanticConfig:
    """The semantic head for embeddings of a dimension, for some embedded frames with ``vectors`` embeddings in all."""
    rank = min(max(MIN_DIRECTIONS, vectors // PATCHES_PER_DIRECTION), MAX_DIRECTIONS, dimension)
    return SemanticConfig(dimension, rank=rank, code_frames=tuple(embedded_frames))


def expected_passes(geometry: Geometry, fit: FitConfig, fitted: int, device: str) -> float:
    """Expected number of epochs of a fit, from its budget and the speed of a device."""
    if fit.time_s is None:
        return float(fit.epochs or 0)
    megapixels = fitted * geometry.height * geometry.width / 1e6
    by_time = fit.time_s / (megapixels * _SECONDS_PER_MEGAPIXEL[device])
    return min(by_time, fit.epochs) if fit.epochs is not None else by_time


def network_config(
    options: NetworkOptions,
    geometry: Geometry,
    goal: SizeGoal | None = None,
    dimension: int | None = None,
    embedded: Sequence[int] = (),
    traits: SegmentTraits = SegmentTraits(),
) -> NetworkConfig:
    """Configuration of the network for a segment.

    Args:
        chosen: options of the user or a preset.
        geometry: of the segment.
        goal: for its stored size, or None.
        dimension: numbers in an embedding; None for pixels only.
        embedded: frames with embeddings.
        traits: of the segment and its fit.

    Raises:
        ConfigError: the options do not describe a valid network.
    """
    if options.embed == "grid":
        vectors = len(embedded) * geometry.patch_rows * geometry.patch_columns
        semantic = None if dimension is None else semantic_config(dimension, embedded, vectors)
        with_details = options.parameters or parameter_budget(geometry, goal, detailed=True)
        detailed = _suits_details(geometry, with_details, traits)
        budget = with_details if detailed else options.parameters or parameter_budget(geometry, goal)
        return grid_config(geometry, budget, semantic, traits, detailed)
    base, levels = options.positional_encoding
    # The original method's head: pooled features and an MLP, without grid and bottleneck.
    semantic = None if dimension is None else SemanticConfig(dimension, hidden=256, rank=min(256, dimension))
    shape = (options.fc_hw, options.fc_dim, options.strides, options.reduce, options.lower_width)
    try:
        return PatchConfig(geometry, base, levels, *shape, semantic)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def grid_config(
    geometry: Geometry,
    budget: int,
    semantic: SemanticConfig | None,
    traits: SegmentTraits = SegmentTraits(),
    detailed: bool = False,
) -> GridConfig:
    """The ``grid`` network for a segment with about ``budget`` parameters, semantic head included.

    Args:
        geometry: of the segment.
        budget: parameters.
        semantic: the second head, or None.
        traits: of the segment and its fit.
        detailed: give the finest scale a grid that changes over time.

    The decoder is the largest that suits the number of epochs and leaves most parameters to the grids; the grids'
    resolution in time uses the rest.
    """
    layout, traits = _fit_layout(_DETAILED if detailed else QUICK, geometry, budget, traits)
    lasting = tuple(n for n, grid in enumerate(layout) if traits.scenes and not grid[2])
    for widths, depths, expansions, share, least_passes in _DECODERS:
        if traits.passes < least_passes:
            continue
        sparse = grid_shapes(layout, geometry, 0.0, traits)
        sizes, times = (sparse, widths, depths, expansions), (traits.cuts, traits.pace)
        smallest = GridConfig(geometry, *sizes, semantic, *times, True, lasting, traits.scenes)
        other_parameters = parameter_count(smallest) - sum(g.size for g in sparse)
        if parameter_count(replace(smallest, semantic=None)) - sum(g.size for g in sparse) <= share * budget:
            break
    return replace(smallest, grids=_densest(layout, geometry, budget - other_parameters, traits))


def per_segment_budget(options: NetworkOptions, geometry: Geometry, goal: SizeGoal | None, shared: GridConfig) -> int:
    """Per-segment parameters of a segment with a shared decoder.

    Args:
        chosen: options of the user or a preset.
        geometry: of the segment.
        goal: for their stored size, or None.
        joint: configuration of the shared network, fitted to a sample of the video.
    """
    if options.parameters is None:
        return parameter_budget(geometry, goal, own=True)
    return max(0, options.parameters - parameter_count(shared) + sum(grid.size for grid in shared.grids))


def per_segment_config(shared: GridConfig, geometry: Geometry, budget: int, traits: SegmentTraits) -> GridConfig:
    """The ``grid`` network of a segment with a shared decoder and static grids.

    Args:
        joint: configuration of the shared network, fitted to a sample of the video.
        geometry: of the segment.
        budget: per-segment parameters.
        traits: of the segment.
    """
    layout = _DETAILED if len(shared.grids) == len(_DETAILED) else QUICK
    layout = tuple((s, known.channels, t, p) for (s, _, t, p), known in zip(layout, shared.grids, strict=True))
    common = sum(shared.grids[number].size for number in shared.lasting)
    grids = _densest(layout, geometry, budget + common, traits)
    return replace(shared, geometry=geometry, grids=grids, cuts=traits.cuts, pace=traits.pace, scenes=traits.scenes)


def _fit_layout(
    layout: _Layout, geometry: Geometry, budget: int, traits: SegmentTraits
) -> tuple[_Layout, SegmentTraits]:
    """A layout whose static grid, smaller at low rates, leaves most parameters to the other grids."""
    for channels, lean in _STATIC_GRIDS:
        thin = tuple((s, min(channels, c) if not per_frame else c, per_frame, p) for s, c, per_frame, p in layout)
        known = replace(traits, lean=lean)
        shapes = grid_shapes(thin, geometry, 0.0, known)
        if sum(g.size for g, entry in zip(shapes, layout, strict=True) if not entry[2]) <= _STATIC_SHARE * budget:
            break
    return thin, known


def _densest(layout: _Layout, geometry: Geometry, budget: int, traits: SegmentTraits) -> tuple[GridShape, ...]:
    """Grids with the highest resolution in time that a number of parameters allows."""
    low, high = 0.0, 4.0
    for _ in range(24):
        middle = (low + high) / 2
        size = sum(g.size for g in grid_shapes(layout, geometry, middle, traits))
        low, high = (middle, high) if size <= budget else (low, middle)
    return grid_shapes(layout, geometry, low, traits)


def _suits_details(geometry: Geometry, budget: int, traits: SegmentTraits) -> bool:
    """Whether detailed grids are useful with a budget."""
    enough = budget >= _MIN_PER_PIXEL * geometry.frames * geometry.height * geometry.width
    return enough and traits.passes >= _MIN_EPOCHS and traits.persistence >= _MIN_PERSISTENCE


def grid_shapes(layout: _Layout, geometry: Geometry, density: float, traits: SegmentTraits) -> tuple[GridShape, ...]:
    """Grids with a resolution in time of ``density``."""
    cells, shapes = geometry.cells, []
    moments = geometry.frames if traits.fitted is None else traits.fitted
    for stage, channels, per_frame, pixels in layout:
        rows, columns = (
            max(1, min(n << stage, round(side / pixels)))
            for n, side in zip(cells, (geometry.height, geometry.width), strict=True)
        )
        if pixels == 16 >> stage:  # at the resolution of its stage: no interpolation in space
            rows, columns = cells[0] << stage, cells[1] << stage
        least = 1 if traits.lean and not per_frame else traits.fewest
        fewest = min(max(least, traits.shots), moments)
        times = max(fewest, min(moments, round(moments * per_frame * density)))
        times = traits.scene_count if traits.scenes and not per_frame else times
        shapes.append(GridShape(stage, channels, times, rows, columns))
    return tuple(shapes)
