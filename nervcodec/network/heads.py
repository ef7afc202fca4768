# SPDX-License-Identifier: MIT
"""The two heads: pixels, and one embedding a patch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nervcodec.network.config import GridConfig, HeadOnlyConfig, SemanticConfig
from nervcodec.network.layers import Pointwise, pixel_shuffle, pixel_unshuffle
from nervcodec.network.overlap import BLOCK, overlap, split_blocks
from nervcodec.network.timeline import Timeline

_MIN_GAIN = 0.02  # smallest gain of a direction, relative to the strongest one


class PixelHead(nn.Module):
    """Features at 1/4 resolution to RGB: a matrix and a pixel shuffle by 4, whose blocks may overlap.

    Args:
        width: channels of the features.
        lapped: whether blocks overlap, see :mod:`nervcodec.network.overlap`.
    """

    factor = BLOCK

    def __init__(self, width: int, lapped: bool):
        super().__init__()
        self.lapped = lapped
        self.project = Pointwise(width, 3 * self.factor**2, gain=0.3)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, width)`` to ``(B, H, W, 48)``: RGB about 0, in the order of :func:`pixel_shuffle`."""
        return self.project(x)

    def to_frame(self, packed: Tensor) -> Tensor:
        """``(B, H, W, 48)`` to ``(B, 4H, 4W, 3)`` float32, mid-grey added; black is 0 and white 1, not clamped."""
        blocks = pixel_shuffle(packed, self.factor).float()
        return (overlap(blocks) if self.lapped else blocks).add_(0.5)

    def to_packed(self, frames: Tensor) -> Tensor:
        """The inverse without mid-grey: ``(B, 4H, 4W, 3)`` float32 about 0 to the layout that the network predicts."""
        return pixel_unshuffle(split_blocks(frames) if self.lapped else frames, self.factor)


class SemanticHead(nn.Module):
    """Pooled features of a patch to its centred embedding: coefficients, then a basis.

    The last layer's columns are directions in embedding space; they are initialized with the principal directions
    of the reference embeddings. The video's mean embedding is kept beside them as ``mean``. Coefficients come from an
    MLP of the features; or, where the configuration lists code frames, from ``codes`` of each patch, interpolated in
    time, without an MLP. ``gain`` then lets one quantization step suit all directions: weak directions are stored
    small.

    Args:
        features: channels of the pooled features.
        config: sizes.
        grid: rows and columns of patches in a frame.
        timeline: of the head's grid, where it has one.
        code_timeline: of the codes.
    """

    def __init__(
        self,
        features: int,
        config: SemanticConfig,
        grid: tuple[int, int],
        timeline: Timeline | None = None,
        code_timeline: Timeline | None = None,
    ):
        super().__init__()
        self.timeline, self.code_timeline = timeline, code_timeline
        shape = (config.grid_times, grid[0] * grid[1], config.grid_channels)
        self.grid = nn.Parameter(torch.randn(shape).mul_(0.1)) if config.grid_channels else None
        if config.codes:
            self.codes = nn.Parameter(torch.randn(config.codes, config.rank, *grid).mul_(0.1))
            self.gain = nn.Parameter(torch.ones(config.rank))
        else:
            self.hidden = nn.Linear(features + config.grid_channels, config.hidden)
            self.reduce = nn.Linear(config.hidden, config.rank)
        self.directions = nn.Linear(config.rank, config.dimension, bias=False)
        self.mean = nn.Parameter(torch.zeros(config.dimension), requires_grad=False)

    @property
    def needs_features(self) -> bool:
        """Whether embeddings depend on the shared decoder's features."""
        return self.code_timeline is None

    def entries(self) -> Tensor:
        """Coordinates of the frames with stored codes, ``(e, patches, rank)``."""
        return self.codes.flatten(2).transpose(1, 2) * self.gain

    def coefficients(self, pooled: Tensor | None, frames: Tensor) -> Tensor:
        """Coordinates of centred embeddings in the basis ``directions``.

        Args:
            pooled: ``(B, patches, features)``; None where they are not needed.
            frames: ``(B,)`` int64.

        Returns:
            ``(B, patches, rank)`` float32.
        """
        if self.code_timeline is not None:
            return self.code_timeline(self.entries(), frames)
        assert pooled is not None
        x = pooled.float()
        if self.grid is not None and self.timeline is not None:
            x = torch.cat([x, self.timeline(self.grid, frames)], dim=-1)
        return self.reduce(F.gelu(self.hidden(x)))

    def forward(self, pooled: Tensor | None, frames: Tensor) -> Tensor:
        """Centred embeddings, ``(B, patches, dimension)``; arguments as :meth:`coefficients`."""
        return self.directions(self.coefficients(pooled, frames))

    @torch.no_grad()
    def initialize(self, centred: Tensor, frames: Tensor) -> None:
        """Initialize with the principal directions of reference embeddings, and their coefficients as codes.

        Args:
            centred: ``(n, patches, dimension)``.
            frames: ``(n,)`` int64, the frame of each row.
        """
        flat = centred.flatten(0, 1)
        scale = flat.square().sum(dim=1).mean().clamp(min=1e-6).sqrt()
        _, strengths, directions = torch.linalg.svd(flat, full_matrices=False)
        rank = min(len(directions), self.directions.weight.shape[1])
        directions, strengths = directions[:rank], strengths[:rank]
        self.directions.weight.zero_()
        self.directions.weight[:, :rank] = directions.T * scale
        if self.code_timeline is not None:
            small = (strengths / strengths[0].clamp(min=1e-6)).clamp(min=_MIN_GAIN)
            self.directions.weight[:, :rank] *= small
            self.gain[:rank] = 1 / small
            entries = self.code_timeline.weights[0][frames]
            coefficients = (centred @ directions.T / scale).transpose(1, 2)  # (n, rank, patches)
            self.codes.zero_()
            self.codes[entries, :rank] = coefficients.unflatten(2, self.codes.shape[2:])

    def embeddings(self, centred: Tensor) -> Tensor:
        """Add the mean and normalize to length 1: ``(..., dimension)`` to the same."""
        return F.normalize(centred + self.mean, dim=-1)


def semantic_head(config: GridConfig | HeadOnlyConfig, features: int) -> SemanticHead | None:
    """The semantic head of a network, with random weights; None where it has none.

    Args:
        config: of the network.
        features: channels that its decoder shares with the head.
    """
    if config.semantic is None:
        return None
    geometry, semantic = config.geometry, config.semantic
    timeline = Timeline.even(semantic.grid_times, geometry.frames, config.cuts)
    codes = Timeline.at(semantic.code_frames, geometry.frames, config.cuts) if semantic.codes else None
    return SemanticHead(features, semantic, (geometry.patch_rows, geometry.patch_columns), timeline, codes)
