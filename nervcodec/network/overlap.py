# SPDX-License-Identifier: MIT
"""Overlapping blocks: a lapped transform after the pixel shuffle, against blocking artefacts.

A pixel shuffle renders blocks independently, so errors are discontinuous across their borders, which is visible as a
grid. In a lapped transform (Malvar and Staelin 1989, DOI 10.1109/29.17536) blocks overlap. It is implemented as by
Tran, Liang and Tu (2003, IEEE Trans. Signal Processing 51, 6): a step across each border after the transform. Sums of
the two pixels on either side stay, differences are rotated by an angle. A rotation preserves squared errors: a fit
compares blocks with an image that was rotated back, at no cost for the network.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nervcodec.network.layers import LazyBuffers

BLOCK = 4  # pixels across and down
REACH = BLOCK // 2  # pixels that it changes on either side of a border
ANGLE = math.radians(22.5)  # errors then differ across borders as much as inside blocks (benchmarks/NOTES.md)
_CHANNELS = 3


def overlap(blocks: Tensor) -> Tensor:
    """Blocks to an image.

    Args:
        blocks: ``(B, H, W, 3)`` float32, H and W multiples of the block's 4, at least 8.

    Returns:
        The same shape; constants and sums of squares are preserved.
    """
    return _Rotation.apply(blocks, ANGLE)


def split_blocks(images: Tensor) -> Tensor:
    """The inverse of :func:`overlap`."""
    return _Rotation.apply(images, -ANGLE)


class _Rotation(torch.autograd.Function):
    """An orthogonal map; its backward pass is the inverse."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, angle: float) -> Tensor:
        ctx.angle = angle
        return _rotate(images, angle)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _rotate(gradient, -ctx.angle), None


def _rotate(images: Tensor, angle: float) -> Tensor:
    """Across vertical borders, then across horizontal ones."""
    with torch.autocast(images.device.type, enabled=False):
        rotated = _rotate_across(images.contiguous(), angle)
    _rotate_down(rotated, angle)
    return rotated


def _rotate_across(images: Tensor, angle: float) -> Tensor:
    # All rows at once as one matrix product. It also joins the ends of rows, which are restored afterwards.
    rotated = torch.empty_like(images)
    matrix = _matrix(angle).on(images.device)[0].to(images.dtype)
    margin, size = REACH * _CHANNELS, len(matrix)
    groups = (one.view(-1)[margin:-margin].view(-1, size) for one in (images, rotated))
    torch.mm(next(groups), matrix, out=next(groups))
    for end in (slice(None, REACH), slice(-REACH, None)):
        rotated[:, :, end] = images[:, :, end]
    return rotated


@cache
def _matrix(angle: float) -> LazyBuffers:
    """``(12, 12)``, rotates a row of four pixels around a border, with their channels."""
    return LazyBuffers(lambda: (torch.tensor(_rows(angle), dtype=torch.float64),))


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


def _rotate_down(images: Tensor, angle: float) -> None:
    """Across horizontal borders, in place."""
    batch, height, width, channels = images.shape
    about = images[:, REACH:-REACH].view(batch, height // BLOCK - 1, BLOCK, width * channels)
    above, over, under, below = (about[:, :, row] for row in range(BLOCK))
    outer, inner = above - below, over - under
    cosine, sine = math.cos(angle) - 1, math.sin(angle)
    # Half of the change of each difference is added on one side and subtracted on the other.
    change = (outer * (cosine / 2)).add_(inner, alpha=sine / 2)
    above.add_(change)
    below.sub_(change)
    change = inner.mul_(cosine / 2).sub_(outer, alpha=sine / 2)
    over.add_(change)
    under.sub_(change)
