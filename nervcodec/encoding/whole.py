# SPDX-License-Identifier: MIT
"""How far an encode has come in all, and how long the rest of it will take: from its plan, then from its own pace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from nervcodec.events import Observer, WholeEvent


class Whole:
    """Tells an observer of the encode of a whole video.

    What a segment takes is what those before it took, by frames; for the first, what the plan or its own fit says.

    Args:
        observer: told.
        lengths: frames of each segment.
        planned_s: for each frame, and of fitting what segments share; NaN where that is not known.
        clock: seconds.
    """

    def __init__(
        self,
        observer: Observer,
        lengths: Sequence[int],
        planned_s: tuple[float, float] = (math.nan, 0.0),
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._observer, self._lengths, self._planned_s, self._clock = observer, lengths, planned_s, clock
        self._surveyed, self._survey_s = 0, math.nan  # frames, and seconds for each
        self._first: tuple[int, float] | None = None  # frames of the first segment, and when it was over
        self._start = self._begun = clock()
        self._segment: int | None = None
        self._taken_s, self._frames = 0.0, 0  # by the segments that are finished

    @property
    def _frame_s(self) -> float:
        """Seconds that a frame takes."""
        return self._taken_s / self._frames if self._frames else self._planned_s[0]

    def planned(self, frame_s: float | None) -> None:
        """So long a frame takes, as is known now; None where it is not."""
        if frame_s is not None:
            self._planned_s = frame_s, self._planned_s[1]

    def surveyed(self, frames: int) -> None:
        """So many frames were looked at before any segment is begun.

        The first segment's are left out of the pace as soon as there are others: with them an encoder was loaded.
        """
        now = self._clock()
        done, since = self._first or (0, self._start)
        self._first = self._first or (frames, now)
        self._surveyed, self._survey_s = frames, (now - since) / (frames - done)
        self.tell()

    def begin(self, segment: int) -> None:
        """Work on a segment begins, and on the one before it is over."""
        now = self._clock()
        if self._segment is not None:
            self._taken_s, self._frames = self._taken_s + now - self._begun, self._frames + self._lengths[self._segment]
        self._segment, self._begun = segment, now
        self.tell()

    def tell(self, done: float = 0.0, elapsed_s: float = 0.0) -> None:
        """Say how far it is.

        Args:
            done: fraction of the fit that is under way; 0 where none is.
            elapsed_s: of that fit.
        """
        now = self._clock()
        if self._segment is None:  # what all segments share is made
            later = sum(self._lengths)
            left_s = self._planned_s[1] + (self._survey_s * (later - self._surveyed) if self._surveyed < later else 0.0)
        else:
            left_s = max(self._lengths[self._segment] * self._frame_s - (now - self._begun), 0.0)
            later = sum(self._lengths[self._segment + 1 :])
        if done > 0 and not (self._frames and self._segment is not None):
            left_s = elapsed_s * (1 - done) / done
        left_s += later * self._frame_s if later else 0.0
        passed = now - self._start
        fraction = passed / (passed + left_s) if passed + left_s else 0.0
        self._observer.whole(WholeEvent(self._segment, len(self._lengths), fraction, left_s))
