# SPDX-License-Identifier: MIT
"""Distortion and rate."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nervcodec.formats.header import IDENTICAL_DB

AMPLIFIED = 8  # factor of a displayed difference
_LEVELS = 5


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


def _batch(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()


def ssim_of(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """Mean SSIM (Wang et al. 2004) of two batches ``(B, 3, h, w)`` of floats.

    The 11 pixel window shrinks to the largest odd size that fits where a side is shorter. A side of one pixel is
    doubled first, which changes nothing: pytorch-msssim drops dimensions of size one.
    """
    from pytorch_msssim import ssim as compute

    for axis in (2, 3):
        if a.shape[axis] == 1:
            a, b = (x.repeat_interleave(2, dim=axis) for x in (a, b))
    side = min(a.shape[2:])
    window = min(11, side if side % 2 else side - 1)
    return compute(a, b, data_range=data_range, win_size=window)


def ssim(decoded: np.ndarray, original: np.ndarray) -> float:
    """SSIM of two uint8 RGB images, see :func:`ssim_of`."""
    return float(ssim_of(_batch(decoded), _batch(original), data_range=255))


def ms_ssim_window(side: int) -> int | None:
    """The largest window, 11 pixels or an odd number below, that fits five scales of an image; None if none fits."""
    return next((w for w in range(11, 1, -2) if side > (w - 1) * 2 ** (_LEVELS - 1)), None)


def ms_ssim_of(a: Tensor, b: Tensor, data_range: float) -> Tensor | None:
    """Mean MS-SSIM (Wang et al. 2003), five scales, of two batches ``(B, 3, h, w)`` of floats.

    The window shrinks from 11 to 3 pixels for small images; None where even that does not fit (a side of 32 or less).
    """
    from pytorch_msssim import ms_ssim as compute

    window = ms_ssim_window(min(a.shape[2:]))
    return None if window is None else compute(a, b, data_range=data_range, win_size=window)


def ms_ssim(decoded: np.ndarray, original: np.ndarray) -> float | None:
    """MS-SSIM of two uint8 RGB images, see :func:`ms_ssim_of`."""
    value = ms_ssim_of(_batch(decoded), _batch(original), data_range=255)
    return None if value is None else float(value)


def amplified_difference(decoded: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Absolute difference of two uint8 RGB images times :data:`AMPLIFIED`, at most 255, uint8."""
    difference = np.abs(decoded.astype(np.int16) - original) * AMPLIFIED
    return difference.clip(0, 255).astype(np.uint8)


def rate_bpp(size_bytes: float, frames: int, height: int, width: int) -> float:
    """Bits per pixel: the whole file over frames x height x width."""
    return 8 * size_bytes / (frames * height * width)
