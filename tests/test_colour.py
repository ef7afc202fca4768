# SPDX-License-Identifier: MIT
"""Conversion of planes to RGB: known colours, chroma siting, windows, and two other implementations."""

import itertools
import subprocess
from concurrent.futures import ThreadPoolExecutor

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nervcodec import colour
from nervcodec.colour import HIGH, MIDDLE, STEP, Window, to_rgb, to_rgb8
from nervcodec.formats.header import PlaneFormat

LUMA = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114)}


def samples(rgb, form):
    """RGB, 0 to 255, as Y, U and V of a format by the formulas of the standards; floats."""
    red, blue = LUMA[form.matrix]
    r, g, b = (rgb[..., i] / 255 for i in range(3))
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    if form.full_range:
        top = (1 << form.depth) - 1
        return y * top, u * top + (1 << form.depth - 1), v * top + (1 << form.depth - 1)
    scale = 1 << form.depth - 8
    return (16 + 219 * y) * scale, (128 + 224 * u) * scale, (128 + 224 * v) * scale


def colours(y, u, v, form):
    """The inverse of :func:`samples`, in 8-bit steps; arrays of one shape."""
    scale = 1 << form.depth - 8
    y, u, v = (np.asarray(p, float) / scale for p in (y, u, v))
    red, blue = LUMA[form.matrix]
    light, colour = (255 * scale / ((1 << form.depth) - 1),) * 2 if form.full_range else (255 / 219, 255 / 224)
    y, u, v = (y - (0 if form.full_range else 16)) * light, (u - 128) * colour, (v - 128) * colour
    add = [2 * (1 - red) * v, None, 2 * (1 - blue) * u]
    add[1] = -(red * add[0] + blue * add[2]) / (1 - red - blue)
    return np.stack([y + np.clip(part, -16383 / 64, 16383 / 64) for part in add], -1)


def arrays(form, *planes):
    kind, most = (np.uint8, 255) if form.depth == 8 else (np.uint16, 1023)
    return [np.rint(np.clip(p, 0, most)).astype(kind) for p in planes]


