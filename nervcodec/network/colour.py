# SPDX-License-Identifier: MIT
"""RGB of planes that are tensors: on a CPU by :mod:`nervcodec.colour`, elsewhere the same where they are."""

from __future__ import annotations

import torch
from torch import Tensor

from nervcodec import colour
from nervcodec.colour import HIGH, MIDDLE, STEP, Gain, Window
from nervcodec.formats.header import PlaneFormat

Planes = tuple[Tensor, Tensor, Tensor]


def to_rgb(planes: Planes, form: PlaneFormat, window: Window) -> Tensor:
    """As :func:`nervcodec.colour.to_rgb`, ``(n, height, width, 3)`` int16 on the device of the planes."""
    if planes[0].device.type == "cpu":
        return torch.from_numpy(colour.to_rgb([plane.numpy() for plane in planes], form, window))
    return rgb_there(planes, form, window)


def to_rgb8(planes: Planes, form: PlaneFormat, window: Window) -> Tensor:
    """As :func:`nervcodec.colour.to_rgb8`, ``(n, height, width, 3)`` uint8 on the device of the planes."""
    if planes[0].device.type == "cpu":
        return torch.from_numpy(colour.to_rgb8([plane.numpy() for plane in planes], form, window))
    return rgb8_there(planes, form, window)


def rgb_there(planes: Planes, form: PlaneFormat, window: Window) -> Tensor:
    """:func:`to_rgb` with nothing of what makes it fast on a CPU."""
    y, u, v = (plane.view(torch.int16) if form.depth == 10 else plane.to(torch.int16) for plane in planes)
    by, middle = colour.formula(form), 1 << form.depth - 1
    less = by.black + MIDDLE
    if form.matrix == 0:
        parts = torch.stack([_times(plane, by.luma, form.depth) - less for plane in (v, y, u)])
    else:
        u, v = u - middle, v - middle
        green = _times(v, by.green_v, form.depth) + _times(u, by.green_u, form.depth)
        added = torch.stack([_times(v, by.red, form.depth), green, _times(u, by.blue, form.depth)])
        added = added.clamp_(-HIGH, HIGH)
        down, across = form.chroma_step
        if down == 2:
            added = _doubled(added, 2, form.chroma_place == "topleft")
        if across == 2:
            added = _doubled(added, 3, form.chroma_place != "center")
        parts = added[:, :, : y.shape[1], : y.shape[2]] + (_times(y, by.luma, form.depth) - less)
    top, left, height, width = window
    parts = parts[:, :, top : top + height, left : left + width]
    return parts.clamp(max=32767 - MIDDLE).add_(MIDDLE).permute(1, 2, 3, 0).contiguous()


def rgb8_there(planes: Planes, form: PlaneFormat, window: Window) -> Tensor:
    """:func:`to_rgb8` by that."""
    rgb = rgb_there(planes, form, window).clamp_(0, 255 * STEP).add_(STEP // 2)
    return rgb.bitwise_right_shift_(6).to(torch.uint8)


def _times(a: Tensor, gain: Gain, depth: int) -> Tensor:
    """Samples of 8 bits times a factor; those of 10 bits are four times as large."""
    if depth == 10:
        return _times(a >> 2, gain, 8) + ((a & 3) * gain.double + 4 >> 3)
    return (a * gain.part + 128 >> 8) + a * gain.whole


def _doubled(added: Tensor, axis: int, with_first: bool) -> Tensor:
    """Twice as many along an axis, whose ends are repeated; ``with_first``: samples lie on the first of two places."""
    count = added.shape[axis]
    before, after = (
        added.index_select(axis, (torch.arange(count, device=added.device) + step).clamp_(0, count - 1))
        for step in (-1, 1)
    )
    if with_first:
        pair = [added, added + after >> 1]
    else:
        pair = [added + (added + other + 2 >> 1) >> 1 for other in (before, after)]
    return torch.stack(pair, axis + 1).flatten(axis, axis + 1)
