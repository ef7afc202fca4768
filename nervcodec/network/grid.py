# SPDX-License-Identifier: MIT
"""The ``grid`` network: a continuous field over the whole frame, of which any window can be computed alone.

::

    grids 1/16 -> stem -> blocks -> shuffle x2 -+-> blocks -> shuffle x2 -+-> blocks -> RGB head (shuffle x4)
                            |                   ^                         ^
                            v               grids 1/8                 grids 1/4
                     mean over each patch -> semantic head

The blocks of pixels that the last shuffle gives overlap (:mod:`nervcodec.network.overlap`).

The grids are a learned positional encoding over time and space in place of a sinusoidal one, as in HiNeRV (Kwan et al.
2023, arXiv:2306.09818) and instant-ngp (Mueller et al. 2022, arXiv:2201.05989), here dense and without a hash.
Interpolation and averaging in space are small matrices, so that a window of the result needs a window of rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nervcodec.network.config import CELL, STAGES, GridConfig, GridShape
from nervcodec.network.field import Cells, Field, Inputs
from nervcodec.network.heads import PixelHead, semantic_head
from nervcodec.network.layers import LazyBuffers, Pointwise, ResidualBlock, pixel_shuffle
from nervcodec.network.overlap import REACH
from nervcodec.network.timeline import Timeline

INITIAL_STD = 0.05


def resampling_matrix(n_out: int, n_in: int) -> Tensor:
    """Weights of linear interpolation from ``n_in`` to ``n_out`` samples of the same interval, cell centres aligned.

    Returns:
        ``(n_out, n_in)`` float32; each row sums to 1.
    """
    position = ((torch.arange(n_out, dtype=torch.float64) + 0.5) * n_in / n_out - 0.5).clamp(0, n_in - 1)
    lower = position.floor().long().clamp(max=max(n_in - 2, 0))
    fraction = position - lower
    matrix = torch.zeros(n_out, n_in, dtype=torch.float64)
    rows = torch.arange(n_out)
    matrix[rows, lower] += 1 - fraction
    if n_in > 1:
        matrix[rows, lower + 1] += fraction
    return matrix.float()


def pooling_matrix(bounds: list[tuple[int, int]], cell: int, n_cells: int) -> Tensor:
    """Weights that average cells over pixel intervals, each cell counted by its overlap.

    Args:
        bounds: pixel intervals [start, stop).
        cell: pixels in one cell.
        n_cells: cells in all.

    Returns:
        ``(len(bounds), n_cells)`` float32; each row sums to 1.
    """
    matrix = torch.zeros(len(bounds), n_cells)
    for row, (start, stop) in enumerate(bounds):
        for index in range(start // cell, min(n_cells, -(-stop // cell))):
            matrix[row, index] = min(stop, (index + 1) * cell) - max(start, index * cell)
    return matrix / matrix.sum(dim=1, keepdim=True)


class FeatureGrid(nn.Module):
    """One grid, interpolated to the resolution of its stage.

    Args:
        shape: of the grid.
        rows, columns: resolution of the stage it feeds.
        timeline: interpolates the grid's entries in time.
    """

    def __init__(self, shape: GridShape, rows: int, columns: int, timeline: Timeline):
        super().__init__()
        self.timeline = timeline
        self._quantize: Callable[[Tensor], Tensor] | None = None
        size = (shape.times, shape.channels, shape.rows, shape.columns)
        self.values = nn.Parameter(torch.randn(size).mul_(INITIAL_STD))
        self._matrices = LazyBuffers(
            lambda: (resampling_matrix(rows, shape.rows), resampling_matrix(columns, shape.columns).t().contiguous())
        )
        self.native = (rows, columns) == (shape.rows, shape.columns)

    def quantize_with(self, quantize: Callable[[Tensor], Tensor]) -> None:
        """Apply a function to all values that are read from here on."""
        self._quantize = quantize

    def forward(self, frames: Tensor, window: tuple[int, int, int, int]) -> Tensor:
        """Features in a window of the stage.

        Args:
            frames: ``(B,)`` int64.
            window: (top, bottom, left, right) in positions of the stage.

        Returns:
            ``(B, channels, bottom - top, right - left)`` float32.
        """
        top, bottom, left, right = window
        features = self.timeline(self.values, frames, self._quantize)
        if self.native:
            return features[:, :, top:bottom, left:right]
        down, across = self._matrices.on(features.device)
        return down[top:bottom] @ features @ across[:, left:right]


def grid_timeline(config: GridConfig, number: int) -> Timeline:
    """Timeline of a grid of a network."""
    frames = config.geometry.frames
    if number in config.lasting:
        return Timeline.per_shot(config.scenes, frames, config.cuts)
    return Timeline.even(config.grids[number].times, frames, config.cuts, config.pace)


class GridField(Field):
    """See the module's docstring; sizes come from :class:`GridConfig`."""

    def __init__(self, config: GridConfig):
        super().__init__()
        self.config, self.geometry = config, config.geometry
        self.cells = config.geometry.cells
        rows, columns = self.cells
        self.grids = nn.ModuleList(
            FeatureGrid(shape, rows << shape.stage, columns << shape.stage, grid_timeline(config, number))
            for number, shape in enumerate(config.grids)
        )
        channels = [sum(g.channels for g in config.grids if g.stage == stage) for stage in range(STAGES)]
        widths = config.widths
        self.enter = nn.ModuleList(
            Pointwise(channels[stage], widths[stage], gain=3.0 if stage == 0 else 1.0, bias=stage == 0)
            for stage in range(STAGES)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(widths[s], config.expansions[s]) for _ in range(config.depths[s])))
            for s in range(STAGES)
        )
        self.raise_ = nn.ModuleList(Pointwise(widths[s], 4 * widths[s + 1]) for s in range(STAGES - 1))
        self.pixels = PixelHead(widths[-1], config.lapped)
        self.semantic = semantic_head(config, widths[0])
        self._pooling = LazyBuffers(self._pooling_matrices)

    def _pooling_matrices(self) -> tuple[Tensor, Tensor]:
        """Weights of cells in the mean of each row of patches, and of each column."""
        grid = self.geometry.patches
        rows = [grid.box(r, 0)[1::2] for r in range(grid.rows)]
        columns = [grid.box(0, c)[0::2] for c in range(grid.columns)]
        down = pooling_matrix([(y, y + h) for y, h in rows], CELL, self.cells[0])
        return down, pooling_matrix([(x, x + w) for x, w in columns], CELL, self.cells[1])

    @property
    def halo(self) -> int:
        """Cells around a patch that its pixels depend on."""
        reach = sum(ResidualBlock.reach * depth / (1 << stage) for stage, depth in enumerate(self.config.depths))
        reach += REACH / CELL if self.config.lapped else 0
        return -int(-reach // 1)

    def _features(self, stage: int, frames: Tensor, cells: Cells) -> Tensor:
        """Grid features of a stage, ``(B, h, w, channels)``."""
        top, bottom, left, right = (edge << stage for edge in cells)
        features = [
            grid(frames, (top, bottom, left, right))
            for grid, shape in zip(self.grids, self.config.grids, strict=True)
            if shape.stage == stage
        ]
        return torch.cat(features, dim=1).permute(0, 2, 3, 1).contiguous()

    def _coarse(self, frames: Tensor, cells: Cells) -> Tensor:
        """Shared features at 1/16, ``(B, h, w, width 0)``."""
        return self.stages[0](self.enter[0](self._features(0, frames, cells)))

    def _fine(self, x: Tensor, frames: Tensor, cells: Cells) -> Tensor:
        """Shared features to packed pixels ``(B, 4h, 4w, 48)``."""
        for stage in (1, 2):
            x = pixel_shuffle(self.raise_[stage - 1](x), 2)
            x = self.stages[stage](x + self.enter[stage](self._features(stage, frames, cells)))
        return self.pixels(x)

    def _pooled(self, coarse: Tensor) -> Tensor | None:
        """Mean of shared features over each patch, ``(B, patches, width 0)``; None where the head needs none."""
        assert self.semantic is not None
        if not self.semantic.needs_features:
            return None
        down, across = self._pooling.on(coarse.device)
        pooled = torch.einsum("ry,byxc,kx->brkc", down, coarse.float(), across)
        return pooled.flatten(1, 2)

    def _cells(self, inputs: Inputs) -> Cells:
        """Cells to compute: the whole frame, or a patch with its halo."""
        return inputs.cells(self.cells, self.halo)

    def forward(self, inputs: Inputs, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        frames, cells = inputs.frames.to(self.device), self._cells(inputs)
        coarse = self._coarse(frames, cells)
        centred = None
        if with_semantics:
            assert self.semantic is not None
            centred = self.semantic(self._pooled(coarse), frames)
        return self._fine(coarse, frames, cells), centred

    def unpack(self, packed: Tensor) -> Tensor:
        """Predictions of whole frames to images ``(B, h, w, 3)`` float32, about [0, 1]."""
        return self.pixels.to_frame(packed)[:, : self.geometry.height, : self.geometry.width]

    def render(self, inputs: Inputs) -> Tensor:
        packed, _ = self(inputs, with_semantics=False)
        if not inputs.patches:
            return self.unpack(packed)
        (patch,), (first_row, _, first_column, _) = inputs.patches, self._cells(inputs)
        top, left = patch.y - first_row * CELL, patch.x - first_column * CELL
        return self.pixels.to_frame(packed)[:, top : top + patch.height, left : left + patch.width]

    def coefficients(self, inputs: Inputs) -> Tensor:
        assert self.semantic is not None
        frames = inputs.frames.to(self.device)
        pooled = self._pooled(self._coarse(frames, self._cells(inputs))) if self.semantic.needs_features else None
        return self.semantic.coefficients(pooled, frames)
