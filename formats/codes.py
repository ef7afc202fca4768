# SPDX-License-Identifier: MIT
"""How stored arrays hold weights: a codec id and a few parameters.

The ids below are written to files, so they are constants for ever: a new way of storing weights gets a new id beside
the old ones.

``stream``   uint8, all weights of a network, entropy coded (:mod:`nervcodec.formats.bitstream`)
``affine8``  one tensor as uint8, ``value = offset + scale * code``; read only, from files of version 1
``float16``  one tensor in little-endian IEEE half precision; read only, from files of version 1
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervcodec.errors import ContainerError

STREAM = "stream"
AFFINE8 = "affine8"
FLOAT16 = "float16"


@dataclass(frozen=True)
class TensorCode:
    """How one stored array turns back into numbers.

    Attributes:
        codec: ``stream``, ``affine8`` or ``float16``.
        scale: quantisation step (affine8; 0 for a constant tensor).
        offset: the value of code 0 (affine8).
    """

    codec: str
    scale: float = 0.0
    offset: float = 0.0


def dequantize(stored: np.ndarray, code: TensorCode) -> np.ndarray:
    """Turn an ``affine8`` or ``float16`` array back into float32 values of the same shape.

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
