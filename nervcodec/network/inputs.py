# SPDX-License-Identifier: MIT
"""What a network is asked for: frames of its segment, whole or windows of them.

Whatever else a network is shown of a frame, the planes of a base layer, belongs here, so that nothing that passes an
:class:`Inputs` on has to know of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nervcodec.coordinates import Window
from nervcodec.network.config import CELL
from nervcodec.network.planes import BaseFrames, Cells


@dataclass(frozen=True)
class Inputs:
    """A question to a network.

    Attributes:
        frames: ``(B,)`` int64, counted from the segment's first.
        windows: nothing for whole frames, one for all of them, or one each.
        parts: in place of ``windows``, for a fit: in whole cells, one for each frame and all of one size, of which
            nothing around them is looked at.
        base: what a base layer has of these frames, and of those before and after them; None without a base layer.
    """

    frames: Tensor
    windows: tuple[Window, ...] = ()
    base: BaseFrames | None = None
    parts: tuple[Cells, ...] = ()

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
