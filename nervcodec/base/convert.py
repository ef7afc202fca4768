# SPDX-License-Identifier: MIT
"""Planes of any format as what AV1's main profile takes: 4:2:0 of 8 or 10 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nervcodec.formats.header import PlaneFormat
from nervcodec.media.planes import Planes

_OF_RGB = PlaneFormat(matrix=1)  # what planes of G, B and R become: BT.709 of limited range


def base_format(form: PlaneFormat, depth: int) -> PlaneFormat:
    """What planes of a format become: the same colours in 4:2:0; G, B and R become BT.709 of limited range.

    Args:
        form: of the source.
        depth: bits of a sample, 8 or 10.
    """
    if form.matrix == 0:
        form = replace(form, matrix=_OF_RGB.matrix, full_range=_OF_RGB.full_range)
    place = form.chroma_place if form.chroma == "420" or form.chroma_place == "center" else "left"
    return replace(form, depth=depth, chroma="420", chroma_place="left" if form.chroma == "444" else place)


def to_base(planes: Planes, form: PlaneFormat, depth: int) -> Planes:
    """Planes of ``form`` as those of ``base_format(form, depth)``.

    4:2:0 of the same depth is left as it is. Chroma at half the rate is a mean of what lies around its place.
    """
    if form.matrix == 0:
        return _from_rgb(planes, form, depth)
    if form.chroma == "420":
        if form.depth == depth:
            return planes
        u, v = planes[1:]
    else:
        u, v = (_halved(plane.astype(float), form.chroma == "444") for plane in planes[1:])
    y = planes.y if form.depth == depth else _scaled(planes.y, form, depth, 0)
    middle = 1 << form.depth - 1
    return Planes(y, _scaled(u, form, depth, middle), _scaled(v, form, depth, middle))


def _scaled(plane: np.ndarray, form: PlaneFormat, depth: int, middle: int) -> np.ndarray:
    """Samples of ``form.depth`` bits in ``depth``: by factors of two in limited range, by white in full range.

    Args:
        plane: of samples.
        form: theirs.
        depth: bits wanted.
        middle: the sample that stands for nothing, half of all: 0 for luma.
    """
    if depth > form.depth and not form.full_range:
        return plane.astype(np.uint16) << (depth - form.depth)
    power = 2.0 ** (depth - form.depth)
    factor = ((1 << depth) - 1) / ((1 << form.depth) - 1) if form.full_range else power
    return _whole((plane.astype(float) - middle) * factor + middle * power, depth)


def _whole(plane: np.ndarray, depth: int) -> np.ndarray:
    return np.rint(plane).clip(0, (1 << depth) - 1).astype(np.uint8 if depth == 8 else np.uint16)


def _halved(plane: np.ndarray, across: bool) -> np.ndarray:
    """``(n, H, W)`` at half the rows (between two of them) and, if wanted, half the columns (on every second)."""
    plane = np.pad(plane, ((0, 0), (0, plane.shape[1] % 2), (0, 0)), "edge")
    plane = (plane[:, 0::2] + plane[:, 1::2]) / 2
    if not across:
        return plane
    wide = np.pad(plane, ((0, 0), (0, 0), (1, 1 + plane.shape[2] % 2)), "edge")
    return (wide[:, :, 0:-2:2] + 2 * wide[:, :, 1:-1:2] + wide[:, :, 2::2]) / 4


def _from_rgb(planes: Planes, form: PlaneFormat, depth: int) -> Planes:
    top = (1 << form.depth) - 1
    low, span = (0, top) if form.full_range else (16 << form.depth - 8, 219 << form.depth - 8)
    green, blue, red = ((plane.astype(float) - low) / span for plane in planes)
    of_red, of_blue = _OF_RGB.luma_weights
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    u, v = (_halved(plane, True) for plane in ((blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)))
    step = 1 << depth - 8
    return Planes(*(_whole(p * step, depth) for p in (16 + 219 * luma, 128 + 224 * u, 128 + 224 * v)))
