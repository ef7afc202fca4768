# SPDX-License-Identifier: MIT
"""The original method's network: one forward pass per patch at its own (t, y, x), NeRV blocks, two heads.

::

    (t, y, x) -> sin/cos -> fully connected stem, fc_hw x fc_dim -> NeRV blocks -+-> 3x3 convolution -> RGB patch
                                                                                 +-> mean, MLP -> embedding
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nervcodec.coordinates import patch_coordinates
from nervcodec.network.config import PatchConfig
from nervcodec.network.field import Field, Inputs
from nervcodec.network.heads import SemanticHead
from nervcodec.network.layers import NervBlock


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

    def coordinates(self, inputs: Inputs) -> list[tuple[float, float, float]]:
        """Coordinates of every row, (t, y, x) in [0, 1]."""
        count, grid = self.geometry.frames, self.geometry.patches
        return [patch_coordinates(frame, patch.row, patch.column, count, grid) for frame, patch in inputs.rows()]

    def _trunk(self, inputs: Inputs) -> Tensor:
        located = torch.tensor(self.coordinates(inputs), dtype=torch.float32, device=self.device)
        encoded = positional_encoding(located, self.config.base, self.config.levels)
        x = F.gelu(self.stem(encoded))
        return self.blocks(x.view(-1, self.config.fc_dim, *self.config.fc_hw))

    def forward(self, inputs: Inputs, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        """As :meth:`Field.forward`, of one patch for all frames or one for each, with the size of the largest patch."""
        features = self._trunk(inputs)
        centred = None
        if with_semantics:
            assert self.semantic is not None
            centred = self.semantic(_pooled(features), inputs.frames)
        return self._pixels(features), centred

    def _pixels(self, features: Tensor) -> Tensor:
        """Features to packed patches of the largest patch's size."""
        size = self.geometry.patches.patch_size
        pixels = self.pixels(features)
        if tuple(pixels.shape[2:]) != size:
            pixels = F.interpolate(pixels.float(), size=size, mode="bilinear", antialias=True)
        return pixels.permute(0, 2, 3, 1)

    def unpack(self, packed: Tensor) -> Tensor:
        """Predictions of whole patches to images ``(B, h, w, 3)`` float32, about [0, 1]."""
        return packed.float() + 0.5

    def render(self, inputs: Inputs) -> Tensor:
        if inputs.patches:
            (patch,) = inputs.patches
            packed, _ = self(inputs, with_semantics=False)
            return self.unpack(packed)[:, : patch.height, : patch.width]
        grid = self.geometry.patches
        result = torch.empty(len(inputs.frames), grid.height, grid.width, 3, device=self.device)
        for patch in grid.patches():
            across, down = slice(patch.x, patch.x + patch.width), slice(patch.y, patch.y + patch.height)
            result[:, down, across] = self.render(replace(inputs, patches=(patch,)))
        return result

    def coefficients(self, inputs: Inputs) -> Tensor:
        assert self.semantic is not None
        by_patch = [replace(inputs, patches=(patch,)) for patch in self.geometry.patches.patches()]
        coefficients = [self.semantic.coefficients(_pooled(self._trunk(x)), inputs.frames) for x in by_patch]
        return torch.cat(coefficients, dim=1)


def _pooled(features: Tensor) -> Tensor:
    """``(B, C, H, W)`` of one patch each to its mean, ``(B, 1, C)`` float32."""
    return features.float().mean(dim=(2, 3))[:, None]
