# SPDX-License-Identifier: MIT
"""What a network is asked for: frames of its segment, whole or windows of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nervcodec.coordinates import Window
from nervcodec.network.config import CELL

# (top, bottom, left, right) in 16 x 16 pixel cells
Cells = tuple[int, int, int, int]


@dataclass(frozen=True)
class Inputs:
    """A question to a network.

    Attributes:
        frames: ``(B,)`` int64, counted from the segment's first.
        windows: nothing for whole frames, one for all of them, or one each.
    """

    frames: Tensor
    windows: tuple[Window, ...] = ()

    def each(self) -> list[tuple[int, Window]]:
        """Frame number and window of every row."""
        windows = self.windows * len(self.frames) if len(self.windows) == 1 else self.windows
        return list(zip(self.frames.tolist(), windows, strict=True))

    def cells(self, whole: tuple[int, int], halo: int) -> Cells:
        """Cells that have to be computed: of the whole frame, or of a window and what its pixels depend on.

        Args:
            whole: rows and columns of cells in a frame.
            halo: cells around a window that its pixels depend on.
        """
        rows, columns = whole
        if not self.windows:
            return 0, rows, 0, columns
        (window,) = self.windows
        return (
            max(0, window.y // CELL - halo),
            min(rows, -(-(window.y + window.height) // CELL) + halo),
            max(0, window.x // CELL - halo),
            min(columns, -(-(window.x + window.width) // CELL) + halo),
        )
