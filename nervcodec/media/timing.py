# SPDX-License-Identifier: MIT
"""From time stamps to frame times: how many frames a second, whether they come evenly, and when the last one ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from nervcodec.media.options import DEFAULT_RATE

_FINEST = 1001  # largest denominator of a rate or of a gap in seconds
_JITTER_S = 0.1  # by which times may step back, as in soft telecine, that are right on the whole
_HELD = 1.5  # gaps that a last frame is shown for at the least to be a held one


@dataclass
class ClockPart:
    """A stretch of a transport stream within which its clock does not jump.

    Attributes:
        position: of its first packet of video in the file, in bytes.
        begins_s, ends_s: of its video, in seconds of the file's clock from the container's start.
        moved_s: what is added to times of the file's clock, so that each part follows the one before it.
    """

    position: int
    begins_s: float
    ends_s: float
    moved_s: float


@dataclass(frozen=True)
class Timing:
    """When frames show.

    Attributes:
        times_s: ``(n,)`` float64, the first at 0.
        rate: frames a second: nominal for even spacing, one over the median gap otherwise.
        is_variable: they are not evenly spaced, or the last is held.
        end_s: when the last frame ends.
        is_made_up: the stated times step back, so that even ones are taken.
    """

    times_s: np.ndarray
    rate: Fraction
    is_variable: bool
    end_s: float
    is_made_up: bool = False

    def with_last(self, last_s: float, limit_s: float | None = None) -> Timing:
        """The same with a last frame that is stated to be shown for ``last_s`` seconds, where that is a long time.

        Args:
            last_s: seconds; 0 where nothing is stated.
            limit_s: when the range ends that is read, whatever is stated.
        """
        if last_s * self.rate < _HELD:
            return self
        end_s = float(self.times_s[-1]) + last_s
        if limit_s is not None:
            end_s = max(min(end_s, limit_s), self.end_s)
        return replace(self, end_s=end_s, is_variable=self.is_variable or end_s > self.end_s)


def read(stamps: np.ndarray, time_base: Fraction, nominal: Fraction | None) -> Timing:
    """Make sense of time stamps.

    Args:
        stamps: ``(count,)`` int64 ticks, at least one.
        time_base: seconds a tick.
        nominal: frames a second as stated; None where nothing is.
    """
    count = len(stamps)
    if (np.diff(stamps) * float(time_base) < -_JITTER_S).any():
        return replace(_evenly(count, nominal or DEFAULT_RATE), is_made_up=True)
    stamps = np.maximum.accumulate(stamps)
    times = (stamps - stamps[0]) * float(time_base)
    for rate in (nominal, _mean_rate(times)):
        if rate is not None and _is_even(times, rate, float(time_base)):
            return _evenly(count, rate)
    gaps = np.diff(times)
    gaps = gaps[gaps > 0]
    rate = _rate_of_gap(float(np.median(gaps))) if len(gaps) else nominal or DEFAULT_RATE
    return Timing(times, rate, True, float(times[-1] + 1 / rate))


def _evenly(count: int, rate: Fraction) -> Timing:
    times = np.arange(count, dtype=np.float64) / float(rate)
    return Timing(times, rate, False, float(times[-1] + 1 / rate))


def _is_even(times: np.ndarray, rate: Fraction, tick_s: float) -> bool:
    # A time stamp is rounded to the time base, so two ticks of it are no evidence of a varying rate.
    tolerance = max(2 * tick_s, 0.02 / float(rate))
    return bool(np.abs(times - np.arange(len(times)) / float(rate)).max() <= tolerance)


def _mean_rate(times: np.ndarray) -> Fraction | None:
    return _rate_of_gap(float(times[-1]) / (len(times) - 1)) if len(times) > 1 and times[-1] > 0 else None


def _rate_of_gap(gap_s: float) -> Fraction:
    """One over a gap: a simple fraction, never 0."""
    if gap_s >= 1:
        return 1 / Fraction(gap_s).limit_denominator(_FINEST)
    return Fraction(1 / gap_s).limit_denominator(_FINEST)
