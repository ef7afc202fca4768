# SPDX-License-Identifier: MIT
"""How long the files that are still to come will take, judged by those that are done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from nervcodec.options import EncodeOptions


class Pace:
    """What later files take: as much as those before took, a file where each has the same time, else a byte of source.

    Args:
        weights: of each file, in any unit; NaN where it is not known how it compares with the others.
    """

    def __init__(self, weights: Sequence[float]):
        self._weights = weights
        self._taken_s = self._done = 0.0

    @classmethod
    def of(cls, sources: Sequence[Path], wanted: EncodeOptions) -> Pace:
        """For these sources. A folder of images says nothing of a video file by its size, nor the other way round."""
        if wanted.fit.time_s is not None:
            return cls([1.0] * len(sources))
        if len({source.is_dir() for source in sources}) > 1:
            return cls([math.nan] * len(sources))
        return cls([_size(source) for source in sources])

    def took(self, number: int, seconds: float) -> None:
        """A file was encoded; those that failed are not told of."""
        self._taken_s, self._done = self._taken_s + seconds, self._done + self._weights[number]

    def later_s(self, number: int) -> float:
        """Seconds of all files after this one, about; NaN before one is done."""
        later = self._weights[number + 1 :]
        if not later:
            return 0.0
        return self._taken_s * sum(later) / self._done if self._done else math.nan


def _size(source: Path) -> float:
    """Bytes of a file, or of the files in a folder; 0 for what cannot be looked at, which will fail."""
    try:
        files = list(source.iterdir()) if source.is_dir() else [source]
        return float(sum(file.stat().st_size for file in files))
    except OSError:
        return 0.0
