# SPDX-License-Identifier: MIT
"""Planes of a base layer as a network sees them: 4:2:0 packed to 1/4 resolution, weighed as RGB weighs them.

The layout's channels are 16 of luma, 4 of Cb and 4 of Cr, each 0 at mid-grey and scaled so that a squared error in it
is about the squared error of the RGB that the planes stand for: what is fitted to planes is fitted to RGB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nervcodec.formats.header import PlaneFormat
from nervcodec.network.blocks import pixel_shuffle, pixel_unshuffle
from nervcodec.network.config import CELL

FACTOR = 4  # pixels across and down that one position stands for
REFINED_DEPTH = 10  # bits of the samples that a network gives
# (top, bottom, left, right) in 16 x 16 pixel cells
Cells = tuple[int, int, int, int]
_KEPT = 0.7  # of the squared error of a chroma sample, once it is interpolated to its four pixels


@dataclass(frozen=True)
class BaseFrames:
    """Frames of a base layer, one after the other.

    Attributes:
        y: ``(N, H, W)``, integers of any type.
        u, v: ``(N, h, w)``.
        format: what they stand for.
        first: number of the first of them, counted from the segment's first.
    """

    y: Tensor
    u: Tensor
    v: Tensor
    format: PlaneFormat
    first: int = 0

    @classmethod
    def of(cls, planes: tuple[np.ndarray, np.ndarray, np.ndarray], format: PlaneFormat, first: int = 0) -> BaseFrames:
        """From arrays of uint8 or uint16."""
        # torch knows uint16 by name alone; ten bits are the same numbers in int16
        y, u, v = (torch.from_numpy(plane if plane.dtype == np.uint8 else plane.view(np.int16)) for plane in planes)
        return cls(y, u, v, format, first)

    def to(self, device: torch.device | str) -> BaseFrames:
        """The same where a network runs."""
        return replace(self, y=self.y.to(device), u=self.u.to(device), v=self.v.to(device))

    def at(self, frames: Tensor, cells: Sequence[Cells] = ()) -> tuple[Tensor, Tensor, Tensor]:
        """Planes of some frames within windows of whole cells; beyond the frame its edge repeats.

        Args:
            frames: ``(B,)`` int64, counted from the segment's first.
            cells: one window for all frames, or one each; none for the frames as they are.

        Returns:
            y, u, v, ``(B, ...)``.
        """
        rows = frames.to(self.y.device) - self.first
        return _windows(self.y, rows, cells, 1), _windows(self.u, rows, cells, 2), _windows(self.v, rows, cells, 2)

    def luma(self, frames: Tensor, cells: Sequence[Cells]) -> Tensor:
        """:meth:`at`, of luma alone."""
        return _windows(self.y, frames.to(self.y.device) - self.first, cells, 1)


def _windows(plane: Tensor, rows: Tensor, cells: Sequence[Cells], step: int) -> Tensor:
    """Some frames of a plane, cut to cells; ``step`` is how many luma samples there are for one of the plane's."""
    if not cells:
        return plane if len(plane) == 1 == len(rows) else plane.index_select(0, rows)
    if len(cells) == 1:
        return _window(plane.index_select(0, rows), cells[0], step)
    return torch.cat([_window(plane[row : row + 1], one, step) for row, one in zip(rows.tolist(), cells, strict=True)])


def _window(plane: Tensor, cells: Cells, step: int) -> Tensor:
    top, bottom, left, right = (edge * CELL // step for edge in cells)
    if bottom <= plane.shape[1] and right <= plane.shape[2]:
        return plane[:, top:bottom, left:right]
    down = torch.arange(top, bottom, device=plane.device).clamp(max=plane.shape[1] - 1)
    across = torch.arange(left, right, device=plane.device).clamp(max=plane.shape[2] - 1)
    return plane.index_select(1, down).index_select(2, across)


class PlaneLayout:
    """How planes of 4:2:0 become a network's channels, and back.

    Args:
        format: of the planes.
    """

    def __init__(self, format: PlaneFormat):
        self.format = format
        red, blue = format.luma_weights
        green = 1 - red - blue
        of_blue = (2 * (1 - blue)) ** 2 + (2 * blue * (1 - blue) / green) ** 2
        of_red = (2 * (1 - red)) ** 2 + (2 * red * (1 - red) / green) ** 2
        luma, chroma = (1.0, 1.0) if format.full_range else (255 / 219, 255 / 224)
        # A mean over 24 channels against one over 48: half the sum of what the samples bring to R, G and B.
        self.weights = (
            luma * math.sqrt(3 / 2),
            chroma * math.sqrt(2 * _KEPT * of_blue),
            chroma * math.sqrt(2 * _KEPT * of_red),
        )
        self._scale = 255 << (format.depth - 8)
        self._middle = 1 << (format.depth - 1)

    def luma(self, y: Tensor) -> Tensor:
        """Luma ``(B, 4h, 4w)`` to ``(B, h, w, 16)`` float32."""
        return (pixel_unshuffle(y[..., None], FACTOR).float() - self._middle) * (self.weights[0] / self._scale)

    def pack(self, y: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Planes whose sides are whole cells to ``(B, h, w, 24)`` float32."""
        chroma = [
            (pixel_unshuffle(plane[..., None], FACTOR // 2).float() - self._middle) * (weight / self._scale)
            for plane, weight in zip((u, v), self.weights[1:], strict=True)
        ]
        return torch.cat([self.luma(y), *chroma], dim=-1)

    def values(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inverse of :meth:`pack`, float32 samples that are neither rounded nor clipped."""
        parts = packed.float().split([FACTOR**2, FACTOR, FACTOR], dim=-1)
        factors = (FACTOR, FACTOR // 2, FACTOR // 2)
        y, u, v = (
            pixel_shuffle(part, factor)[..., 0] * (self._scale / weight) + self._middle
            for part, factor, weight in zip(parts, factors, self.weights, strict=True)
        )
        return y, u, v

    def samples(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same as integers, int16."""
        most = (1 << self.format.depth) - 1
        y, u, v = (plane.round().clamp(0, most).to(torch.int16) for plane in self.values(packed))
        return y, u, v

    def images(self, packed: Tensor) -> Tensor:
        """``(B, 4h, 4w, 3)`` float32 RGB, about [0, 1], with gradients: for losses, which need no exact colours."""
        y, u, v = (plane / self._scale for plane in self.values(packed))
        middle = self._middle / self._scale
        chroma = F.interpolate(torch.stack([u, v], dim=1) - middle, scale_factor=2, mode="bilinear")
        form, (red, blue) = self.format, self.format.luma_weights
        y, chroma = (y, chroma) if form.full_range else ((y - 16 / 255) * (255 / 219), chroma * (255 / 224))
        of_blue, of_red = chroma[:, 0] * (2 * (1 - blue)), chroma[:, 1] * (2 * (1 - red))
        of_green = -(of_blue * blue + of_red * red) / (1 - red - blue)
        return torch.stack([y + of_red, y + of_green, y + of_blue], dim=-1)

    def refined(self) -> PlaneLayout:
        """Of planes with as many bits as a network gives."""
        return PlaneLayout(replace(self.format, depth=REFINED_DEPTH))
