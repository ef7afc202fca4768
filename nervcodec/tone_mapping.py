# SPDX-License-Identifier: MIT
"""From HDR to what a screen without it shows: PQ (SMPTE ST 2084) and HLG (ITU-R BT.2100) to BT.709. No torch.

Light of 203 cd/m², which BT.2408 has white paper at, comes close to white. What is brighter, up to 1,000 cd/m², is
compressed by the curve of ITU-R BT.2390 (EETF), applied to the largest of R, G and B, so that hues stay.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from nervcodec.colour import STEP
from nervcodec.formats.header import HLG, PlaneFormat

_WHITE = 255 * STEP
_PEAK, _PAPER = 1000.0, 203.0  # cd/m²: the brightest that is told apart, and what becomes white
_SYSTEM_GAMMA, _SCREEN_GAMMA = 1.2, 2.4  # of HLG at 1,000 cd/m² (BT.2100), of a screen (BT.1886)
_BT2020_LUMA = np.array([0.2627, 0.678, 0.0593], np.float32)
_BT709, _P3 = 1, 12  # ColourPrimaries of H.273; all others are taken for BT.2020
_TO_BT709 = {  # linear light, rows for R, G and B
    9: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    _P3: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
_AT_ONCE = 1 << 16  # pixels
_M1, _M2, _C1, _C2, _C3 = 1305 / 8192, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128  # of ST 2084


def to_sdr(rgb: np.ndarray, form: PlaneFormat) -> np.ndarray:
    """HDR as BT.709.

    Args:
        rgb: ``(n, h, w, 3)`` int16 of :func:`nervcodec.colour.to_rgb`.
        form: of the planes that it was made from, in HDR.

    Returns:
        The same in BT.709: ``(n, h, w, 3)`` int16, 0 to 255 * 64.
    """
    codes = rgb.reshape(-1, 3)
    out = np.empty_like(codes)
    matrix = None if form.primaries == _BT709 else _TO_BT709[_P3 if form.primaries == _P3 else 9]
    for first in range(0, len(codes), _AT_ONCE):
        light = _light_of_codes(form.transfer)[codes[first : first + _AT_ONCE].clip(0, _WHITE)]
        if form.transfer == HLG:
            light *= _PEAK * ((light @ _BT2020_LUMA) ** (_SYSTEM_GAMMA - 1))[:, None]
        light *= np.interp(light.max(axis=1), *_gains()).astype(np.float32)[:, None]
        if matrix is not None:
            light = light @ np.array(matrix, np.float32).T
        out[first : first + _AT_ONCE] = np.rint(light.clip(0, 1) ** np.float32(1 / _SCREEN_GAMMA) * _WHITE)
    return out.reshape(rgb.shape)


def to_sdr8(rgb: np.ndarray, form: PlaneFormat) -> np.ndarray:
    """:func:`to_sdr`, rounded to 8 bits: ``(n, h, w, 3)`` uint8."""
    return ((to_sdr(rgb, form) + STEP // 2) // STEP).astype(np.uint8)


@cache
def _light_of_codes(transfer: int) -> np.ndarray:
    """What each of 0 to 255 * 64 stands for, float32: cd/m² for PQ, light of the scene from 0 to 1 for HLG."""
    signal = np.arange(_WHITE + 1) / _WHITE
    if transfer == HLG:
        above = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
        return np.where(signal <= 0.5, signal**2 / 3, above).astype(np.float32)
    return _from_pq(signal).astype(np.float32)


def _from_pq(signal: np.ndarray) -> np.ndarray:
    """cd/m² of PQ from 0 to 1."""
    root = signal ** (1 / _M2)
    return 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)


def _to_pq(light: float) -> float:
    root = (light / 10_000) ** _M1
    return float(((_C1 + _C2 * root) / (1 + _C3 * root)) ** _M2)


@cache
def _gains() -> tuple[np.ndarray, np.ndarray]:
    """Light in cd/m², and what it is multiplied by to be 1 at most (BT.2390, section 5.4)."""
    signal = np.linspace(0, 1, 1025)
    peak, highest = _to_pq(_PEAK), _to_pq(_PAPER) / _to_pq(_PEAK)
    knee = 1.5 * highest - 0.5
    relative = (signal / peak).clip(0, 1)
    t = ((relative - knee) / (1 - knee)).clip(0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * highest
    light = _from_pq(signal)
    mapped = _from_pq(np.where(relative < knee, relative, spline) * peak)
    return light, np.divide(mapped, light * _PAPER, out=np.full(len(light), 1 / _PAPER), where=light > 0)
