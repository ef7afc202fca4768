# SPDX-License-Identifier: MIT
"""Which frames are asked for together: those that follow each other in one segment."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence


def runs(numbers: Iterable[int], starts: Sequence[int], longest: int) -> Iterator[tuple[int, list[int]]]:
    """Group frame numbers, in order, by segment.

    Args:
        numbers: of frames, from 0, in any order.
        starts: first frame of each segment, ascending.
        longest: frames in one group.

    Yields:
        Segment, and frames counted from its first.
    """
    segment, run = -1, list[int]()
    for number in numbers:
        at = bisect.bisect_right(starts, number) - 1
        if run and (at != segment or len(run) == longest):
            yield segment, run
            run = []
        segment = at
        run.append(number - starts[at])
    if run:
        yield segment, run
