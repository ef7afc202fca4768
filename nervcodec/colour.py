# SPDX-License-Identifier: MIT
"""From planes of luma and chroma to RGB, in integers only: every machine gives the same bits. No torch.

A colour is counted in 1/64 of an 8-bit step. What chroma adds to R, G and B is worked out where the chroma samples are
and interpolated linearly from there, at the chroma location of the format; at the edges of a frame the last sample is
repeated. All of it is arithmetic of 16 bits on whole arrays: even and odd columns are kept apart, and rows too where
chroma has half as many, with a column more on each side, so that neighbours are the same array one place further on.
Bands of rows that a processor's caches hold are done one after the other, into memory that is used again.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from nervcodec.formats.header import PlaneFormat

STEP = 64  # units of an 8-bit step
HIGH = 16383  # largest contribution of chroma, of either sign: larger ones are no colours
MIDDLE = 128 * STEP  # subtracted so that sums of luma and chroma fit into 16 bits
_BAND = 1 << 17  # samples of luma that are worked on at once


class Window(NamedTuple):
    """A part of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


def to_rgb(planes: Sequence[np.ndarray], form: PlaneFormat, window: Window | None = None) -> np.ndarray:
    """Planes as RGB, not clipped.

    Args:
        planes: ``(n, H, W)`` luma and twice ``(n, h, w)`` chroma, uint8 or (10 bits) uint16 or int16.
        form: what the samples mean.
        window: part of the frame; None for all of it. Equal to that window of the whole frame.

    Returns:
        ``(n, height, width, 3)`` int16, 1/64 of an 8-bit step: 0 is black and 255 * 64 white. Values below and above
        come of samples that are no colour; none is above 32,767.
    """
    return _convert(planes, form, window, np.dtype(np.int16))


def to_rgb8(planes: Sequence[np.ndarray], form: PlaneFormat, window: Window | None = None) -> np.ndarray:
    """:func:`to_rgb`, rounded and clipped to 8 bits.

    Returns:
        ``(n, height, width, 3)`` uint8.
    """
    return _convert(planes, form, window, np.dtype(np.uint8))


