# SPDX-License-Identifier: MIT
"""Weights as they are stored: a codec id, a few parameters, and a plain integer or float array.

Each tensor of a network becomes one stored array and one :class:`TensorCode`. The ids below are written to
files, so they are constants for ever: a new way of storing a tensor gets a new id beside the old ones.

``affine8``  uint8 codes, ``value = offset + scale * code``, one scale and offset per tensor
``float16``  little-endian IEEE half precision, for tensors too small to be worth quantising
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervcodec.errors import ContainerError

AFFINE8 = "affine8"
FLOAT16 = "float16"

# Below this many elements the two numbers that describe a quantiser cost more than they save.
SMALL_TENSOR = 256


@dataclass(frozen=True)
class TensorCode:
    """How one stored array turns back into numbers.

    Attributes:
        codec: ``affine8`` or ``float16``.
        scale: quantisation step (affine8; 0 for a constant tensor).
        offset: the value of code 0 (affine8).
    """

    codec: str
    scale: float = 0.0
    offset: float = 0.0


def quantize(values: np.ndarray) -> tuple[np.ndarray, TensorCode]:
    """Choose a code for a float tensor and apply it.

    Args:
        values: float array of any shape, also empty or constant.

    Returns:
        The array to store (uint8 or float16, same shape) and its code. Rounding error of ``affine8`` is at most
        half a step, i.e. (max - min) / 510.

    Raises:
        ContainerError: a value is NaN or infinite, or too large for its code.
    """
    values = np.asarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ContainerError("refusing to store a tensor with NaN or infinite values")
    if values.size < SMALL_TENSOR:
        with np.errstate(over="ignore"):
            half = values.astype("<f2")
        if not np.isfinite(half).all():
            raise ContainerError("refusing to store a value beyond the range of float16 (65504)")
        return half, TensorCode(FLOAT16)
    low, high = float(values.min()), float(values.max())
    scale = float(np.float32((high - low) / 255.0))
    if scale == 0.0:
        return np.zeros(values.shape, np.uint8), TensorCode(AFFINE8, 0.0, low)
    codes = np.rint((values - np.float32(low)) / np.float32(scale)).clip(0, 255).astype(np.uint8)
    return codes, TensorCode(AFFINE8, scale, float(np.float32(low)))


def dequantize(stored: np.ndarray, code: TensorCode) -> np.ndarray:
    """Turn a stored array back into float32 values of the same shape.

    Raises:
        ContainerError: the codec is unknown, the array has the wrong type for it, or values are not finite.
    """
    if code.codec == AFFINE8:
        if stored.dtype != np.uint8:
            raise ContainerError(f"an affine8 tensor is stored as uint8, not {stored.dtype}")
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            values = stored.astype(np.float32) * np.float32(code.scale) + np.float32(code.offset)
    elif code.codec == FLOAT16:
        if stored.dtype != np.float16:
            raise ContainerError(f"a float16 tensor is stored as float16, not {stored.dtype}")
        values = stored.astype(np.float32)
    else:
        raise ContainerError(f"unknown tensor codec {code.codec!r}; this file needs a newer nervcodec")
    if not np.isfinite(values).all():
        raise ContainerError("a tensor holds NaN or infinite values")
    return values
