# SPDX-License-Identifier: MIT
"""The two heads: pixels, and one embedding a patch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nervcodec.network.blocks import Pointwise, pixel_shuffle
from nervcodec.network.config import SemanticConfig
from nervcodec.network.timeline import Timeline


class PixelHead(nn.Module):
    """Features at 1/4 resolution to RGB: one matrix and a pixel shuffle by 4."""

    factor = 4

    def __init__(self, width: int):
        super().__init__()
        self.project = Pointwise(width, 3 * self.factor**2, gain=0.3)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, width)`` to ``(B, H, W, 48)``: RGB about 0, in the order of :func:`pixel_shuffle`."""
        return self.project(x)

    def to_frame(self, packed: Tensor) -> Tensor:
        """``(B, H, W, 48)`` to ``(B, 4H, 4W, 3)`` float32, mid-grey added; black is 0 and white 1, not clamped."""
        return pixel_shuffle(packed, self.factor).float() + 0.5


class SemanticHead(nn.Module):
    """Pooled features of a patch to its centred embedding.

    The last layer's columns are directions in embedding space; the fit starts them at the principal directions of
    the reference embeddings. The video's mean embedding is kept beside them as ``mean``.

    Args:
        features: channels of the pooled features.
        config: sizes.
        patches: patches in a frame.
        timeline: places frames among the entries of the head's grid, where it has one.
    """

    def __init__(self, features: int, config: SemanticConfig, patches: int, timeline: Timeline | None = None):
        super().__init__()
        self.timeline = timeline
        shape = (config.grid_times, patches, config.grid_channels)
        self.grid = nn.Parameter(torch.randn(shape) * 0.1) if config.grid_channels else None
        self.hidden = nn.Linear(features + config.grid_channels, config.hidden)
        self.reduce = nn.Linear(config.hidden, config.rank)
        self.directions = nn.Linear(config.rank, config.dimension, bias=False)
        self.mean = nn.Parameter(torch.zeros(config.dimension), requires_grad=False)

    def forward(self, pooled: Tensor, frames: Tensor) -> Tensor:
        """Embeddings less the video's mean.

        Args:
            pooled: ``(B, patches, features)``.
            frames: ``(B,)`` int64.

        Returns:
            ``(B, patches, dimension)`` float32.
        """
        x = pooled.float()
        if self.grid is not None and self.timeline is not None:
            x = torch.cat([x, self.timeline(self.grid, frames)], dim=-1)
        return self.directions(self.reduce(F.gelu(self.hidden(x))))

    def embeddings(self, centred: Tensor) -> Tensor:
        """Add the mean and bring to length 1: ``(..., dimension)`` to the same."""
        return F.normalize(centred + self.mean, dim=-1)
