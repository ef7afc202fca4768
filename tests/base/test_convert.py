# SPDX-License-Identifier: MIT
"""Planes of other formats as 4:2:0 for the base layer."""

import numpy as np
import pytest

from nervcodec.base.codec import base_format, to_base
from nervcodec.colour import STEP, to_rgb
from nervcodec.formats.header import PlaneFormat
from nervcodec.media.planes import Planes, chroma_size


def random(form, height=7, width=9, n=2):
    rng = np.random.default_rng(0)
    kind = np.uint8 if form.depth == 8 else np.uint16
    sizes = ((height, width), *([chroma_size(form, height, width)] * 2))
    return Planes(*(rng.integers(0, 1 << form.depth, (n, *size)).astype(kind) for size in sizes))


def smooth(form, height=32, width=48):
    """A smooth picture in limited range, far from the edges of the gamut."""
    down, across = form.chroma_step
    kind, scale = (np.uint8, 1) if form.depth == 8 else (np.uint16, 4)
    y, x = np.mgrid[:height, :width]
    luma = 110 + 40 * np.sin(x / 9 + y / 7)
    y, x = np.mgrid[:height:down, :width:across]
    chroma = [128 + 20 * np.sin(x / 9 + y / 8 + phase) for phase in (0, 1)]
    return Planes(*((p[None] * scale).round().astype(kind) for p in (luma, *chroma)))


def seen(planes, form):
    return to_rgb(planes, form) / STEP


def test_what_needs_nothing_is_left_as_it_is():
    for form in (PlaneFormat(8, matrix=1), PlaneFormat(10, matrix=9, full_range=True, chroma_place="topleft")):
        planes = random(form)
        assert base_format(form, form.depth) == form
        assert to_base(planes, form, form.depth) is planes


def test_ten_bits_are_four_times_eight_in_limited_range():
    form = PlaneFormat(8, matrix=1)
    planes = random(form)
    for mine, deep in zip(planes, to_base(planes, form, 10), strict=True):
        assert deep.dtype == np.uint16
        assert (deep == mine.astype(np.uint16) << 2).all()
    assert base_format(form, 10) == PlaneFormat(10, matrix=1)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("before", "after"), [(8, 10), (10, 8)])
def test_depths_look_alike(full, before, after):
    form = PlaneFormat(before, matrix=1, full_range=full)
    planes = smooth(form)
    other = to_base(planes, form, after)
    assert np.abs(seen(planes, form) - seen(other, base_format(form, after))).max() <= (
        (0.3 if full else 0) if after == 10 else 2
    )
    for mine, back in zip(planes, to_base(other, base_format(form, after), before), strict=True):
        assert np.abs(mine.astype(int) - back).max() <= (0 if after == 10 else 2)


@pytest.mark.parametrize("chroma", ["422", "444"])
@pytest.mark.parametrize("depth", [8, 10])
def test_chroma_goes_where_it_is_said(chroma, depth):
    """On a smooth picture nothing moves: half a pixel of shift would be seen."""
    form = PlaneFormat(depth, chroma, 6)
    planes = smooth(form)
    target = base_format(form, depth)
    assert target == PlaneFormat(depth, "420", 6, False, "left")
    inside = (slice(None), slice(2, -2), slice(2, -2))
    away = np.abs(seen(to_base(planes, form, depth), target) - seen(planes, form))[inside]
    assert away.mean() < 0.6
    moved = np.abs(
        seen(to_base(planes, form, depth), PlaneFormat(depth, "420", 6, False, "topleft")) - seen(planes, form)
    )
    assert moved[inside].mean() > 1.5 * away.mean()


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("of", [8, 10])
def test_rgb_becomes_bt709(depth, of):
    form = PlaneFormat(of, "444", 0, True, primaries=1, transfer=13)
    y, x = np.mgrid[:16, :24]
    rgb = [120 + 60 * np.sin(x / 11 + y / 13 + phase) for phase in (0, 1, 2)]
    scale, kind = (1, np.uint8) if of == 8 else (1023 / 255, np.uint16)
    planes = Planes(*((p[None] * scale).round().astype(kind) for p in (rgb[1], rgb[2], rgb[0])))
    target = base_format(form, depth)
    assert target == PlaneFormat(depth, "420", 1, False, "left", 1, 13)
    away = np.abs(seen(to_base(planes, form, depth), target)[0] - np.stack(rgb, -1))
    assert away[2:-2, 2:-2].max() < (2.5 if 8 in (depth, of) else 1)


@pytest.mark.parametrize("form", [PlaneFormat(8, "422"), PlaneFormat(8, "444", 1), PlaneFormat(8, "444", 0, True)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (1, 4), (5, 2)])
def test_odd_sizes(form, height, width):
    planes = to_base(random(form, height, width), form, 8)
    h, w = -(-height // 2), -(-width // 2)
    assert [p.shape for p in planes] == [(2, height, width), (2, h, w), (2, h, w)]
