# SPDX-License-Identifier: MIT
"""Patch embeddings of a container as they are stored: what search makes its index of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class EmbeddingParts(NamedTuple):
    """Embeddings of a segment: coefficients x basis + mean, interpolated in time and then brought to length 1.

    Attributes:
        coefficients: ``(e, rows * columns, r)`` float32 of the entries that were stored.
        basis, mean: ``(r, D)`` and ``(D,)`` float32.
        before, after: ``(n,)`` int64, the entries on both sides of each frame.
        weight: ``(n,)`` float32, of the entry after it.
    """

    coefficients: np.ndarray
    basis: np.ndarray
    mean: np.ndarray
    before: np.ndarray
    after: np.ndarray
    weight: np.ndarray
