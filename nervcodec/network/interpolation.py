# SPDX-License-Identifier: MIT
"""Linear interpolation and averaging as small matrices, so that a window of the result needs a window of rows."""

from __future__ import annotations

import torch
from torch import Tensor


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
