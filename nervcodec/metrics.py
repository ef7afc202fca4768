# SPDX-License-Identifier: MIT
"""Distortion and rate."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from nervcodec.formats.header import IDENTICAL_DB

AMPLIFIED = 8  # factor of a displayed difference

_MS_SSIM_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])  # of the scales, fine to coarse
_WINDOW, _SIGMA = 11, 1.5  # pixels
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_BAND_ROWS = 32  # rows that are processed at once, to stay inside a processor's cache


class Similarity(NamedTuple):
    """SSIM (Wang et al. 2004) and MS-SSIM (Wang et al. 2003), means over R, G and B.

    ``ms_ssim`` is None for an image with a side of 32 pixels or less, which is too small for five scales.
    """

    ssim: float
    ms_ssim: float | None


def psnr_db(decoded: np.ndarray, original: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 RGB images over all pixels and channels, at most 100 dB."""
    mse = np.square(decoded.astype(np.float32) - original.astype(np.float32)).mean(dtype=np.float64)
    return min(IDENTICAL_DB, 10 * math.log10(255**2 / mse)) if mse > 0 else IDENTICAL_DB


def ycbcr_psnr_db(decoded: np.ndarray, original: np.ndarray) -> tuple[float, float, float]:
    """PSNR of luma, Cb and Cr (BT.601, full range, each at every pixel) of two uint8 RGB images, at most 100 dB."""
    difference = decoded.astype(np.float32) - original.astype(np.float32)
    luma = difference @ np.array([0.299, 0.587, 0.114], np.float32)
    parts = luma, (difference[..., 2] - luma) / 1.772, (difference[..., 0] - luma) / 1.402
    y, cb, cr = (
        min(IDENTICAL_DB, -10 * math.log10(max(float(np.square(p).mean(dtype=np.float64)) / 255**2, 1e-12)))
        for p in parts
    )
    return y, cb, cr


def similarity(decoded: np.ndarray, original: np.ndarray) -> Similarity:
    """SSIM and MS-SSIM of two uint8 RGB images ``(h, w, 3)``, which share the finest scale.

    The Gaussian window of 11 pixels shrinks to the largest odd size that fits: one scale for SSIM, five for MS-SSIM.
    """
    a, b = (np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) for image in (decoded, original))
    side = min(a.shape[1:])
    window, ms_window = min(_WINDOW, side if side % 2 else side - 1), ms_ssim_window(side)
    first = _ssim_and_contrast(a, b, window)
    if ms_window is None:
        return Similarity(float(first[0].mean()), None)
    scales = [first if ms_window == window else _ssim_and_contrast(a, b, ms_window)]
    while len(scales) < len(_MS_SSIM_WEIGHTS):
        a, b = _halved(a), _halved(b)
        scales.append(_ssim_and_contrast(a, b, ms_window))
    factors = np.maximum([*(contrast for _, contrast in scales[:-1]), scales[-1][0]], 0)
    return Similarity(float(first[0].mean()), float((factors ** _MS_SSIM_WEIGHTS[:, None]).prod(axis=0).mean()))


def ms_ssim_window(side: int) -> int | None:
    """The largest window, 11 pixels or an odd number below, that fits five scales of an image; None if none fits."""
    scale = 2 ** (len(_MS_SSIM_WEIGHTS) - 1)
    return next((w for w in range(_WINDOW, 1, -2) if side > (w - 1) * scale), None)


def _ssim_and_contrast(a: np.ndarray, b: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean SSIM of each channel, and the mean of its contrast and structure term, ``(3,)`` each.

    Args:
        a, b: ``(3, h, w)`` float32, 0 to 255.
        window: pixels across the Gaussian window, odd.
    """
    offsets = np.arange(window) - window // 2
    kernel = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    kernel = (kernel / kernel.sum()).astype(np.float32)
    height, width = (size - window + 1 for size in a.shape[1:])
    ssim, contrast = np.zeros(len(a)), np.zeros(len(a))
    for top in range(0, height, _BAND_ROWS):
        rows = slice(top, min(top + _BAND_ROWS, height) + window - 1)
        # Moments of sum and difference need four filters; those of a and b would need five.
        values = np.empty((4, *a[:, rows].shape), np.float32)
        np.add(a[:, rows], b[:, rows], out=values[0])
        np.subtract(a[:, rows], b[:, rows], out=values[1])
        np.multiply(values[:2], values[:2], out=values[2:])
        means = _filtered(_filtered(values, kernel, axis=2), kernel, axis=3)
        squares = means[:2] * means[:2]
        variances = means[2:] - squares
        term = (variances[0] - variances[1] + 2 * _C2) / (variances[0] + variances[1] + 2 * _C2)
        contrast += term.sum(axis=(1, 2), dtype=np.float64)
        term *= (squares[0] - squares[1] + 2 * _C1) / (squares[0] + squares[1] + 2 * _C1)
        ssim += term.sum(axis=(1, 2), dtype=np.float64)
    return ssim / (height * width), contrast / (height * width)


def _filtered(values: np.ndarray, kernel: np.ndarray, axis: int) -> np.ndarray:
    """Convolve along an axis with a symmetric kernel, without padding."""
    last = len(kernel) - 1
    size = values.shape[axis] - last

    def shifted(by: int) -> np.ndarray:
        return values[(slice(None),) * axis + (slice(by, by + size),)]

    result = shifted(last // 2) * kernel[last // 2]
    pair = np.empty_like(result)
    for offset in range(last // 2):
        np.add(shifted(offset), shifted(last - offset), out=pair)
        pair *= kernel[offset]
        result += pair
    return result


def _halved(image: np.ndarray) -> np.ndarray:
    """Mean of 2 x 2 pixels of ``(3, h, w)``; odd sides are padded with 0 at both ends, as pytorch-msssim does."""
    image = np.pad(image, [(0, 0), *((size % 2, size % 2) for size in image.shape[1:])])
    image = image[:, : image.shape[1] // 2 * 2, : image.shape[2] // 2 * 2]
    quarters = image[:, ::2, ::2] + image[:, 1::2, ::2] + image[:, ::2, 1::2] + image[:, 1::2, 1::2]
    return quarters * np.float32(0.25)


def amplified_difference(decoded: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Absolute difference of two uint8 RGB images times :data:`AMPLIFIED`, at most 255, uint8."""
    difference = np.abs(decoded.astype(np.int16) - original) * AMPLIFIED
    return difference.clip(0, 255).astype(np.uint8)


def rate_bpp(size_bytes: float, frames: int, height: int, width: int) -> float:
    """Bits per pixel: the whole file over frames x height x width."""
    return 8 * size_bytes / (frames * height * width)
