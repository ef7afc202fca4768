# SPDX-License-Identifier: MIT
"""Quality of the base layer: the preset for a time limit, and the search for the crf of a size, a PSNR or a VMAF."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

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
PILOT_PRESET = 10  # of encodes that only estimate a crf
_VMAF_CEILING = 0.01  # distance from 100 that counts as none


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
        at_35: the figure at crf 35, about.
        pilot_loss: how much the figure falls at the pilot's preset, about.
        pilot_reach: how far from the middle of the range a pilot encode may end.
    """

    least: float
    most: float
    per_length: float
    at_35: float = 0.0
    pilot_loss: float = 0.0
    pilot_reach: float = 0.0

    @property
    def middle(self) -> float:
        """Middle of the range."""
        return (self.least + self.most) / 2

    @property
    def first_crf(self) -> float:
        """The crf that should reach the middle, from what is known of other footage."""
        return next_crf(self.middle, {35.0: self.at_35}, self.per_length) or 35.0

    def of_pilot(self) -> TargetRange:
        """The range for pilot encodes, whose figures are lower."""
        middle = self.middle - self.pilot_loss
        return replace(self, least=middle - self.pilot_reach, most=middle + self.pilot_reach)


class Search:
    """Finds a crf whose stream has a figure in a range.

    Args:
        attempt: encodes at a crf and returns the figure; not called for the same crf twice.
        aim: the range.
        over_is_worse: where no crf lies in the range, a figure below it is the lesser evil; else one above.

    Attributes:
        figures: by crf, of all attempts.
    """

    def __init__(self, attempt: Callable[[float], float], aim: TargetRange, over_is_worse: bool):
        self._attempt, self._aim, self._over_is_worse = attempt, aim, over_is_worse
        self.figures: dict[float, float] = {}

    def run(self, first: float) -> float:
        """The best crf of the attempts, which begin at ``first``."""
        crf: float | None = round_crf(first)
        while crf is not None and len(self.figures) < _TRIES:
            self.figures[crf] = self._attempt(crf)
            if self._aim.least <= self.figures[crf] <= self._aim.most:
                break
            crf = next_crf(self._aim.middle, self.figures, self._aim.per_length)
        return self._best()

    def predict(self, first: float) -> tuple[float, float]:
        """The crf that should reach the middle of the range, and how steep the figures are there.

        Args:
            first: crf of the first attempt.
        """
        best = self.run(first)
        crf = next_crf(self._aim.middle, self.figures, self._aim.per_length) or best
        return crf, _slope(best, self.figures, self._aim.per_length)

    def _best(self) -> float:
        figures = self.figures
        small = {at for at, figure in figures.items() if figure <= self._aim.most}
        good = {at for at, figure in figures.items() if figure >= self._aim.least}
        if candidates := small & good or (small if self._over_is_worse else good):
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
    crf = round_crf(_crf(_length(nearest) + (target - figures[nearest]) / slope))
    if crf == nearest:
        crf = round_crf(nearest + (STEP if above else -STEP))
    return None if crf == nearest else crf  # nearest is the best or the worst crf


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
    return float(np.interp(crf, _CRFS, _LENGTHS))


def _crf(length: float) -> float:
    """The inverse of :func:`_length`."""
    return float(np.interp(length, _LENGTHS[::-1], _CRFS[::-1]))


def round_crf(crf: float) -> float:
    """The nearest crf that SVT-AV1 has, within what a search may choose."""
    return min(max(round(crf / STEP) * STEP, BEST), WORST)


def size_aim(limit_bytes: float, reach: float) -> TargetRange:
    """From a part of a size to the size itself, as logarithms."""
    return TargetRange(math.log(max(limit_bytes * reach, 1)), math.log(max(limit_bytes, 2)), 1.0)


def psnr_aim(psnr_db: float, above_db: float) -> TargetRange:
    """From a PSNR to a little above."""
    return TargetRange(psnr_db, psnr_db + above_db, 4.5, at_35=37.0, pilot_loss=0.9, pilot_reach=1.0)


def vmaf_aim(vmaf: float, below: float, above: float) -> TargetRange:
    """From a little below a VMAF to a little above, in units of :func:`vmaf_figure`."""
    limits = vmaf_figure(vmaf - below), vmaf_figure(vmaf + above)
    return TargetRange(*limits, 1.2, at_35=vmaf_figure(96), pilot_loss=math.log(1.42), pilot_reach=0.15)


def vmaf_figure(vmaf: float) -> float:
    """A VMAF as a figure that is nearly a straight line in the logarithm of a stream's length."""
    return -math.log(max(100 - vmaf, _VMAF_CEILING))
