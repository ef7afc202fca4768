# SPDX-License-Identifier: MIT
"""Feature grids over time and space: the learned positional encoding of the ``grid`` network.

Idea: multi-resolution grids in place of a sinusoidal encoding, as in HiNeRV (Kwan et al. 2023, arXiv:2306.09818)
and instant-ngp (Mueller et al. 2022, arXiv:2201.05989), here dense and without a hash.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nervcodec.network.config import GridShape
from nervcodec.network.interpolation import resampling_matrix

INITIAL_STD = 0.05


def lerp_times(values: Tensor, t: Tensor) -> Tensor:
    """Interpolate linearly along the first axis.

    Args:
        values: ``(T, ...)``.
        t: ``(B,)`` float32 in [0, 1]; 0 is the first entry, 1 the last.

    Returns:
        ``(B, ...)``.
    """
    count = values.shape[0]
    if count == 1:
        return values.expand(t.shape[0], *values.shape[1:])
    position = t * (count - 1)
    lower = position.floor().long().clamp(0, count - 2)
    fraction = (position - lower).view(-1, *([1] * (values.ndim - 1))).to(values.dtype)
    return torch.lerp(values[lower], values[lower + 1], fraction)


class FeatureGrid(nn.Module):
    """One grid, interpolated to the resolution of its stage.

    Args:
        shape: of the grid.
        rows, columns: resolution of the stage it feeds.
    """

    def __init__(self, shape: GridShape, rows: int, columns: int):
        super().__init__()
        size = (shape.times, shape.channels, shape.rows, shape.columns)
        self.values = nn.Parameter(torch.randn(size) * INITIAL_STD)
        self.register_buffer("down", resampling_matrix(rows, shape.rows), persistent=False)
        self.register_buffer("across", resampling_matrix(columns, shape.columns).t().contiguous(), persistent=False)
        self.native = (rows, columns) == (shape.rows, shape.columns)

    def forward(self, t: Tensor, window: tuple[int, int, int, int]) -> Tensor:
        """Features in a window of the stage.

        Args:
            t: ``(B,)`` float32 in [0, 1].
            window: (top, bottom, left, right) in positions of the stage.

        Returns:
            ``(B, channels, bottom - top, right - left)`` float32.
        """
        top, bottom, left, right = window
        features = lerp_times(self.values, t)
        if self.native:
            return features[:, :, top:bottom, left:right]
        return self.down[top:bottom] @ features @ self.across[:, left:right]
