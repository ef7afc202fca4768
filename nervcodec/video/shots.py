# SPDX-License-Identifier: MIT
"""Finding cuts: frames that have nothing to do with the frame before them."""

from __future__ import annotations

import numpy as np

_STRIDE = 8  # pixels are looked at in steps of so many
_LEAST = 10.0  # mean absolute difference of neighbouring frames at a cut, of 255
_STANDS_OUT = 3.0  # times the median difference of the frames around it
_AROUND = 12  # frames on each side


def find_cuts(frames: np.ndarray) -> tuple[int, ...]:
    """First frames of the shots after the first.

    A cut is a difference between neighbouring frames that is large, and large beside the differences around it:
    fast motion makes a run of large differences, a cut a single one.

    Args:
        frames: ``(N, H, W, 3)`` uint8.

    Returns:
        Frame numbers from 1 to N - 1, ascending.
    """
    small = frames[:, ::_STRIDE, ::_STRIDE].astype(np.int16)
    change = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3))
    cuts = []
    for index, value in enumerate(change):
        around = np.r_[change[max(0, index - _AROUND) : index], change[index + 1 : index + 1 + _AROUND]]
        usual = float(np.median(around)) if around.size else 0.0
        if value > _LEAST and value > _STANDS_OUT * usual:
            cuts.append(index + 1)
    return tuple(cuts)
