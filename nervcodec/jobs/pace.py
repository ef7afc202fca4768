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
        files: the kind of each, and its weight in any unit; how kinds compare is not known.
    """

    def __init__(self, files: Sequence[tuple[str, float]]):
        self._files = files
        self._taken_s: dict[str, float] = {}
        self._done: dict[str, float] = {}

    @classmethod
    def of(cls, sources: Sequence[Path], wanted: EncodeOptions) -> Pace:
        """For these sources. A folder of images says nothing of a video file by its size, nor the other way round."""
        if wanted.fit.time_s is not None:
            return cls([("timed", 1.0)] * len(sources))
        return cls([("images" if source.is_dir() else "video", _size(source)) for source in sources])

    def took(self, number: int, seconds: float) -> None:
        """A file was encoded; those that failed are not told of."""
        kind, weight = self._files[number]
        self._taken_s[kind] = self._taken_s.get(kind, 0.0) + seconds
        self._done[kind] = self._done.get(kind, 0.0) + weight

    def later_s(self, number: int) -> float:
        """Seconds of all files after this one, about; NaN before one of each kind that they are is done."""
        later = self._files[number + 1 :]
        if not all(self._done.get(kind) for kind, _ in later):
            return math.nan
        return sum(weight * self._taken_s[kind] / self._done[kind] for kind, weight in later)


def _size(source: Path) -> float:
    """Bytes of a file, or of the files in a folder; 0 for what cannot be looked at, which will fail."""
    try:
        files = list(source.iterdir()) if source.is_dir() else [source]
        return float(sum(file.stat().st_size for file in files))
    except OSError:
        return 0.0
