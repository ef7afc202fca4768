# SPDX-License-Identifier: MIT
"""What a network is asked for: frames of its segment, whole or windows of them.

Whatever else a network is shown of a frame (planes of a base layer, say) belongs here, so that nothing that passes an
:class:`Inputs` on has to know of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nervcodec.coordinates import Window


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
