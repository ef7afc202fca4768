# SPDX-License-Identifier: MIT
"""Which quality a base layer is coded at: presets that suit a time, and a search for a size or a PSNR."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

BEST, WORST, STEP = 1.0, 63.0, 0.25  # of a crf that a search chooses
USUAL_PRESET = 5  # of SVT-AV1, where no time is given
# Seconds that two cores take for a million pixels, by preset, in 10 bits (benchmarks/NOTES.md).
_SECONDS_PER_MEGAPIXEL = {2: 0.42, 4: 0.15, 5: 0.11, 6: 0.08, 8: 0.04, 10: 0.015}
_CORES = 2
_TRIES = 7
_FLATTER = 0.6  # a size falls by so much less than thought, from one crf to another, that a guess goes further
_Trial = TypeVar("_Trial")


def preset_for(seconds: float | None, megapixels: float) -> int:
    """The slowest preset of SVT-AV1 that codes so many pixels in a time, or the fastest there is."""
    if seconds is None:
        return USUAL_PRESET
    cores = (os.cpu_count() or _CORES) / _CORES
    for preset, each in _SECONDS_PER_MEGAPIXEL.items():
        if each * megapixels / cores <= seconds:
            return preset
    return max(_SECONDS_PER_MEGAPIXEL)


@dataclass(frozen=True)
class Aim:
    """What a search wants of a figure that falls as the crf rises.

    Attributes:
        least, most: it lies between these.
        per_step: how much the figure falls with a crf of one more, about.
    """

    least: float
    most: float
    per_step: float

    @property
    def middle(self) -> float:
        """What is aimed at."""
        return (self.least + self.most) / 2


class Search(Generic[_Trial]):
    """Finds a crf whose trial has a figure in a range.

    Args:
        attempt: codes at a crf; returns what came of it and its figure.
        aim: the range.
        over_is_worse: where no crf lies in the range, a figure below it is the lesser evil; else one above.
    """

    def __init__(self, attempt: Callable[[float], tuple[_Trial, float]], aim: Aim, over_is_worse: bool):
        self._attempt, self._aim, self._over_is_worse = attempt, aim, over_is_worse
        self._tried: dict[float, tuple[_Trial, float]] = {}

    def run(self, first: float) -> tuple[float, _Trial]:
        """The crf and its trial, begun at ``first``."""
        crf = quarter(first)
        while crf not in self._tried:
            self._tried[crf] = self._attempt(crf)
            if self._aim.least <= self._tried[crf][1] <= self._aim.most or len(self._tried) >= _TRIES:
                break
            crf = self._next(crf)
        chosen = self._best()
        return chosen, self._tried[chosen][0]

    def _next(self, crf: float) -> float:
        """Where to look next; one that was tried already where there is nothing left between."""
        figures = {at: figure for at, (_, figure) in self._tried.items()}
        above = [at for at, figure in figures.items() if figure > self._aim.middle]
        below = [at for at, figure in figures.items() if figure <= self._aim.middle]
        if not (above and below):
            wanted = crf + (figures[crf] - self._aim.middle) / (self._aim.per_step * _FLATTER)
            return quarter(wanted)
        low, high = max(above), min(below)
        share = (figures[low] - self._aim.middle) / max(figures[low] - figures[high], 1e-9)
        inner = low + share * (high - low)
        if high - low <= STEP:
            return low
        return min(max(quarter(inner), low + STEP), high - STEP)

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


def quarter(crf: float) -> float:
    """The nearest crf that SVT-AV1 has, within what a search may choose."""
    return min(max(round(crf / STEP) * STEP, BEST), WORST)


def size_aim(limit_bytes: float, reach: float) -> Aim:
    """From a part of a size to the size itself, as logarithms."""
    return Aim(math.log(max(limit_bytes * reach, 1)), math.log(max(limit_bytes, 2)), 0.07)


def quality_aim(psnr_db: float, above_db: float) -> Aim:
    """From a PSNR to a little above."""
    return Aim(psnr_db, psnr_db + above_db, 0.2)
