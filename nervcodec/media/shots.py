# SPDX-License-Identifier: MIT
"""How a video changes: cuts (a frame has nothing to do with the one before it), pace between them, and what lasts."""

from __future__ import annotations

import numpy as np

from nervcodec.formats.header import MAX_PACE

STRIDE = 8  # pixels are looked at in steps of so many
_LEAST = 10.0  # mean absolute difference of neighbouring frames at a cut, of 255
_STANDS_OUT = 3.0  # times the median difference of the frames around it
_USUAL_PACE = 20  # that a median difference stands for
_PACE_POWER = 0.6  # between one pace for all (0) and one in proportion to differences (1)
_REPEATED = 0.1  # times the median difference: the same frame again, coded anew
AROUND = 12  # frames on each side
_LATER = 8  # frames over which a picture lasts or does not


def seen_small(frames: np.ndarray) -> np.ndarray:
    """What is looked at of frames ``(N, H, W, ...)``: every eighth pixel across and down."""
    return frames[:, ::STRIDE, ::STRIDE]


def find_cuts(small: np.ndarray) -> tuple[int, ...]:
    """First frames of the shots after the first.

    A cut is a difference between neighbouring frames that is large, and large beside the differences around it:
    fast motion makes a run of large differences, a cut a single one.

    Args:
        small: ``(N, h, w, C)`` of 8 bits, what :func:`seen_small` gives of all frames, in colour or not.

    Returns:
        Frame numbers from 1 to N - 1, ascending.
    """
    small = small.astype(np.int16)
    return cuts_in(np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3)))


def cuts_in(change: np.ndarray) -> tuple[int, ...]:
    """As :func:`find_cuts`, of ``(N - 1,)`` mean absolute differences of neighbouring frames, 0 to 255."""
    cuts = []
    for index, value in enumerate(change):
        around = np.r_[change[max(0, index - AROUND) : index], change[index + 1 : index + 1 + AROUND]]
        usual = float(np.median(around)) if around.size else 0.0
        if value > _LEAST and value > _STANDS_OUT * usual:
            cuts.append(index + 1)
    return tuple(cuts)


def find_pace(frames: np.ndarray) -> tuple[int, ...]:
    """How much happens from each frame to the next, for grids that have fewer entries than there are frames.

    Args:
        frames: ``(N, H, W, 3)`` uint8.

    Returns:
        ``N - 1`` whole numbers from 0 to 99, 0 where a frame repeats the one before it; none where most do.
    """
    if len(frames) < 2:
        return ()
    small = seen_small(frames).astype(np.float32)
    change = np.sqrt(np.square(np.diff(small, axis=0)).mean(axis=(1, 2, 3)))
    usual = float(np.median(change))
    if usual == 0:
        return ()
    pace = np.clip(np.rint(_USUAL_PACE * (change / usual) ** _PACE_POWER), 1, MAX_PACE).astype(int)
    return tuple(np.where(change < _REPEATED * usual, 0, pace).tolist())


def persistence(frames: np.ndarray, cuts: tuple[int, ...]) -> float:
    """How much of a picture is still in its place eight frames later.

    Args:
        frames: ``(N, H, W, 3)`` uint8.
        cuts: first frames of the shots after the first.

    Returns:
        1 less the mean squared difference of frames of a shot that lie so far apart, over twice the variance within a
        frame: 1 for a still picture, 0 where one says nothing about the other. 1 where no shot is so long.
    """
    small = seen_small(frames).astype(np.float32)
    later = np.arange(len(small) - _LATER)
    later = later[np.searchsorted(cuts, later, "right") == np.searchsorted(cuts, later + _LATER, "right")]
    variance = float(small.var(axis=(1, 2)).mean())
    if not later.size or variance == 0:
        return 1.0
    difference = float(np.square(small[later + _LATER] - small[later]).mean())
    return 1.0 - difference / (2 * variance)