def to_uint8(rgb):
    """Colours in 1/64 of an 8-bit step, rounded and clipped."""
    return (rgb.astype(int) + STEP // 2 >> 6).clip(0, 255).astype(np.uint8)


def pairwise(*parameters):
    """Combinations in which every pair of values of any two parameters occurs, chosen greedily."""

    def pairs(row):
        return set(itertools.combinations(enumerate(row), 2))

    rows = list(itertools.product(*parameters))
    missing, chosen = set().union(*map(pairs, rows)), []
    while missing:
        chosen.append(max(rows, key=lambda row: len(pairs(row) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


DEPTHS, MATRICES, FULL_RANGE = (8, 10), (1, 6, 9), (False, True)
CHROMA = [("420", "left"), ("420", "center"), ("420", "topleft"), ("422", "left"), ("422", "center"), ("444", "left")]
SIZES = [(1, 1), (2, 3), (5, 7), (19, 34)]


def plane_format(depth, chroma, matrix, full_range):
    return PlaneFormat(depth, chroma[0], matrix, full_range, chroma[1])


FORMS = [plane_format(*row) for row in pairwise(DEPTHS, CHROMA, MATRICES, FULL_RANGE)]
RGB_FORMS = [PlaneFormat(depth, "444", 0, True) for depth in DEPTHS]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_known_colours(form):
    known = np.random.default_rng(0).integers(0, 256, (60, 3)).astype(float)
    known = np.concatenate([known, np.array(list(itertools.product((0, 255), repeat=3)), float)])
    down, across = form.chroma_step
    y, u, v = (np.broadcast_to(p[:, None, None], (len(known), 6, 8)) for p in samples(known, form))
    planes = arrays(form, y, u[:, : 6 // down, : 8 // across], v[:, : 6 // down, : 8 // across])
    rgb = to_rgb(planes, form)
    assert rgb.shape == (len(known), 6, 8, 3)
    assert (rgb == rgb[:, :1, :1]).all()
    exact = colours(*(plane[:, 0, 0] for plane in planes), form)
    assert np.abs(rgb[:, 0, 0] / STEP - exact).max() <= 3 / STEP
    steps = np.abs(to_uint8(rgb)[:, 0, 0] - known).max()
    assert steps <= (2 if form.depth == 8 else 1)


@pytest.mark.parametrize(("depth", "matrix", "full"), pairwise(DEPTHS, MATRICES, FULL_RANGE))
def test_the_most_extreme_samples_do_not_overflow(depth, matrix, full):
    form = PlaneFormat(depth, "444", matrix, full)
    top = (1 << depth) - 1
    values = np.unique(np.linspace(0, top, 18).round())
    y, u, v = (p.reshape(1, 1, -1) for p in np.meshgrid(values, values, values))
    planes = arrays(form, y, u, v)
    exact = colours(y, u, v, form)
    rgb = to_rgb(planes, form) / STEP
    assert np.abs(rgb - np.minimum(exact, 32767 / STEP)).max() <= 3 / STEP
    assert np.abs(to_rgb8(planes, form) - exact.clip(0, 255)).max() <= 0.5 + 3 / STEP


def test_planes_of_rgb():
    for depth in (8, 10):
        picture = np.random.default_rng(2).integers(0, 1 << depth, (2, 5, 7, 3))
        form = PlaneFormat(depth, "444", 0, True)
        rgb = to_rgb(arrays(form, picture[..., 1], picture[..., 2], picture[..., 0]), form)
        assert np.abs(rgb - picture * (STEP * 255 / ((1 << depth) - 1))).max() <= (0 if depth == 8 else 1)


@pytest.mark.parametrize("chroma", ["420", "422"])
@pytest.mark.parametrize("place", ["left", "center", "topleft"])
def test_chroma_siting(chroma, place):
    """A ramp of chroma, sampled at its places, is the ramp again at every pixel within the outermost samples."""
    form, flat = PlaneFormat(8, chroma, 1, True, place), PlaneFormat(8, "444", 1, True)
    height, width = 16, 24

    def ramp(y, x):
        return 40 + 4 * y[:, None] + 4 * x[None]

    down, across = form.chroma_step
    below = 0.5 if place in ("left", "center") and down == 2 else 0.0
    beside = 0.5 if place == "center" else 0.0
    coarse = ramp(np.arange(height // down) * down + below, np.arange(width // across) * across + beside)[None]
    fine = ramp(np.arange(height), np.arange(width))[None]
    luma = np.full((1, height, width), 90)
    mine = to_rgb(arrays(form, luma, coarse, coarse[:, ::-1]), form)
    inside = (slice(None), slice(2, -2), slice(2, -2))
    # The other chroma plane is the ramp upside down, whose places are those of a ramp that begins elsewhere.
    other = ramp((height // down - 1) * down + below - np.arange(height) + below, np.arange(width))[None]
    exact = to_rgb(arrays(flat, luma, fine, other), flat)
    assert np.abs(mine - exact)[inside].max() <= 3
    assert np.abs(mine - exact).max() > 3  # at the edges the last sample is repeated


def random_planes(form, n, height, width, seed=0):
    rng = np.random.default_rng(seed)
    down, across = form.chroma_step
    sizes = [(height, width)] + [(-(-height // down), -(-width // across))] * 2
    kind = np.uint8 if form.depth == 8 else np.uint16
    return [rng.integers(0, 1 << form.depth, (n, *size)).astype(kind) for size in sizes]


ANY = st.sampled_from(
    [plane_format(*row) for row in itertools.product(DEPTHS, CHROMA, MATRICES, FULL_RANGE)] + RGB_FORMS
)


@given(ANY, st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_window_equals_that_part_of_the_frame(form, height, width, data):
    planes = random_planes(form, 2, height, width, data.draw(st.integers(0, 99)))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    before = [plane.copy() for plane in planes]
    whole, part = to_rgb(planes, form), to_rgb(planes, form, window)
    assert whole.shape == (2, height, width, 3)
    assert np.array_equal(part, whole[:, top : top + window.height, left : left + window.width])
    assert np.array_equal(to_rgb8(planes, form, window), to_uint8(part))
    assert all(np.array_equal(a, b) for a, b in zip(planes, before, strict=True))


def test_bands_and_batches_do_not_change_the_result(monkeypatch):
    for form in (FORMS[0], PlaneFormat(10, "420", 9), PlaneFormat(8, "444", 0, True)):
        planes = random_planes(form, 3, 37, 20)
        whole = to_rgb(planes, form)
        monkeypatch.setattr(colour, "_BAND", 100)
        assert np.array_equal(to_rgb(planes, form), whole)
        assert np.array_equal(np.concatenate([to_rgb([p[i : i + 1] for p in planes], form) for i in range(3)]), whole)
        monkeypatch.undo()


@pytest.mark.parametrize(("chroma", "matrix"), pairwise(CHROMA, MATRICES))
def test_ten_bit_samples_that_are_four_times_those_of_eight_bits_give_the_same(chroma, matrix):
    form, deep = (plane_format(depth, chroma, matrix, False) for depth in DEPTHS)
    planes = random_planes(form, 1, 11, 13)
    assert np.array_equal(to_rgb([p.astype(np.int16) << 2 for p in planes], deep), to_rgb(planes, form))


@pytest.mark.parametrize(
    ("chroma", "depth", "matrix", "full_range"), pairwise(("420", "422", "444"), DEPTHS, MATRICES, FULL_RANGE)
)
def test_zimg_gives_the_same(chroma, depth, matrix, full_range):
    """Smooth pictures with bilinear chroma differ by one step at most, and by a fifth on average."""
    pixels, range_ = "p" if depth == 8 else "p10le", "pc" if full_range else "tv"
    name = {1: "709", 6: "170m", 9: "2020_ncl"}[matrix]
    form = PlaneFormat(depth, chroma, matrix, full_range, "left")
    height, width = 32, 48
    down, across = form.chroma_step
    y, x = np.mgrid[:height, :width]
    low, high = (30, 220) if range_ == "tv" else (10, 245)
    luma = low + (high - low) * (0.5 + 0.5 * np.sin(x / 5 + y / 9))
    y, x = np.mgrid[: height // down, : width // across]
    chromas = [128 + 40 * np.sin(x / 4 + y / 7 + phase) for phase in (0, 2)]
    planes = arrays(form, *(p[None] * (1 << depth - 8) for p in (luma, *chromas)))
    data = b"".join(p.tobytes() for p in planes)
    chain = f"zscale=min={name}:rin={range_}:cin=left:m=gbr:r=pc:filter=bilinear:dither=none,format=gbrp"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", f"yuv{chroma}{pixels}"]
    command += ["-s", f"{width}x{height}", "-i", "-", "-vf", chain, "-f", "rawvideo", "-pix_fmt", "gbrp", "-"]
    theirs = subprocess.run(command, input=data, check=True, capture_output=True).stdout
    g, b, r = np.frombuffer(theirs, np.uint8).reshape(3, height, width).astype(int)
    away = np.abs(to_rgb8(planes, form)[0] - np.stack([r, g, b], -1))
    assert away.max() <= 1
    assert away.mean() < 0.2


def plainly(planes, form, window):
    """:func:`to_rgb` without its optimizations; chroma wraps around as int16 does."""
    y, u, v = (plane.astype(np.int16) for plane in planes)
    by, middle = colour.formula(form), 1 << form.depth - 1
    less = by.black + MIDDLE
    if form.matrix == 0:
        parts = np.stack([times(plane, by.luma, form.depth) - less for plane in (v, y, u)])
    else:
        u, v = u - middle, v - middle
        green = times(v, by.green_v, form.depth) + times(u, by.green_u, form.depth)
        added = np.stack([times(v, by.red, form.depth), green, times(u, by.blue, form.depth)]).clip(-HIGH, HIGH)
        down, across = form.chroma_step
        if down == 2:
            added = doubled(added, 2, form.chroma_place == "topleft")
        if across == 2:
            added = doubled(added, 3, form.chroma_place != "center")
        parts = added[:, :, : y.shape[1], : y.shape[2]] + (times(y, by.luma, form.depth) - less)
    top, left, height, width = window
    parts = parts[:, :, top : top + height, left : left + width]
    return (parts.clip(max=32767 - MIDDLE) + MIDDLE).transpose(1, 2, 3, 0)


def times(a, gain, depth):
    """Samples of 8 bits times a factor; those of 10 bits are four times as large."""
    if depth == 10:
        return times(a >> 2, gain, 8) + ((a & 3) * gain.double + 4 >> 3)
    return (a * gain.part + 128 >> 8) + a * gain.whole


def doubled(added, axis, with_first):
    """Twice as many along an axis, whose ends are repeated; ``with_first``: samples lie on the first of two places."""
    last = added.shape[axis] - 1
    before, after = (added.take((np.arange(last + 1) + step).clip(0, last), axis) for step in (-1, 1))
    if with_first:
        pair = [added, added + after >> 1]
    else:
        pair = [added + (added + other + 2 >> 1) >> 1 for other in (before, after)]
    shape = list(added.shape)
    shape[axis] *= 2
    return np.stack(pair, axis + 1).reshape(shape)


@pytest.mark.parametrize(
    ("size", "form"),
    [(size, plane_format(*row)) for size, *row in pairwise(SIZES, DEPTHS, CHROMA, MATRICES, FULL_RANGE)]
    + [(size, form) for size in SIZES for form in RGB_FORMS],
    ids=str,
)
def test_a_plain_implementation_gives_the_same(size, form):
    planes = random_planes(form, 2, *size)
    height, width = size
    for window in (Window(0, 0, *size), Window(height // 2, width // 3, height - height // 2, max(width // 2, 1))):
        expected = plainly(planes, form, window)
        assert np.array_equal(to_rgb(planes, form, window), expected)
        assert np.array_equal(to_rgb8(planes, form, window), expected.clip(0, 255 * STEP) + STEP // 2 >> 6)


def test_threads_do_not_share_buffers():
    forms = [PlaneFormat(10), PlaneFormat(8, "422", 1, False, "center"), PlaneFormat(8, "444", 0, True)] * 3
    planes = [random_planes(form, 1, 120, 130 + 2 * n, n) for n, form in enumerate(forms)]
    expected = [to_rgb8(*pair) for pair in zip(planes, forms, strict=True)]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            images = threads.map(to_rgb8, planes, forms)
            assert all(np.array_equal(a, b) for a, b in zip(images, expected, strict=True))
