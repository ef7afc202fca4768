# SPDX-License-Identifier: MIT
"""The ``grid`` network: a continuous field over the whole frame, of which any window can be computed alone.

::

    grids 1/16 -> stem -> blocks -> shuffle x2 -+-> blocks -> shuffle x2 -+-> blocks -> RGB head (shuffle x4)
                            |                   ^                         ^
                            v               grids 1/8                 grids 1/4
                     mean over each patch -> semantic head
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nervcodec.network.blocks import Pointwise, ResidualBlock, pixel_shuffle, pixel_unshuffle
from nervcodec.network.config import CELL, STAGES, GridConfig
from nervcodec.network.constants import Constants
from nervcodec.network.field import Field
from nervcodec.network.grids import FeatureGrid
from nervcodec.network.heads import PixelHead, SemanticHead
from nervcodec.network.interpolation import pooling_matrix
from nervcodec.network.timeline import Timeline

# A batch of about so many pixels: smaller frames come several at a time, since a step has a cost of its own.
_BATCH_PIXELS = 800_000
_LARGEST_BATCH = 8

# (top, bottom, left, right) in 16 x 16 pixel cells
Window = tuple[int, int, int, int]


def semantic_head(config: GridConfig) -> SemanticHead | None:
    """The second head of a network, with random weights; None where it has none."""
    if config.semantic is None:
        return None
    geometry, semantic = config.geometry, config.semantic
    timeline = Timeline.even(semantic.grid_times, geometry.frames, config.cuts)
    codes = Timeline.at(semantic.code_frames, geometry.frames, config.cuts) if semantic.code_frames else None
    return SemanticHead(config.widths[0], semantic, (geometry.patch_rows, geometry.patch_columns), timeline, codes)


class GridField(Field):
    """See the module's docstring; sizes come from :class:`GridConfig`."""

    default_optimizer = "muon"

    def __init__(self, config: GridConfig):
        super().__init__()
        self.config, self.geometry = config, config.geometry
        self.cells = config.geometry.cells
        self.grids = nn.ModuleList(
            FeatureGrid(shape, self.cells[0] << shape.stage, self.cells[1] << shape.stage, self._timeline(shape.times))
            for shape in config.grids
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
        self.pixels = PixelHead(widths[-1])
        self.semantic = semantic_head(config)
        self._pooling = Constants(self._pooling_matrices)

    def _pooling_matrices(self) -> tuple[Tensor, Tensor]:
        """Weights of cells in the mean of each row of patches, and of each column."""
        grid = self.geometry.patches
        rows = [grid.box(r, 0)[1::2] for r in range(grid.rows)]
        columns = [grid.box(0, c)[0::2] for c in range(grid.columns)]
        down = pooling_matrix([(y, y + h) for y, h in rows], CELL, self.cells[0])
        return down, pooling_matrix([(x, x + w) for x, w in columns], CELL, self.cells[1])

    def _timeline(self, times: int) -> Timeline:
        return Timeline.even(times, self.geometry.frames, self.config.cuts, self.config.pace)

    @property
    def halo(self) -> int:
        """Cells around a window that its pixels depend on."""
        reach = sum(ResidualBlock.reach * depth / (1 << stage) for stage, depth in enumerate(self.config.depths))
        return -int(-reach // 1)

    # ------------------------------------------------------------------ network

    def _features(self, stage: int, frames: Tensor, window: Window) -> Tensor:
        """Grid features of a stage, ``(B, h, w, channels)``."""
        scaled = tuple(edge << stage for edge in window)
        parts = [
            grid(frames, scaled)
            for grid, shape in zip(self.grids, self.config.grids, strict=True)
            if shape.stage == stage
        ]
        return torch.cat(parts, dim=1).permute(0, 2, 3, 1).contiguous()

    def _coarse(self, frames: Tensor, window: Window) -> Tensor:
        """Shared features at 1/16, ``(B, h, w, width 0)``."""
        return self.stages[0](self.enter[0](self._features(0, frames, window)))

    def _fine(self, x: Tensor, frames: Tensor, window: Window) -> Tensor:
        """Shared features to packed pixels ``(B, 4h, 4w, 48)``."""
        for stage in (1, 2):
            x = pixel_shuffle(self.raise_[stage - 1](x), 2)
            x = self.stages[stage](x + self.enter[stage](self._features(stage, frames, window)))
        return self.pixels(x)

    def _pooled(self, coarse: Tensor) -> Tensor | None:
        """Shared features of whole frames to their mean over each patch, ``(B, patches, width 0)``, if asked for."""
        assert self.semantic is not None
        if not self.semantic.needs_features:
            return None
        down, across = self._pooling.on(coarse.device)
        pooled = torch.einsum("ry,byxc,kx->brkc", down, coarse.float(), across)
        return pooled.flatten(1, 2)

    @property
    def _whole(self) -> Window:
        return 0, self.cells[0], 0, self.cells[1]

    # ------------------------------------------------------------------ fitting

    @property
    def default_batch_size(self) -> int:
        pixels = self.geometry.height * self.geometry.width
        return max(1, min(_LARGEST_BATCH, round(_BATCH_PIXELS / pixels)))

    @property
    def unit_count(self) -> int:
        return self.geometry.frames

    def unit_frames(self, units: Tensor) -> Tensor:
        return units

    def pack_targets(self, frames: Tensor) -> Tensor:
        height, width = self.cells[0] * CELL, self.cells[1] * CELL
        down = torch.arange(height, device=frames.device).clamp(max=frames.shape[1] - 1)
        across = torch.arange(width, device=frames.device).clamp(max=frames.shape[2] - 1)
        if (height, width) != tuple(frames.shape[1:3]):
            frames = frames[:, down][:, :, across]
        return pixel_unshuffle(frames, PixelHead.factor)

    def pack_embeddings(self, embeddings: Tensor, frame_rows: Tensor, units: Tensor) -> Tensor:
        return embeddings[frame_rows]

    def forward(self, units: Tensor, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        frames = units.to(self.device)
        coarse = self._coarse(frames, self._whole)
        centred = None
        if with_semantics:
            assert self.semantic is not None
            centred = self.semantic(self._pooled(coarse), frames)
        return self._fine(coarse, frames, self._whole), centred

    def unpack(self, packed: Tensor) -> Tensor:
        return self.pixels.to_frame(packed)[:, : self.geometry.height, : self.geometry.width]

    # ------------------------------------------------------------------ decoding

    def render(self, frames: Tensor) -> Tensor:
        packed, _ = self(frames, with_semantics=False)
        return self.unpack(packed)

    def render_patch(self, frames: Tensor, row: int, column: int) -> Tensor:
        return self._render_box(frames, *self.geometry.patches.box(row, column))

    def render_between(self, frames: Tensor, row: float, column: float) -> Tensor:
        return self._render_box(frames, *self.geometry.patches.box_between(row, column))

    def _render_box(self, frames: Tensor, x: int, y: int, width: int, height: int) -> Tensor:
        halo = self.halo
        window = (
            max(0, y // CELL - halo),
            min(self.cells[0], -(-(y + height) // CELL) + halo),
            max(0, x // CELL - halo),
            min(self.cells[1], -(-(x + width) // CELL) + halo),
        )
        frames = frames.to(self.device)
        pixels = self.pixels.to_frame(self._fine(self._coarse(frames, window), frames, window))
        top, left = y - window[0] * CELL, x - window[2] * CELL
        return pixels[:, top : top + height, left : left + width]

    def coefficients(self, frames: Tensor) -> Tensor:
        assert self.semantic is not None
        frames = frames.to(self.device)
        pooled = self._pooled(self._coarse(frames, self._whole)) if self.semantic.needs_features else None
        return self.semantic.coefficients(pooled, frames)

    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        semantic = list(self.semantic.parameters()) if self.semantic is not None else []
        grids = [grid.values for grid in self.modules() if isinstance(grid, FeatureGrid)]
        taken = {id(p) for p in [*semantic, *grids]}
        rest = [p for p in self.parameters() if id(p) not in taken]
        return {
            "matrices": [p for p in rest if p.ndim == 2],
            "grids": grids,
            "semantic": [p for p in semantic if p.requires_grad],
            "others": [p for p in rest if p.ndim != 2],
        }
