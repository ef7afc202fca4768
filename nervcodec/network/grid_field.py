# SPDX-License-Identifier: MIT
"""The ``grid`` network: a continuous field over the whole frame, of which any window can be computed alone.

::

    grids 1/16 -> stem -> blocks -> shuffle x2 -+-> blocks -> shuffle x2 -+-> blocks -> RGB head (shuffle x4)
                            |                   ^                         ^
                            v               grids 1/8                 grids 1/4
                     mean over each patch -> semantic head

The blocks of pixels that the last shuffle gives overlap (:mod:`nervcodec.network.overlap`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nervcodec.network.blocks import Pointwise, ResidualBlock, pixel_shuffle
from nervcodec.network.config import CELL, STAGES, GridConfig
from nervcodec.network.constants import Constants
from nervcodec.network.field import Field
from nervcodec.network.grids import FeatureGrid
from nervcodec.network.heads import PixelHead, semantic_head
from nervcodec.network.inputs import Cells, Inputs
from nervcodec.network.interpolation import pooling_matrix
from nervcodec.network.overlap import REACH
from nervcodec.network.timeline import Timeline


def timeline_of(config: GridConfig, number: int) -> Timeline:
    """Where frames lie among the entries of a grid of a network."""
    frames = config.geometry.frames
    if number in config.lasting:
        return Timeline.held(config.scenes, frames, config.cuts)
    return Timeline.even(config.grids[number].times, frames, config.cuts, config.pace)


class GridField(Field):
    """See the module's docstring; sizes come from :class:`GridConfig`."""

    def __init__(self, config: GridConfig):
        super().__init__()
        self.config, self.geometry = config, config.geometry
        self.cells = config.geometry.cells
        rows, columns = self.cells
        self.grids = nn.ModuleList(
            FeatureGrid(shape, rows << shape.stage, columns << shape.stage, timeline_of(config, number))
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
        self._pooling = Constants(self._pooling_matrices)

    def _pooling_matrices(self) -> tuple[Tensor, Tensor]:
        """Weights of cells in the mean of each row of patches, and of each column."""
        grid = self.geometry.patches
        rows = [grid.box(r, 0)[1::2] for r in range(grid.rows)]
        columns = [grid.box(0, c)[0::2] for c in range(grid.columns)]
        down = pooling_matrix([(y, y + h) for y, h in rows], CELL, self.cells[0])
        return down, pooling_matrix([(x, x + w) for x, w in columns], CELL, self.cells[1])

    @property
    def halo(self) -> int:
        """Cells around a window that its pixels depend on."""
        reach = sum(ResidualBlock.reach * depth / (1 << stage) for stage, depth in enumerate(self.config.depths))
        reach += REACH / CELL if self.config.lapped else 0
        return -int(-reach // 1)

    def _features(self, stage: int, frames: Tensor, cells: Cells) -> Tensor:
        """Grid features of a stage, ``(B, h, w, channels)``."""
        top, bottom, left, right = (edge << stage for edge in cells)
        parts = [
            grid(frames, (top, bottom, left, right))
            for grid, shape in zip(self.grids, self.config.grids, strict=True)
            if shape.stage == stage
        ]
        return torch.cat(parts, dim=1).permute(0, 2, 3, 1).contiguous()

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
        """Shared features of whole frames to their mean over each patch, ``(B, patches, width 0)``, if asked for."""
        assert self.semantic is not None
        if not self.semantic.needs_features:
            return None
        down, across = self._pooling.on(coarse.device)
        pooled = torch.einsum("ry,byxc,kx->brkc", down, coarse.float(), across)
        return pooled.flatten(1, 2)

    def _cells(self, inputs: Inputs) -> Cells:
        """What has to be computed: the whole frame, or a window and what its pixels depend on."""
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
        if not inputs.windows:
            return self.unpack(packed)
        (window,), (first_row, _, first_column, _) = inputs.windows, self._cells(inputs)
        top, left = window.y - first_row * CELL, window.x - first_column * CELL
        return self.pixels.to_frame(packed)[:, top : top + window.height, left : left + window.width]

    def coefficients(self, inputs: Inputs) -> Tensor:
        assert self.semantic is not None
        frames = inputs.frames.to(self.device)
        pooled = self._pooled(self._coarse(frames, self._cells(inputs))) if self.semantic.needs_features else None
        return self.semantic.coefficients(pooled, frames)
