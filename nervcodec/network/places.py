# SPDX-License-Identifier: MIT
"""Which entries of a grid lie on both sides of a frame, where each entry has a frame of its own. Numpy alone."""

from __future__ import annotations

import numpy as np


def at(entries: tuple[int, ...], frames: int, cuts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries before and after each frame, int64, and the weight of the one after it, float32, ``(frames,)`` each.

    Args:
        entries: frame of each, ascending, at least one.
        frames: of the segment.
        cuts: first frames of the shots after the first, ascending; nothing is interpolated across one.
    """
    number, place = np.arange(frames), np.array(entries, np.int64)
    shot_of = np.searchsorted(np.array(cuts, np.int64), number, side="right")
    lower = np.maximum(np.searchsorted(place, number, side="right") - 1, 0)
    upper = np.minimum(np.searchsorted(place, number), len(entries) - 1)
    nearest = np.where(number - place[lower] <= place[upper] - number, lower, upper)
    before, after = shot_of[place[lower]] == shot_of, shot_of[place[upper]] == shot_of
    lower, upper = (
        np.where(before, lower, np.where(after, upper, nearest)),
        np.where(after, upper, np.where(before, lower, nearest)),
    )
    gap = np.maximum(place[upper] - place[lower], 1)
    fraction = ((number - place[lower]).astype(np.float32) / gap.astype(np.float32)).clip(0, 1)
    return lower, upper, np.where(lower == upper, np.float32(0), fraction)
