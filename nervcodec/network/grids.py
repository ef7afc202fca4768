# SPDX-License-Identifier: MIT
"""Feature grids over time and space: the learned positional encoding of the ``grid`` network.

Idea: multi-resolution grids in place of a sinusoidal encoding, as in HiNeRV (Kwan et al. 2023, arXiv:2306.09818)
and instant-ngp (Mueller et al. 2022, arXiv:2201.05989), here dense and without a hash.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nervcodec.network.config import GridShape
from nervcodec.network.constants import Constants
from nervcodec.network.interpolation import resampling_matrix
from nervcodec.network.timeline import Timeline

INITIAL_STD = 0.05


class FeatureGrid(nn.Module):
    """One grid, interpolated to the resolution of its stage.

    Args:
        shape: of the grid.
        rows, columns: resolution of the stage it feeds.
        timeline: places frames among the grid's entries.
    """

    def __init__(self, shape: GridShape, rows: int, columns: int, timeline: Timeline):
        super().__init__()
        self.timeline = timeline
        self._read: Callable[[Tensor], Tensor] | None = None
        size = (shape.times, shape.channels, shape.rows, shape.columns)
        self.values = nn.Parameter(torch.randn(size).mul_(INITIAL_STD))
        self._matrices = Constants(
            lambda: (resampling_matrix(rows, shape.rows), resampling_matrix(columns, shape.columns).t().contiguous())
        )
        self.native = (rows, columns) == (shape.rows, shape.columns)

    def round_with(self, read: Callable[[Tensor], Tensor]) -> None:
        """Pass values through a function as they are read from here on."""
        self._read = read

    def forward(self, frames: Tensor, window: tuple[int, int, int, int]) -> Tensor:
        """Features in a window of the stage.

        Args:
            frames: ``(B,)`` int64.
            window: (top, bottom, left, right) in positions of the stage.

        Returns:
            ``(B, channels, bottom - top, right - left)`` float32.
        """
        top, bottom, left, right = window
        features = self.timeline(self.values, frames, self._read)
        if self.native:
            return features[:, :, top:bottom, left:right]
        down, across = self._matrices.on(features.device)
        return down[top:bottom] @ features @ across[:, left:right]