def _convert(planes: Sequence[np.ndarray], form: PlaneFormat, window: Window | None, kind: np.dtype) -> np.ndarray:
    frames, *size = planes[0].shape
    window = window or Window(0, 0, *size)
    if form.depth == 10:
        planes = [plane.view(np.int16) for plane in planes]
    # Everything is done for an even number of rows and columns that begin at even ones.
    (top, height), (left, width) = _even_range(window.top, window.height), _even_range(window.left, window.width)
    out = np.empty((frames, height, 3 * width), kind)
    pack, more = (_pack8, STEP // 2) if kind == np.uint8 else (_pack, 0)
    rows = max(2, _BAND // width & ~1)
    for number in range(frames):
        frame = [plane[number] for plane in planes]
        for first in range(0, height, rows):
            rows_out = out[number, first : first + rows]
            pack(_colours(frame, form, Window(top + first, left, len(rows_out), width), more - MIDDLE), rows_out)
    out = out.reshape(frames, height, width, 3)[:, window.top - top :, window.left - left :]
    return np.ascontiguousarray(out[:, : window.height, : window.width])


def _even_range(first: int, count: int) -> tuple[int, int]:
    """The smallest range around another with an even first and count."""
    return first & ~1, (first + count + 1 & ~1) - (first & ~1)


def _colours(planes: Sequence[np.ndarray], form: PlaneFormat, band: Window, more: int) -> np.ndarray:
    """R, G and B plus ``more``, with a column on each side that means nothing.

    Returns:
        ``(r, 2, 3, rows / r, columns / 2 + 2)`` int16: even and odd rows apart or (r = 1) not, even and odd columns.
    """
    half = band.width // 2 + 2
    down, across = form.chroma_step
    out = _buffer("colours", down, 2, 3, band.height // down, half)
    if form.matrix == 0:
        for place, plane in zip((1, 2, 0), planes, strict=True):  # G, B and R
            out[:, :, place] = _luma(plane, form, band, more)
        return out
    light = _luma(planes[0], form, band, more)
    if across == 1:
        added = _chroma_terms(planes, form, band)
        for side in (0, 1):
            np.add(added[..., side::2], light[0, side, :, 1:-1], out=out[0, side, ..., 1:-1])
        return out
    rows = (band.top // 2 - 1, band.height // 2 + 2) if down == 2 else (band.top, band.height)
    added = _chroma_terms(planes, form, Window(rows[0], band.left // 2 - 1, rows[1], half))
    added = _upsample_rows(added, form.chroma_place == "topleft") if down == 2 else added[None]
    for side, one in enumerate(_upsample_columns(added, form.chroma_place != "center")):
        np.add(one, light[:, side, None], out=out[:, side])
    return out


def _fill(out: np.ndarray, plane: np.ndarray, part: Window, less: int) -> None:
    """Copy a part of a plane, minus a number; samples outside the plane repeat its edge.

    Args:
        out: ``(rows, columns)`` int16 of the part.
        plane: samples.
        part: of the plane, and beyond.
        less: subtracted.
    """
    rows, columns = plane.shape
    top, left = max(part.top, 0), max(part.left, 0)
    bottom, right = min(part.top + part.height, rows), min(part.left + part.width, columns)
    a, b, c, d = top - part.top, bottom - part.top, left - part.left, right - part.left
    np.subtract(plane[top:bottom, left:right], _scalar(less), out=out[a:b, c:d], dtype=np.int16)
    if d - c < part.width:
        out[a:b, :c], out[a:b, d:] = out[a:b, c : c + 1], out[a:b, d - 1 : d]
    if b - a < part.height:
        out[:a], out[b:] = out[a], out[b - 1]


_buffers = threading.local()


def _buffer(name: str, *shape: int) -> np.ndarray:
    """An int16 buffer that each band overwrites: reused, since new memory costs more than the sums."""
    size = math.prod(shape)
    buffer = getattr(_buffers, name, None)
    if buffer is None or len(buffer) < size or len(buffer) > 4 * max(size, 8 * _BAND):
        buffer = np.empty(size, np.int16)
        setattr(_buffers, name, buffer)
    return buffer[:size].reshape(shape)


@cache
def _scalar(value: int) -> np.ndarray:
    """A number as an array: numpy would make one for each operation, which costs as much as a short operation."""
    return np.array(value, np.int16)


class Gain(NamedTuple):
    """A factor of samples in units of 1/64 step: ``whole + part / 256``; ``double / 8`` is a quarter of it."""

    whole: int
    part: int
    double: int

    @staticmethod
    def of(factor: float) -> Gain:
        """The nearest."""
        whole = round(factor * STEP)
        part = min(127, round((factor * STEP - whole) * 256))
        return Gain(whole, part, round(2 * (whole + part / 256)))


class Formula(NamedTuple):
    """Factors of samples minus black, and of chroma minus its middle, as for 8 bits."""

    luma: Gain
    black: int  # in units
    red: Gain  # of v
    green_u: Gain
    green_v: Gain
    blue: Gain  # of u


@cache
def formula(form: PlaneFormat) -> Formula:
    """Of a format."""
    (red, blue), full_range = form.luma_weights, form.full_range
    white = (255 << form.depth - 8) / ((1 << form.depth) - 1)  # 1,023 is white in the full range of 10 bits, not 1,020
    light, colour = (white, white) if full_range else (255 / 219, 255 / 224)
    of_v, of_u = 2 * (1 - red) * colour, 2 * (1 - blue) * colour
    green = 1 - red - blue
    return Formula(
        Gain.of(light),
        0 if full_range else round(16 * light * STEP),
        Gain.of(of_v),
        Gain.of(-of_u * blue / green),
        Gain.of(-of_v * red / green),
        Gain.of(of_u),
    )


class _Gains(NamedTuple):
    """Factors as arrays, see :class:`Gain`."""

    whole: np.ndarray
    part: np.ndarray
    double: np.ndarray


@cache
def _gains(form: PlaneFormat) -> tuple[_Gains, _Gains]:
    """Of luma; and ``(2, 2, 1)``: of V for red and green, of U for blue and green."""
    by = formula(form)
    chroma = np.array([[by.red, by.green_v], [by.blue, by.green_u]], np.int16)
    return _Gains(*map(_scalar, by.luma)), _Gains(*(chroma[..., i : i + 1] for i in range(3)))


def _multiply(samples: np.ndarray, gains: _Gains, depth: int, out: np.ndarray) -> None:
    """Samples, -128 to 255 or (10 bits) -512 to 1,023, times factors.

    Args:
        samples: int16; they are changed.
        gains: that they are broadcast with.
        depth: of the samples.
        out: for the products, int16.
    """
    other, rest = _buffer("other", *out.shape), None
    if depth == 10:  # a quarter of them is multiplied as if it were of 8 bits, and what is left apart
        rest = np.bitwise_and(samples, _scalar(3), out=_buffer("rest", *samples.shape))
        np.right_shift(samples, _scalar(2), out=samples)
    np.multiply(samples, gains.part, out=out)
    np.add(out, _scalar(128), out=out)
    np.right_shift(out, _scalar(8), out=out)
    np.add(out, np.multiply(samples, gains.whole, out=other), out=out)
    if rest is not None:
        np.multiply(rest, gains.double, out=other)
        np.add(other, _scalar(4), out=other)
        np.add(out, np.right_shift(other, _scalar(3), out=other), out=out)


def _luma(plane: np.ndarray, form: PlaneFormat, band: Window, more: int) -> np.ndarray:
    """Luma's part of each colour, plus ``more``: ``(r, 2, rows / r, columns / 2 + 2)``, see :func:`_colours`."""
    samples, light = _buffer("y", band.height, band.width), _buffer("light", band.height, band.width)
    _fill(samples, plane, band, 0)
    _multiply(samples, _gains(form)[0], form.depth, light)
    np.add(light, _scalar(more - formula(form).black), out=light)
    down = form.chroma_step[0]
    out = _buffer("light apart", down, 2, band.height // down, band.width // 2 + 2)
    # Two columns are a number of 32 bits, whose lower half a shorter number keeps: faster than every second of 16.
    pairs = light.view(np.int32)
    odd = np.right_shift(pairs, 16, out=_buffer("other", band.height, band.width).view(np.int32))
    for parity in range(down):
        out[parity, 0, :, 1:-1] = pairs[parity::down]
        out[parity, 1, :, 1:-1] = odd[parity::down]
    return out


def _chroma_terms(planes: Sequence[np.ndarray], form: PlaneFormat, part: Window) -> np.ndarray:
    """Contribution of chroma to R, G and B: ``(3, rows, columns)`` for a part of its planes."""
    size = part.height, part.width
    samples, out = _buffer("chroma", 2, *size), _buffer("added", 2, 2, *size)
    for plane, own in zip((planes[2], planes[1]), samples, strict=True):
        _fill(own, plane, part, 1 << form.depth - 1)
    _multiply(samples.reshape(2, 1, -1), _gains(form)[1], form.depth, out.reshape(2, 2, -1))
    np.add(out[0, 1], out[1, 1], out=out[0, 1])
    added = out.reshape(4, *size)[:3]  # what is left is of R, G and B
    return np.clip(added, _scalar(-HIGH), _scalar(HIGH), out=added)


def _average(a: np.ndarray, b: np.ndarray, out: np.ndarray, nearest: bool = False) -> np.ndarray:
    """Mean of two arrays, rounded down or to the nearest."""
    np.add(a, b, out=out)
    if nearest:
        np.add(out, _scalar(2), out=out)
    return np.right_shift(out, _scalar(1), out=out)


def _upsample_rows(added: np.ndarray, with_first: bool) -> np.ndarray:
    """``(3, rows + 2, columns)`` of chroma's rows as ``(2, 3, rows, columns)`` of luma's, even and odd.

    Args:
        added: one more row on each side.
        with_first: chroma lies on the first of two rows of luma, not between them.
    """
    here, (colours, rows, columns) = added[:, 1:-1], added.shape
    out = _buffer("of rows", 2, colours, rows - 2, columns)
    if with_first:
        out[0] = here
        _average(here, added[:, 2:], out[1])
        return out
    # Three quarters of the nearer row and one of the other: halfway to what is halfway.
    between = _average(added[:, :-1], added[:, 1:], _buffer("between", colours, rows - 1, columns), True)
    _average(here, between[:, :-1], out[0])
    _average(here, between[:, 1:], out[1])
    return out


def _upsample_columns(added: np.ndarray, with_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """``(.., columns + 2)`` of chroma's columns as luma's even and odd ones, of the same shape.

    Args:
        added: one more column on each side, whose values are undefined.
        with_first: chroma lies on the first of two columns of luma, not between them.
    """
    even, odd = added, _buffer("odd", *added.shape)
    flat = added.reshape(-1)
    if with_first:
        _average(flat[:-1], flat[1:], odd.reshape(-1)[:-1])
        return even, odd
    even = _buffer("even", *added.shape)
    between = _average(flat[:-1], flat[1:], _buffer("between", len(flat) - 1), True)
    _average(flat[1:], between, even.reshape(-1)[1:])
    _average(flat[:-1], between, odd.reshape(-1)[:-1])
    return even, odd


def _pack(colours: np.ndarray, out: np.ndarray) -> None:
    """The result of :func:`_colours` minus the middle, which is overwritten, into ``(rows, columns * 3)`` int16."""
    np.clip(colours, _scalar(-32768), _scalar(32767 - MIDDLE), out=colours)
    np.add(colours, _scalar(MIDDLE), out=colours)
    _interleave(colours.reshape(len(colours), 6, *colours.shape[3:]), out)


def _pack8(colours: np.ndarray, out: np.ndarray) -> None:
    """The result of :func:`_colours` minus the middle, which is overwritten, clipped to ``(rows, columns * 3)`` uint8.

    Two pixels are three numbers of 16 bits, of two bytes each: RG, BR, GB.
    """
    np.clip(colours, _scalar(-MIDDLE), _scalar(MIDDLE - 1), out=colours)
    parts = colours.reshape(len(colours), 6, *colours.shape[3:])
    low, high = parts[:, 0::2], parts[:, 1::2]
    np.right_shift(low, _scalar(6), out=low)
    np.left_shift(high, _scalar(2), out=high)
    np.bitwise_and(high, _scalar(-256), out=high)
    np.add(low, high, out=low)
    np.add(low, _scalar(128 - (1 << 15)), out=low)
    _interleave(low, out.view(np.int16))


def _interleave(parts: np.ndarray, out: np.ndarray) -> None:
    """``(r, k, rows / r, columns + 2)`` into ``(rows, columns * k)``, column by column, which is much faster."""
    down, count = parts.shape[:2]
    wide = out.reshape(len(out), -1, count)
    for parity, number in np.ndindex(down, count):
        wide[parity::down, :, number] = parts[parity, number, :, 1:-1]
