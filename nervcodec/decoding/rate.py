# SPDX-License-Identifier: MIT
"""Frames of a variable rate at a constant one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np


def at_constant_rate(
    frames: Iterable[np.ndarray], numbers: Sequence[int], edges: Sequence[float], rate: float
) -> Iterator[np.ndarray]:
    """Repeat or drop frames so that each keeps its time.

    Args:
        frames: in order.
        numbers: which those are, one after the other.
        edges: when each frame of the video begins to show, and when the last one ends, in seconds.
        rate: frames a second.
    """
    shown = 0
    for number, frame in zip(numbers, frames, strict=True):
        end = edges[number + 1] - edges[numbers[0]]
        # At least one, however short they are shown.
        while shown / rate < end - 0.5 / rate or (not shown and number == numbers[-1]):
            yield frame
            shown += 1
