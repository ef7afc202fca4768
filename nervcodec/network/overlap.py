# SPDX-License-Identifier: MIT
"""Blocks that overlap: what a pixel shuffle gives, block by block, to pixels that neighbouring blocks have in common.

A pixel shuffle paints blocks that know nothing of each other, and what a network gets wrong differs from block to
block: a screen door lies over the picture. A lapped transform (Malvar and Staelin 1989, DOI 10.1109/29.17536) has
blocks reach into one another. It is put here as Tran, Liang and Tu did (2003, IEEE Trans. Signal Processing 51, 6): a
step across each border after the transform. Of the two pixels on either side sums stay, differences are turned by an
angle. A turn changes no length, so that a squared error is the same before and after: a fit compares blocks with a
picture that was turned back, and the network takes no step more for it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nervcodec.network.layers import Constants

BLOCK = 4  # pixels across and down
REACH = BLOCK // 2  # pixels on either side of a border that it changes
ANGLE = math.radians(22.5)  # at which errors differ across borders as they do inside blocks (benchmarks/NOTES.md)
_CHANNELS = 3


def overlapped(blocks: Tensor) -> Tensor:
    """Blocks to the picture that they make together.

    Args:
        blocks: ``(B, H, W, 3)`` float32, H and W multiples of the block's 4, at least 8.

    Returns:
        The same shape; a constant stays as it is, and so does every sum of squares.
    """
    return _Turn.apply(blocks, ANGLE)


def parted(pictures: Tensor) -> Tensor:
    """The inverse of :func:`overlapped`."""
    return _Turn.apply(pictures, -ANGLE)


class _Turn(torch.autograd.Function):
    """An orthogonal map; its gradient goes the way back."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, angle: float) -> Tensor:
        ctx.angle = angle
        return _turned(images, angle)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _turned(gradient, -ctx.angle), None


def _turned(images: Tensor, angle: float) -> Tensor:
    """Across borders side by side, then across those one above the other."""
    with torch.autocast(images.device.type, enabled=False):
        turned = _across(images.contiguous(), angle)
    _down(turned, angle)
    return turned


def _across(images: Tensor, angle: float) -> Tensor:
    # All rows as one: a product of matrices in one pass. It joins the ends of rows, too, which are put back.
    turned = torch.empty_like(images)
    matrix = _matrix(angle).on(images.device)[0].to(images.dtype)
    margin, size = REACH * _CHANNELS, len(matrix)
    groups = (one.view(-1)[margin:-margin].view(-1, size) for one in (images, turned))
    torch.mm(next(groups), matrix, out=next(groups))
    for end in (slice(None, REACH), slice(-REACH, None)):
        turned[:, :, end] = images[:, :, end]
    return turned


@cache
def _matrix(angle: float) -> Constants:
    """12 x 12: what a row of four pixels about a border, with their channels, is multiplied with to turn them."""
    return Constants(lambda: (torch.tensor(_rows(angle), dtype=torch.float64),))


def _rows(angle: float) -> list[list[float]]:
    cosine, sine = math.cos(angle) / 2, math.sin(angle) / 2
    half = 0.5
    pixels = (
        (half + cosine, -sine, sine, half - cosine),
        (sine, half + cosine, half - cosine, -sine),
        (-sine, half - cosine, half + cosine, sine),
        (half - cosine, sine, -sine, half + cosine),
    )
    return [
        [value if channel == other else 0.0 for value in row for other in range(_CHANNELS)]
        for row in pixels
        for channel in range(_CHANNELS)
    ]


def _down(images: Tensor, angle: float) -> None:
    """Across borders one above the other, in place."""
    batch, height, width, channels = images.shape
    about = images[:, REACH:-REACH].view(batch, height // BLOCK - 1, BLOCK, width * channels)
    above, over, under, below = (about[:, :, row] for row in range(BLOCK))
    outer, inner = above - below, over - under
    cosine, sine = math.cos(angle) - 1, math.sin(angle)
    # Half of what each difference changes by is added on one side and taken away on the other.
    change = (outer * (cosine / 2)).add_(inner, alpha=sine / 2)
    above.add_(change)
    below.sub_(change)
    change = inner.mul_(cosine / 2).sub_(outer, alpha=sine / 2)
    over.add_(change)
    under.sub_(change)
