# SPDX-License-Identifier: MIT
"""How large a network a segment gets, and where its parameters go. No torch: configurations are counted, not built."""

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

# Parameters of a network by default: a share of the pixels it stands for plus what any decoder needs.
PARAMETERS_PER_PIXEL = 0.028
PARAMETERS_PER_PIXEL_DETAILED = 0.033  # with details that change
BASE_PARAMETERS = 60_000
MINIMUM_PARAMETERS = 48_000
MINIMUM_BYTES = 12_000  # weights are not squeezed below this, however small the source
OWN_MINIMUM_BYTES = 2_000  # the same for what is a segment's own beside a shared decoder
SHARED_SIZE = 0.6  # the part of a small file that what segments share may take
# What a container takes beside its weights and their table: once; for each segment, and for one with a semantic head;
# for each frame (its pace), for each frame that has embeddings, and for each frame whose time has to be stored.
HEADER_BYTES, SEGMENT_BYTES, SEMANTIC_BYTES = 620, 440, 130
FRAME_BYTES, EMBEDDED_BYTES, TIME_BYTES = 0.9, 1.0, 8
BITS_PER_PARAMETER = 3.0  # coded, with the tables: what a fit of a few minutes comes to, and some more
BITS_PER_PARAMETER_DETAILED = 2.1  # the same with details that change
BITS_WHERE_AIMED = 2.2  # the same for a size that was asked for: more parameters at fewer bits are better, if slower
MOST_DIRECTIONS, FEWEST_DIRECTIONS = 64, 8  # of the semantic head
PATCHES_PER_DIRECTION = 6
SHARE_OF_SOURCE = 0.94  # of the source's bytes that weights may take; the header and tables need the rest

# Of the time of a fit of several segments, what goes to the network that they share, and the most of it in seconds.
SHARED_FIT, MOST_SHARED_S = 0.5, 600.0
# Of RGB frames: what the network that segments share is fitted to, and what one segment of a network alone takes by
# default. A constant, so that a file does not depend on the machine.
SAMPLE_BYTES = 400e6

# With a base layer: the part of a time that its encoder may take, and how often it codes where it searches a quality.
BASE_TIME_SHARE, BASE_SEARCHES = 0.5, 3

# Decoders from large to small: widths, depths, expansions by stage; then the share of the parameters each may take (at
# low rates grids are worth more: bunny at 150 KB has 28.5 dB with the fourth, 28.2 with the third), and how many times
# the fit must see every frame for it to be worth its slower steps.
_DECODERS = (
    ((96, 48, 20), (2, 2, 1), (4, 4, 2), 0.1, 300),
    ((64, 40, 20), (2, 2, 1), (4, 4, 2), 0.11, 0),
    ((48, 28, 16), (2, 2, 1), (4, 4, 2), 0.08, 0),
    ((32, 20, 12), (2, 1, 1), (4, 4, 2), 0.4, 0),
    ((20, 12, 8), (1, 1, 1), (4, 4, 2), 0.4, 0),
)
# Of fitting, for a million pixels of frames: how the number of passes is foreseen.
_SECONDS_PER_MEGAPIXEL = {"cpu": 0.056, "cuda": 0.003}

# Grids: stage, channels, positions in time per frame, pixels per position across and down.
_Layout = tuple[tuple[int, int, float, int], ...]
_COARSE = ((0, 16, 1.0, 128), (0, 8, 1 / 4, 64), (0, 2, 1 / 2, 32), (0, 4, 1 / 4, 16))
QUICK: _Layout = (*_COARSE, (1, 4, 1 / 16, 8), (2, 4, 0.0, 4))
# What a grid for what lasts may take of the parameters, and thinner ones in turn: channels, and whether it has no more
# than one position for each shot.
_LASTING_SHARE, _THINNER = 0.3, ((4, False), (4, True), (2, True), (1, True))
# Details that change slowly pay in a long fit of a video where they last, with parameters of their own and fewer bits
# for each: elsewhere they are learned too late, or are gone before the next entry.
_DETAILED: _Layout = (*_COARSE, (1, 4, 1 / 8, 8), (2, 4, 0.0, 4), (2, 2, 1 / 8, 4))
_LONG_PASSES, _LASTING = 40.0, 0.8  # from how many passes, and from which persistence on
_LEAST_PER_PIXEL = 0.024  # parameters of the whole network: with fewer, the quick grids are better


