# SPDX-License-Identifier: MIT
"""The original method's network: one forward pass per patch at its own (t, y, x), NeRV blocks, two heads.

::

    (t, y, x) -> sin/cos -> fully connected stem, fc_hw x fc_dim -> NeRV blocks -+-> 3x3 convolution -> RGB patch
                                                                                 +-> mean, MLP -> embedding
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nervcodec.coordinates import patch_coordinates
from nervcodec.network.blocks import NervBlock
from nervcodec.network.config import PatchConfig
from nervcodec.network.field import Field
from nervcodec.network.heads import SemanticHead


def positional_encoding(coordinates: Tensor, base: float, levels: int) -> Tensor:
    """Sines and cosines of base^i x pi x coordinate (NeRV, Chen et al. 2021, arXiv:2110.13903).

    Args:
        coordinates: ``(B, K)`` float32 in [0, 1].
        base: ratio of neighbouring frequencies, above 1.
        levels: frequencies per coordinate.

    Returns:
        ``(B, 2 * K * levels)`` float32 in [-1, 1]; for each coordinate all sines, then all cosines.
    """
    frequencies = base ** torch.arange(levels, dtype=torch.float64, device=coordinates.device) * math.pi
    angles = coordinates.double()[:, :, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1).float()


class PatchField(Field):
    """See the module's docstring; sizes come from :class:`PatchConfig`."""

    default_optimizer = "adam"

    def __init__(self, config: PatchConfig):
        super().__init__()
        self.config, self.geometry = config, config.geometry
        height, width = config.fc_hw
        self.stem = nn.Linear(2 * 3 * config.levels, config.fc_dim * height * width)
        widths = [config.fc_dim, *config.widths]
        self.blocks = nn.Sequential(
            *(NervBlock(a, b, s) for a, b, s in zip(widths[:-1], widths[1:], config.strides, strict=True))
        )
        self.pixels = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.semantic = SemanticHead(widths[-1], config.semantic, (1, 1)) if config.semantic else None

    def places(self, units: Tensor) -> list[tuple[float, float, float]]:
        """``(B,)`` patch numbers, counted row by row through each frame, to their places in [0, 1]."""
        grid, rows = self.geometry.patches, []
        per_frame = grid.rows * grid.columns
        for unit in units.tolist():
            frame, patch = divmod(unit, per_frame)
            row, column = divmod(patch, grid.columns)
            rows.append(patch_coordinates(frame, row, column, self.geometry.frames, grid))
        return rows

    def _trunk(self, coordinates: list[tuple[float, float, float]]) -> Tensor:
        located = torch.tensor(coordinates, dtype=torch.float32, device=self.device)
        encoded = positional_encoding(located, self.config.base, self.config.levels)
        x = F.gelu(self.stem(encoded))
        return self.blocks(x.view(-1, self.config.fc_dim, *self.config.fc_hw))

    @property
    def default_batch_size(self) -> int:
        return 8

    @property
    def unit_count(self) -> int:
        return self.geometry.frames * self.geometry.patch_rows * self.geometry.patch_columns

    def unit_frames(self, units: Tensor) -> Tensor:
        return units // (self.geometry.patch_rows * self.geometry.patch_columns)

    def pack_targets(self, frames: Tensor) -> Tensor:
        """All patches as ``(units, h, w, 3)``, each brought to the largest patch's size by repeating its edge."""
        height, width = self.geometry.patches.patch_size
        patches = []
        for x, y, w, h in self.geometry.patches.boxes():
            down = (y + torch.arange(height, device=frames.device)).clamp(max=y + h - 1)
            across = (x + torch.arange(width, device=frames.device)).clamp(max=x + w - 1)
            patches.append(frames[:, down][:, :, across])
        return torch.stack(patches, dim=1).flatten(0, 1)

    def pack_embeddings(self, embeddings: Tensor, frame_rows: Tensor, units: Tensor) -> Tensor:
        patch = units % (self.geometry.patch_rows * self.geometry.patch_columns)
        return embeddings[frame_rows, patch][:, None]

    def forward(self, units: Tensor, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        features = self._trunk(self.places(units))
        centred = None
        if with_semantics:
            assert self.semantic is not None
            centred = self.semantic(features.float().mean(dim=(2, 3))[:, None], self.unit_frames(units))
        return self._pixels(features), centred

    def _pixels(self, features: Tensor) -> Tensor:
        """Features to packed patches of the largest patch's size."""
        size = self.geometry.patches.patch_size
        pixels = self.pixels(features)
        if tuple(pixels.shape[2:]) != size:
            pixels = F.interpolate(pixels.float(), size=size, mode="bilinear", antialias=True)
        return pixels.permute(0, 2, 3, 1)

    def unpack(self, packed: Tensor) -> Tensor:
        return packed.float() + 0.5

    def _units(self, frames: Tensor, patch: int) -> Tensor:
        return frames * (self.geometry.patch_rows * self.geometry.patch_columns) + patch

    def render(self, frames: Tensor) -> Tensor:
        grid = self.geometry.patches
        result = torch.empty(len(frames), grid.height, grid.width, 3, device=self.device)
        for row in range(grid.rows):
            for column in range(grid.columns):
                x, y, width, height = grid.box(row, column)
                result[:, y : y + height, x : x + width] = self.render_patch(frames, row, column)
        return result

    def render_patch(self, frames: Tensor, row: int, column: int) -> Tensor:
        _, _, width, height = self.geometry.patches.box(row, column)
        packed, _ = self(self._units(frames, row * self.geometry.patch_columns + column), with_semantics=False)
        return self.unpack(packed)[:, :height, :width]

    def render_between(self, frames: Tensor, row: float, column: float) -> Tensor:
        grid = self.geometry.patches
        _, _, width, height = grid.box_between(row, column)
        places = [patch_coordinates(frame, row, column, self.geometry.frames, grid) for frame in frames.tolist()]
        return self.unpack(self._pixels(self._trunk(places)))[:, :height, :width]

    def coefficients(self, frames: Tensor) -> Tensor:
        assert self.semantic is not None
        parts = []
        for patch in range(self.geometry.patch_rows * self.geometry.patch_columns):
            features = self._trunk(self.places(self._units(frames, patch))).float().mean(dim=(2, 3))
            parts.append(self.semantic.coefficients(features[:, None], frames))
        return torch.cat(parts, dim=1)

    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        semantic = list(self.semantic.parameters()) if self.semantic is not None else []
        taken = {id(p) for p in semantic}
        return {
            "matrices": [],
            "grids": [],
            "semantic": [p for p in semantic if p.requires_grad],
            "others": [p for p in self.parameters() if id(p) not in taken],
        }
