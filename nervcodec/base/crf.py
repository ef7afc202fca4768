# SPDX-License-Identifier: MIT
"""Quality of the base layer: the preset for a time limit, and the search for the crf of a size or a PSNR."""

from __future__ import annotations

import bisect
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from nervcodec.formats.header import MAX_CRF

BEST, WORST, STEP = 1.0, float(MAX_CRF), 0.25  # of a crf that a search chooses
USUAL_PRESET = 5  # of SVT-AV1, without a time limit
# Seconds that two cores take for a million pixels, by preset, in 10 bits (benchmarks/NOTES.md).
_SECONDS_PER_MEGAPIXEL = {2: 0.42, 4: 0.15, 5: 0.11, 6: 0.08, 8: 0.04, 10: 0.015}
_CORES = 2
_TRIES, _LIKELY = 7, 5  # the most, and those after which a curve counts as an unusual one
# What streams at a crf take, as the logarithm over that at 35: the mean of three clips. Sizes and decibels are nearly
# straight lines in it.
_CRFS = (1, 3, 6, 11, 16, 21, 27, 35, 47, 57, 61, 63, 70)
_LENGTHS = (3.7, 3.0, 2.3, 1.5, 1.08, 0.76, 0.44, 0.0, -0.58, -1.1, -1.5, -1.85, -2.4)
_STEEPEST = 1.6  # a line beyond what was tried is taken for at most so much steeper or flatter than usual
_Trial = TypeVar("_Trial")


def preset_for(seconds: float | None, megapixels: float) -> int:
    """The slowest preset of SVT-AV1 that encodes ``megapixels`` within ``seconds``, or the fastest preset."""
    if seconds is None:
        return USUAL_PRESET
    cores = (os.cpu_count() or _CORES) / _CORES
    for preset, each in _SECONDS_PER_MEGAPIXEL.items():
        if each * megapixels / cores <= seconds:
            return preset
    return max(_SECONDS_PER_MEGAPIXEL)


@dataclass(frozen=True)
class TargetRange:
    """Target of a search: a range of a figure that falls as the crf rises.

    Attributes:
        least, most: limits of the range.
        per_length: how much the figure rises where a stream gets e times as long, about.
    """

    least: float
    most: float
    per_length: float

    @property
    def middle(self) -> float:
        """Middle of the range."""
        return (self.least + self.most) / 2


class Search(Generic[_Trial]):
    """Finds a crf whose trial has a figure in a range.

    Args:
        attempt: encodes at a crf; returns the result and its figure.
        aim: the range.
        over_is_worse: where no crf lies in the range, a figure below it is the lesser evil; else one above.
    """

    def __init__(self, attempt: Callable[[float], tuple[_Trial, float]], aim: TargetRange, over_is_worse: bool):
        self._attempt, self._aim, self._over_is_worse = attempt, aim, over_is_worse
        self._tried: dict[float, tuple[_Trial, float]] = {}

    def run(self, first: float) -> tuple[float, _Trial]:
        """The crf and its trial, begun at ``first``."""
        crf: float | None = round_crf(first)
        while crf is not None and len(self._tried) < _TRIES:
            self._tried[crf] = self._attempt(crf)
            figures = {at: figure for at, (_, figure) in self._tried.items()}
            if self._aim.least <= figures[crf] <= self._aim.most:
                break
            crf = next_crf(self._aim.middle, figures, self._aim.per_length)
        chosen = self._best()
        return chosen, self._tried[chosen][0]

    def _best(self) -> float:
        figures = {at: figure for at, (_, figure) in self._tried.items()}
        inside = [at for at, figure in figures.items() if self._aim.least <= figure <= self._aim.most]
        fitting = [
            at
            for at, figure in figures.items()
            if (figure <= self._aim.most if self._over_is_worse else figure >= self._aim.least)
        ]
        if inside or fitting:
            candidates = inside or fitting
            # the largest size that fits, or the smallest file that is good enough
            return min(candidates) if self._over_is_worse else max(candidates)
        return max(figures) if self._over_is_worse else min(figures)


def next_crf(target: float, figures: dict[float, float], per_length: float) -> float | None:
    """The crf that should reach a figure, interpolated from the tried ones; None where none is left between them."""
    above = [at for at, figure in figures.items() if figure > target]
    below = [at for at, figure in figures.items() if figure <= target]
    if above and below:
        low, high = max(above), min(below)
        if high - low <= STEP:
            return None
        share = (figures[low] - target) / (figures[low] - figures[high]) if len(figures) < _LIKELY else 0.5
        inner = _crf(_length(low) + share * (_length(high) - _length(low)))
        return min(max(round_crf(inner), low + STEP), high - STEP)
    nearest = max(above) if above else min(below)
    if len(figures) >= _LIKELY and nearest not in (BEST, WORST):
        return WORST if above else BEST
    slope = _slope(nearest, figures, per_length)
    found = round_crf(_crf(_length(nearest) + (target - figures[nearest]) / slope))
    if found == nearest:
        found = round_crf(nearest + (STEP if above else -STEP))
    return None if found == nearest else found  # the best or the worst there is


def _slope(at: float, figures: dict[float, float], per_length: float) -> float:
    """How steep the curve is about a crf, by the next one that is known."""
    others = [other for other in figures if other != at]
    if not others:
        return per_length
    other = min(others, key=lambda crf: abs(crf - at))
    slope = (figures[at] - figures[other]) / (_length(at) - _length(other))
    return min(max(slope, per_length / _STEEPEST), per_length * _STEEPEST)


def _length(crf: float) -> float:
    """The usual logarithm of a stream's length at a crf, over that at 35."""
    return _between(crf, _CRFS, _LENGTHS)


def _crf(length: float) -> float:
    """The inverse of :func:`_length`."""
    return _between(-length, [-known for known in _LENGTHS], _CRFS)


def _between(at: float, places: Sequence[float], values: Sequence[float]) -> float:
    """A line through some points, at a place; its ends go on as they are."""
    right = min(max(bisect.bisect(places, at), 1), len(places) - 1)
    a, b = places[right - 1], places[right]
    share = min(max((at - a) / (b - a), 0.0), 1.0)
    return values[right - 1] + share * (values[right] - values[right - 1])


def round_crf(crf: float) -> float:
    """The nearest crf that SVT-AV1 has, within what a search may choose."""
    return min(max(round(crf / STEP) * STEP, BEST), WORST)


def size_aim(limit_bytes: float, reach: float) -> TargetRange:
    """From a part of a size to the size itself, as logarithms."""
    return TargetRange(math.log(max(limit_bytes * reach, 1)), math.log(max(limit_bytes, 2)), 1.0)


def quality_aim(psnr_db: float, above_db: float) -> TargetRange:
    """From a PSNR to a little above."""
    return TargetRange(psnr_db, psnr_db + above_db, 4.5)