@dataclass(frozen=True)
class SegmentTraits:
    """What is known of a segment before its fit, and of the fit.

    Attributes:
        fitted: frames that are fitted, where not all are. No grid gets more positions in time than that, since those
            between two fitted frames would be fitted to nothing.
        cuts: first frames of the shots after the first.
        pace: how much time passes for the grids from each frame to the next; empty: the same everywhere.
        persistence: how much of the video stays, see :func:`nervcodec.media.shots.persistence`.
        passes: how many times the fit will see every frame, about.
        fewest: positions in time of a grid, at the least.
        lean: but of a grid for what lasts no more than one for each shot.
        scenes: the scene that each shot shows, of so many, where a grid of what lasts is shared; else none.
        scene_count: how many.
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
        """How many."""
        return len(self.cuts) + 1


UNKNOWN_TRAITS = SegmentTraits()


def parameter_budget(geometry: Geometry, goal: SizeGoal | None, detailed: bool = False, own: bool = False) -> int:
    """Parameters a segment may have.

    Args:
        geometry: of the segment.
        goal: what their stored form should take, or None.
        detailed: count on details that change, where the goal keeps the file from growing by that.
        own: only those beside a decoder that it shares with others.
    """
    detailed = detailed and goal is not None
    per_pixel = PARAMETERS_PER_PIXEL_DETAILED if detailed else PARAMETERS_PER_PIXEL
    wanted = per_pixel * geometry.frames * geometry.height * geometry.width + (0 if own else BASE_PARAMETERS)
    if goal is not None and goal.reach:
        wanted = goal.limit_bytes * 8 / BITS_WHERE_AIMED
    elif goal is not None:
        bits = BITS_PER_PARAMETER_DETAILED if detailed else BITS_PER_PARAMETER
        wanted = min(wanted, goal.limit_bytes * 8 / bits)
    return max(0 if own else MINIMUM_PARAMETERS, int(wanted))


def semantic_config(dimension: int, embedded_frames: Sequence[int], vectors: int) -> SemanticConfig:
    """The semantic head for embeddings of a size, known at some frames; so many of them in all."""
    rank = min(max(FEWEST_DIRECTIONS, vectors // PATCHES_PER_DIRECTION), MOST_DIRECTIONS, dimension)
    return SemanticConfig(dimension, rank=rank, code_frames=tuple(embedded_frames))


def expected_passes(geometry: Geometry, fit: FitConfig, fitted: int, device: str) -> float:
    """About how many times a fit sees each of its frames, from its budget and what a step takes on a device."""
    if fit.time_s is None:
        return float(fit.epochs or 0)
    megapixels = fitted * geometry.height * geometry.width / 1e6
    by_time = fit.time_s / (megapixels * _SECONDS_PER_MEGAPIXEL[device])
    return min(by_time, fit.epochs) if fit.epochs is not None else by_time


def network_config(
    chosen: NetworkOptions,
    geometry: Geometry,
    goal: SizeGoal | None = None,
    dimension: int | None = None,
    embedded: Sequence[int] = (),
    outlook: SegmentTraits = UNKNOWN_TRAITS,
) -> NetworkConfig:
    """The network for a segment, of the kind and size that was chosen.

    Args:
        chosen: by the user or a preset.
        geometry: of the segment.
        goal: what its stored form should take, or None.
        dimension: numbers in an embedding; None for pixels only.
        embedded: frames whose embeddings are known.
        outlook: what else is known.

    Raises:
        ConfigError: the chosen numbers do not make a network.
    """
    if chosen.embed == "grid":
        vectors = len(embedded) * geometry.patch_rows * geometry.patch_columns
        semantic = None if dimension is None else semantic_config(dimension, embedded, vectors)
        with_details = chosen.parameters or parameter_budget(geometry, goal, detailed=True)
        detailed = _suits_details(geometry, with_details, outlook)
        budget = with_details if detailed else chosen.parameters or parameter_budget(geometry, goal)
        return grid_config(geometry, budget, semantic, outlook, detailed)
    base, levels = chosen.positional_encoding
    semantic = None if dimension is None else original_semantic_config(dimension)
    shape = (chosen.fc_hw, chosen.fc_dim, chosen.strides, chosen.reduce, chosen.lower_width)
    try:
        return PatchConfig(geometry, base, levels, *shape, semantic)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def grid_config(
    geometry: Geometry,
    budget: int,
    semantic: SemanticConfig | None,
    outlook: SegmentTraits = UNKNOWN_TRAITS,
    detailed: bool = False,
) -> GridConfig:
    """The ``grid`` network for a segment with about ``budget`` parameters, semantic head included.

    Args:
        geometry: of the segment.
        budget: parameters.
        semantic: the second head, or None.
        outlook: what else is known.
        detailed: give the finest scale a grid that changes.

    The decoder is the largest that suits the passes and leaves most parameters to the grids; the grids' resolution
    in time then takes up what is left.
    """
    layout, outlook = _that_fits(_DETAILED if detailed else QUICK, geometry, budget, outlook)
    lasting = tuple(n for n, grid in enumerate(layout) if outlook.scenes and not grid[2])
    for widths, depths, expansions, share, least_passes in _DECODERS:
        if outlook.passes < least_passes:
            continue
        few = grid_shapes(layout, geometry, 0.0, outlook)
        sizes, times = (few, widths, depths, expansions), (outlook.cuts, outlook.pace)
        smallest = GridConfig(geometry, *sizes, semantic, *times, True, lasting, outlook.scenes)
        beside = parameter_count(smallest) - sum(g.size for g in few)
        if parameter_count(replace(smallest, semantic=None)) - sum(g.size for g in few) <= share * budget:
            break
    return replace(smallest, grids=_densest(layout, geometry, budget - beside, outlook))


def per_segment_budget(chosen: NetworkOptions, geometry: Geometry, goal: SizeGoal | None, joint: GridConfig) -> int:
    """Parameters of a segment's own, beside a decoder that it shares with others.

    Args:
        chosen: by the user or a preset.
        geometry: of the segment.
        goal: what its own should take when they are stored, or None.
        joint: the network of a sample from the whole video, whose decoder it is.
    """
    if chosen.parameters is None:
        return parameter_budget(geometry, goal, own=True)
    return max(0, chosen.parameters - parameter_count(joint) + sum(grid.size for grid in joint.grids))


def per_segment_config(joint: GridConfig, geometry: Geometry, budget: int, outlook: SegmentTraits) -> GridConfig:
    """The ``grid`` network of a segment that shares its decoder, and grids of what lasts, with others.

    Args:
        joint: the network of a sample from the whole video.
        geometry: of the segment.
        budget: parameters of its own.
        outlook: what is known of the segment.
    """
    layout = _DETAILED if len(joint.grids) == len(_DETAILED) else QUICK
    layout = tuple((s, known.channels, t, p) for (s, _, t, p), known in zip(layout, joint.grids, strict=True))
    common = sum(joint.grids[number].size for number in joint.lasting)
    grids = _densest(layout, geometry, budget + common, outlook)
    return replace(joint, geometry=geometry, grids=grids, cuts=outlook.cuts, pace=outlook.pace, scenes=outlook.scenes)


def _that_fits(
    layout: _Layout, geometry: Geometry, budget: int, outlook: SegmentTraits
) -> tuple[_Layout, SegmentTraits]:
    """A layout whose grid for what lasts, thinner at low rates, leaves most parameters to those that change."""
    for channels, lean in _THINNER:
        thin = tuple((s, min(channels, c) if not per_frame else c, per_frame, p) for s, c, per_frame, p in layout)
        known = replace(outlook, lean=lean)
        shapes = grid_shapes(thin, geometry, 0.0, known)
        if sum(g.size for g, entry in zip(shapes, layout, strict=True) if not entry[2]) <= _LASTING_SHARE * budget:
            break
    return thin, known


def _densest(layout: _Layout, geometry: Geometry, budget: int, outlook: SegmentTraits) -> tuple[GridShape, ...]:
    """The grids with as many positions in time as a number of parameters allows."""
    low, high = 0.0, 4.0
    for _ in range(24):
        middle = (low + high) / 2
        size = sum(g.size for g in grid_shapes(layout, geometry, middle, outlook))
        low, high = (middle, high) if size <= budget else (low, middle)
    return grid_shapes(layout, geometry, low, outlook)


def _suits_details(geometry: Geometry, budget: int, outlook: SegmentTraits) -> bool:
    """Whether details that change are worth parameters of their own, of a budget that counts on them."""
    enough = budget >= _LEAST_PER_PIXEL * geometry.frames * geometry.height * geometry.width
    return enough and outlook.passes >= _LONG_PASSES and outlook.persistence >= _LASTING


def grid_shapes(layout: _Layout, geometry: Geometry, density: float, outlook: SegmentTraits) -> tuple[GridShape, ...]:
    """The grids with their resolution in time multiplied by ``density``."""
    cells, shapes = geometry.cells, []
    moments = geometry.frames if outlook.fitted is None else outlook.fitted
    for stage, channels, per_frame, pixels in layout:
        rows, columns = (
            max(1, min(n << stage, round(side / pixels)))
            for n, side in zip(cells, (geometry.height, geometry.width), strict=True)
        )
        if pixels == 16 >> stage:  # at the resolution of its stage: no interpolation in space
            rows, columns = cells[0] << stage, cells[1] << stage
        least = 1 if outlook.lean and not per_frame else outlook.fewest
        fewest = min(max(least, outlook.shots), moments)
        times = max(fewest, min(moments, round(moments * per_frame * density)))
        times = outlook.scene_count if outlook.scenes and not per_frame else times
        shapes.append(GridShape(stage, channels, times, rows, columns))
    return tuple(shapes)


def original_semantic_config(dimension: int) -> SemanticConfig:
    """The original method's head: pooled features and an MLP, no grid and no narrow waist."""
    return SemanticConfig(dimension, hidden=256, rank=min(256, dimension), grid_channels=0, grid_times=1)
