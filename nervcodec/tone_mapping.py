# SPDX-License-Identifier: MIT
"""Tone mapping of HDR to SDR: PQ (SMPTE ST 2084) and HLG (ITU-R BT.2100) to BT.709. No torch.

Reference white of 203 cd/m² (ITU-R BT.2408) comes close to white. Brighter light, up to the peak of the source, is
compressed by the curve of ITU-R BT.2390 (EETF), applied to the largest of R, G and B, so that hues stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.colour import STEP, Window, to_rgb, to_rgb8
from nervcodec.formats.header import HLG, PlaneFormat

if TYPE_CHECKING:
    from nervcodec.media.planes import Light

DEFAULT_PEAK = 1000.0  # cd/m² of a source that states no peak

_WHITE = 255 * STEP
# Light is counted in units of 10,000 cd/m², the peak of PQ.
_UNIT, _REFERENCE_WHITE, _HLG_PEAK = 10_000, 0.0203, 0.1
_SYSTEM_GAMMA, _SCREEN_GAMMA = 1.2, 2.4  # of HLG at 1,000 cd/m² (BT.2100), of a screen (BT.1886)
_BT2020_LUMA = np.array([0.2627, 0.678, 0.0593], np.float32)
_BT709, _P3 = 1, 12  # ColourPrimaries of H.273; all others are taken for BT.2020
_TO_BT709 = {  # linear light, rows for R, G and B
    9: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    _P3: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
_CHUNK_PIXELS, _TABLE_STEPS = 1 << 15, 1 << 14  # pixels; of a table over roots of light
_M1, _M2, _C1, _C2, _C3 = 1305 / 8192, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128  # of ST 2084


def peak_of(light: Light | None) -> float:
    """The brightest light of a source in cd/m²: its MaxCLL, else the peak of its mastering display, else 1,000.

    Args:
        light: levels that the source states; None for none.
    """
    if light is None:
        return DEFAULT_PEAK
    if light.content is not None:
        return float(light.content[0])
    return DEFAULT_PEAK if light.display is None else light.display[-1]


def to_screen8(
    planes: Sequence[np.ndarray], form: PlaneFormat, window: Window | None = None, peak: float = DEFAULT_PEAK
) -> np.ndarray:
    """Planes as SDR: :func:`nervcodec.colour.to_rgb8`, tone-mapped if they are HDR.

    Args:
        planes, form, window: as :func:`nervcodec.colour.to_rgb8` takes them.
        peak: result of :func:`peak_of`.
    """
    if not form.is_hdr:
        return to_rgb8(planes, form, window)
    return to_sdr8(to_rgb(planes, form, window), form, peak)


def to_sdr(rgb: np.ndarray, form: PlaneFormat, peak: float = DEFAULT_PEAK) -> np.ndarray:
    """HDR as BT.709.

    Args:
        rgb: ``(n, h, w, 3)`` int16 of :func:`nervcodec.colour.to_rgb`.
        form: of the planes that it was made from, in HDR.
        peak: brightest light of PQ in cd/m², which becomes white; HLG always has 1,000.

    Returns:
        The same in BT.709: ``(n, h, w, 3)`` int16, 0 to 255 * 64.
    """
    codes = rgb.reshape(-1, 3)
    out = np.empty_like(codes)
    matrix = None if form.primaries == _BT709 else _TO_BT709[_P3 if form.primaries == _P3 else 9]
    gains = _gains(_HLG_PEAK if form.transfer == HLG else max(peak / _UNIT, 1.01 * _REFERENCE_WHITE))
    for first in range(0, len(codes), _CHUNK_PIXELS):
        chunk = np.ascontiguousarray(codes[first : first + _CHUNK_PIXELS].T)
        light = _light_of_codes(form.transfer)[chunk.clip(0, _WHITE)]
        if form.transfer == HLG:
            light *= _HLG_PEAK * (_BT2020_LUMA @ light) ** (_SYSTEM_GAMMA - 1)
        light *= gains[_table_index(np.sqrt(light.max(axis=0)))]
        if matrix is not None:
            light = np.array(matrix, np.float32) @ light
        out[first : first + _CHUNK_PIXELS] = _codes_of_light()[_table_index(light.clip(0, 1))].T
    return out.reshape(rgb.shape)


def to_sdr8(rgb: np.ndarray, form: PlaneFormat, peak: float = DEFAULT_PEAK) -> np.ndarray:
    """:func:`to_sdr`, rounded to 8 bits: ``(n, h, w, 3)`` uint8."""
    return ((to_sdr(rgb, form, peak) + STEP // 2) // STEP).astype(np.uint8)


def _table_index(light: np.ndarray) -> np.ndarray:
    """Index of light from 0 to 1 in a table."""
    return (np.sqrt(light) * np.float32(_TABLE_STEPS)).astype(np.int32)


@cache
def _codes_of_light() -> np.ndarray:
    """Codes, 0 to 255 * 64, by the table index of light, where 1 is white."""
    root = np.arange(_TABLE_STEPS + 1) / _TABLE_STEPS
    return np.rint(root ** (2 / _SCREEN_GAMMA) * _WHITE).astype(np.int16)


@cache
def _light_of_codes(transfer: int) -> np.ndarray:
    """Light by code, 0 to 255 * 64, float32; for HLG scene light, 1 at most."""
    signal = np.arange(_WHITE + 1) / _WHITE
    if transfer == HLG:
        above = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
        return np.where(signal <= 0.5, signal**2 / 3, above).astype(np.float32)
    return _from_pq(signal).astype(np.float32)


def _from_pq(signal: np.ndarray) -> np.ndarray:
    root = signal ** (1 / _M2)
    return (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)


def _to_pq(light: np.ndarray) -> np.ndarray:
    power = light**_M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


@lru_cache(8)
def _gains(peak: float) -> np.ndarray:
    """Gains that map ``peak`` to 1 (BT.2390, section 5.4), by the table index of the root of light; float32."""
    light = (np.arange(_TABLE_STEPS + 1) / _TABLE_STEPS).clip(1e-3) ** 4
    top, white = _to_pq(np.array([peak, _REFERENCE_WHITE]))
    highest = white / top
    knee = 1.5 * highest - 0.5
    signal = np.minimum(_to_pq(light) / top, 1)
    t = ((signal - knee) / (1 - knee)).clip(0)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * highest
    mapped = _from_pq(np.where(signal < knee, signal, spline) * top)
    return (mapped / (light * _REFERENCE_WHITE)).astype(np.float32)
