# SPDX-License-Identifier: MIT
"""From planes of luma and chroma to RGB, in integers only: every machine gives the same bits.

A colour is counted in 1/64 of an 8-bit step. What chroma adds to R, G and B is worked out where the chroma samples are
and interpolated linearly from there, at the places that the format says; at the edges of a frame the last sample is
repeated. All of it is arithmetic of 16 bits on even and odd columns apart, into memory that is used again: that is what
makes it fast. Large frames are done in bands of rows, which bounds that memory.
"""

from __future__ import annotations

import math
import threading
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from nervcodec.formats.header import PlaneFormat

STEP = 64  # units of an 8-bit step
_HIGH = 16383  # chroma adds no more than this, nor less than its negative: colours beyond do not exist
_MIDDLE = 128 * STEP  # is taken off, so that sums of luma and chroma fit into 16 bits
_BAND = 1 << 20  # samples of luma that are worked on at once, on a CPU


class Window(NamedTuple):
    """A part of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def moved(self, down: int, right: int) -> Window:
        """The same elsewhere."""
        return self._replace(top=self.top + down, left=self.left + right)


class Samples(NamedTuple):
    """Rows and columns of a plane, from the first to before the last."""

    top: int
    bottom: int
    left: int
    right: int


def chroma_samples(form: PlaneFormat, size: tuple[int, int], window: Window) -> Samples:
    """The samples of a chroma plane that a window needs: those under it and one more on each side.

    Args:
        form: of the planes.
        size: (height, width) of the chroma plane.
        window: of the frame.
    """
    down, across = form.chroma_step
    more_down, more_across = down - 1, across - 1
    return Samples(
        max(window.top // down - more_down, 0),
        min((window.top + window.height - 1) // down + more_down + 1, size[0]),
        max(window.left // across - more_across, 0),
        min((window.left + window.width - 1) // across + more_across + 1, size[1]),
    )


def to_rgb(y: Tensor, u: Tensor, v: Tensor, form: PlaneFormat, window: Window | None = None) -> Tensor:
    """Planes as RGB, not clipped.

    Args:
        y: ``(n, H, W)`` luma, uint8 or (10 bits) int16 or uint16.
        u, v: ``(n, h, w)`` chroma.
        form: what the samples mean.
        window: of the frame that is wanted; None for all of it. It is equal to that window of the whole frame.

    Returns:
        ``(n, height, width, 3)`` int16, 1/64 of an 8-bit step: 0 is black and 255 * 64 white. Values below and above
        come of samples that are no colour; none is above 32,767.
    """
    return _convert(y, u, v, form, window, torch.int16)


def to_rgb8(y: Tensor, u: Tensor, v: Tensor, form: PlaneFormat, window: Window | None = None) -> Tensor:
    """``to_uint8(to_rgb(...))``, faster.

    Returns:
        ``(n, height, width, 3)`` uint8.
    """
    return _convert(y, u, v, form, window, torch.uint8)


def to_uint8(rgb: Tensor) -> Tensor:
    """Colours in 1/64 of an 8-bit step, int16, rounded and clipped to uint8."""
    return (rgb.clamp(0, 255 * STEP).add_(STEP // 2) >> 6).to(torch.uint8)


def _convert(y: Tensor, u: Tensor, v: Tensor, form: PlaneFormat, window: Window | None, kind: torch.dtype) -> Tensor:
    window = window or Window(0, 0, *y.shape[1:])
    planes = [plane.view(torch.int16) if form.depth == 10 else plane for plane in (y, u, v)]
    # Everything is done for an even number of columns that begins at an even one.
    left, right = window.left & ~1, (window.left + window.width + 1) & ~1
    rows = max(2, _BAND // (right - left) & ~1) if y.device.type == "cpu" else window.height
    top, bottom = window.top, window.top + window.height
    # What is kept from call to call must be usable in and outside of inference mode, and so what is made from it.
    with torch.inference_mode(False), torch.no_grad():
        out = torch.empty(len(y), window.height, 3 * (right - left), dtype=kind, device=y.device)
        for frames in range(len(y)) if y.device.type == "cpu" else (slice(None),):
            some = slice(frames, frames + 1) if isinstance(frames, int) else frames
            first = top
            while first < bottom:
                last = min(bottom, (first & ~1) + rows)
                band = Window(first & ~1, left, ((last + 1) & ~1) - (first & ~1), right - left)
                columns = _colours([plane[some] for plane in planes], form, band)
                cut = columns[:, :, :, first - band.top : last - band.top]
                (_pack8 if kind is torch.uint8 else _pack)(cut, out[some, first - top : last - top])
                first = last
    out = out.view(*out.shape[:2], -1, 3)
    begin = window.left - left
    return out if out.shape[2] == window.width else out[:, :, begin : begin + window.width].contiguous()


def _colours(planes: list[Tensor], form: PlaneFormat, band: Window) -> Tensor:
    """R, G and B of even and of odd columns, less the middle: ``(2, 3, n, rows, columns / 2)`` int16."""
    luma = _apart(_part(planes[0], band.top, band.height, band.left, band.width))  # (2, n, rows, columns / 2)
    out = _room("colours", torch.int16, luma, 2, 3, *luma.shape[1:])
    if form.matrix == 0:
        blue, red = (
            _apart(_part(p, band.top, band.height, band.left, band.width), n)
            for n, p in zip("uv", planes[1:], strict=True)
        )
        for number, plane in enumerate((red, luma, blue)):
            out[:, number] = _luma(plane, form)
        return out
    light = _luma(luma, form)
    down, every = form.chroma_step
    if every == 1:
        u, v = (
            _apart(_part(p, band.top, band.height, band.left, band.width), n)
            for n, p in zip("uv", planes[1:], strict=True)
        )
        return torch.add(_added(u, v, form).transpose(0, 1), light[:, None], out=out)
    # One more sample on each side: (3, n, rows / down + 2, columns / 2 + 2).
    where = (band.top - 2) // 2 if down == 2 else band.top, band.height // down + 2 * (down - 1)
    across = band.left // 2 - 1, band.width // 2 + 2
    u, v = (_room(name, torch.int16, luma, luma.shape[1], where[1], across[1]) for name in "uv")
    for plane, samples in zip(planes[1:], (u, v), strict=True):
        samples.copy_(_part(plane, *where, *across))
    added = _added(u, v, form)
    if down == 2:
        added = _stretched(added, form.chroma_place == "topleft")
    here = added[..., 1:-1]
    if form.chroma_place == "center":
        between = torch.add(added[..., :-1], added[..., 1:]).add_(_int(2)).bitwise_right_shift_(_int(1))
        even, odd = (
            torch.add(here, side).bitwise_right_shift_(_int(1)) for side in (between[..., :-1], between[..., 1:])
        )
    else:
        odd = torch.add(here, added[..., 2:], out=_room("odd", torch.int16, here, *here.shape)).bitwise_right_shift_(
            _int(1)
        )
        even = here
    torch.add(even, light[0], out=out[0])
    torch.add(odd, light[1], out=out[1])
    return out


def _part(plane: Tensor, top: int, height: int, left: int, width: int) -> Tensor:
    """Rows and columns of a plane; those outside of it repeat its edge."""
    rows, columns = plane.shape[1:]
    a, b, c, d = max(top, 0), min(top + height, rows), max(left, 0), min(left + width, columns)
    inner = plane[:, a:b, c:d]
    if (b - a, d - c) == (height, width):
        return inner
    out = _room("part", plane.dtype, plane, len(plane), height, width)
    a, b, c, d = a - top, b - top, c - left, d - left
    out[:, a:b, c:d] = inner
    out[:, a:b, :c] = inner[:, :, :1]
    out[:, a:b, d:] = inner[:, :, -1:]
    out[:, :a] = out[:, a : a + 1]
    out[:, b:] = out[:, b - 1 : b]
    return out


@cache
def _int(value: int) -> Tensor:
    """A number as a tensor: torch would make a new one for each operation, which costs as much as the operation."""
    return torch.tensor(value, dtype=torch.int16)


_rooms = threading.local()


def _room(name: str, kind: torch.dtype, like: Tensor, *shape: int) -> Tensor:
    """Memory that is written anew by each band: on a CPU always the same, since fresh memory costs more than sums."""
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=kind, device=like.device)
    size = math.prod(shape)
    kept = getattr(_rooms, name, None)
    if kept is None or kept.dtype != kind or len(kept) < size or len(kept) > 4 * max(size, _BAND):
        kept = torch.empty(size, dtype=kind)
        setattr(_rooms, name, kept)
    return kept[:size].view(shape)


def _apart(plane: Tensor, name: str = "y") -> Tensor:
    """Even and odd columns of ``(n, rows, columns)``: ``(2, n, rows, columns / 2)`` int16."""
    out = _room(f"{name} apart", torch.int16, plane, 2, *plane.shape[:2], plane.shape[2] // 2)
    if plane.dtype == torch.uint8:
        pairs = _as_pairs(plane, torch.int16)
        torch.bitwise_and(pairs, _int(255), out=out[0])
        torch.bitwise_right_shift(pairs, _int(8), out=out[1]).bitwise_and_(_int(255))
    else:
        pairs = _as_pairs(plane, torch.int32)
        out[0].copy_(pairs)
        out[1].copy_(torch.bitwise_right_shift(pairs, _int(16), out=_room("upper", torch.int32, pairs, *pairs.shape)))
    return out


def _as_pairs(plane: Tensor, kind: torch.dtype) -> Tensor:
    """Two neighbouring samples as one number, the first in its lower half."""
    return plane.view(kind) if _is_even(plane) else plane.contiguous().view(kind)


def _is_even(plane: Tensor) -> bool:
    return plane.stride(2) == 1 and not any(n % 2 for n in (*plane.stride()[:2], plane.storage_offset()))


class _Gain(NamedTuple):
    """A factor of samples in units of 1/64 step: ``whole + part / 256``."""

    whole: int
    part: int

    @staticmethod
    def of(factor: float) -> _Gain:
        whole = round(factor * STEP)
        return _Gain(whole, min(127, round((factor * STEP - whole) * 256)))


def _times(a: Tensor, gain: _Gain, depth: int, name: str = "times") -> Tensor:
    """``(..)`` int16 of -128 to 255 (for 10 bits, -512 to 1023) times a factor; 4 * a of 10 bits is a of 8."""
    if depth == 10:
        quarter = torch.bitwise_right_shift(a, _int(2), out=_room("quarter", torch.int16, a, *a.shape))
        eighth = torch.bitwise_and(a, _int(3), out=_room("eighth", torch.int16, a, *a.shape))
        eighth.mul_(_int(_double(gain))).add_(_int(4)).bitwise_right_shift_(_int(3))
        return _times(quarter, gain, 8, name).add_(eighth)
    out = torch.mul(a, _int(gain.part), out=_room(name, torch.int16, a, *a.shape))
    return out.add_(_int(128)).bitwise_right_shift_(_int(8)).add_(a, alpha=gain.whole)


def _double(gain: _Gain) -> int:
    """Twice the factor: a quarter of it in eighths."""
    return round(2 * (gain.whole + gain.part / 256))


class _Formula(NamedTuple):
    luma: _Gain
    black: int  # in units
    red: _Gain  # of v
    green_u: _Gain
    green_v: _Gain
    blue: _Gain  # of u


@cache
def _formula(form: PlaneFormat) -> _Formula:
    """Factors by which luma less black, and chroma less its middle, are multiplied, as if they were of 8 bits."""
    (red, blue), full_range = form.luma_weights, form.full_range
    white = (255 << form.depth - 8) / ((1 << form.depth) - 1)  # 1,023 is white in the full range of 10 bits, not 1,020
    light, colour = (white, white) if full_range else (255 / 219, 255 / 224)
    of_v, of_u = 2 * (1 - red) * colour, 2 * (1 - blue) * colour
    green = 1 - red - blue
    return _Formula(
        _Gain.of(light),
        0 if full_range else round(16 * light * STEP),
        _Gain.of(of_v),
        _Gain.of(-of_u * blue / green),
        _Gain.of(-of_v * red / green),
        _Gain.of(of_u),
    )


def _luma(a: Tensor, form: PlaneFormat) -> Tensor:
    """What luma gives to each colour, less the middle."""
    formula = _formula(form)
    return _times(a, formula.luma, form.depth, "light").sub_(_int(formula.black + _MIDDLE))


def _added(u: Tensor, v: Tensor, form: PlaneFormat) -> Tensor:
    """What chroma adds to R, G and B: ``(3, ..)`` int16, where u and v are ``(..)`` int16 and changed."""
    formula, depth = _formula(form), form.depth
    u.sub_(_int(1 << depth - 1))
    v.sub_(_int(1 << depth - 1))
    out = _room("added", torch.int16, u, 3, *u.shape)
    out[0] = _times(v, formula.red, depth)
    out[1] = _times(v, formula.green_v, depth)
    out[1] += _times(u, formula.green_u, depth)
    out[2] = _times(u, formula.blue, depth)
    return out.clamp_(-_HIGH, _HIGH)


def _stretched(added: Tensor, with_first: bool) -> Tensor:
    """``(3, n, rows + 2, columns)`` of chroma's rows as ``(3, n, 2 * rows, columns)`` of luma's.

    Args:
        added: one more row on each side.
        with_first: chroma lies on the first of two rows of luma, not between them.
    """
    here, rows = added[:, :, 1:-1], added.shape[2] - 2
    out = _room("stretched", torch.int16, added, *added.shape[:2], rows, 2, added.shape[3])
    if with_first:
        out[:, :, :, 0] = here
        out[:, :, :, 1] = torch.add(here, added[:, :, 2:]).bitwise_right_shift_(_int(1))
    else:
        # Three quarters of the nearer row and one of the other: halfway to what is halfway.
        between = torch.add(added[:, :, :-1], added[:, :, 1:]).add_(_int(2)).bitwise_right_shift_(_int(1))
        torch.add(here, between[:, :, :-1], out=out[:, :, :, 0])
        torch.add(here, between[:, :, 1:], out=out[:, :, :, 1])
        out.bitwise_right_shift_(_int(1))
    return out.view(*added.shape[:2], 2 * rows, added.shape[3])


def _pack(columns: Tensor, out: Tensor) -> None:
    """``(2, 3, n, rows, columns / 2)``, changed, into ``(n, rows, columns * 3)`` int16."""
    columns.clamp_(max=32767 - _MIDDLE).add_(_int(_MIDDLE))
    _interleave(columns.flatten(0, 1), out)


def _pack8(columns: Tensor, out: Tensor) -> None:
    """``(2, 3, n, rows, columns / 2)``, changed, rounded into ``(n, rows, columns * 3)`` uint8.

    Two pixels are three numbers of 16 bits, of two bytes each: RG, BR, GB.
    """
    columns.add_(_int(STEP // 2)).clamp_(-_MIDDLE, _MIDDLE - 1)
    bytes_ = columns.flatten(0, 1)
    low, high = bytes_[0::2], bytes_[1::2]
    words = (
        low.bitwise_right_shift_(_int(6))
        .add_(high.bitwise_left_shift_(_int(2)).bitwise_and_(_int(-256)))
        .add_(_int(128 - (1 << 15)))
    )
    _interleave(words, out.view(torch.int16))


def _interleave(parts: Tensor, out: Tensor) -> None:
    """``(k, n, rows, width)`` into ``(n, rows, width * k)``. One part after the other: three times as fast as all."""
    wide = out.view(*out.shape[:2], -1, len(parts))
    for number, part in enumerate(parts):
        wide[..., number].copy_(part)
