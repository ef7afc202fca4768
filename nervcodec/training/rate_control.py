# SPDX-License-Identifier: MIT
"""Weights of a given size: a price for bits that follows their number, and other steps for the last percent."""

from __future__ import annotations

import math

import numpy as np

from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import round_to_steps
from nervcodec.network.build import to_arrays
from nervcodec.network.field import Field
from nervcodec.training.config import SizeGoal

# A price is exp(what has added up + what holds now), both in proportion to the logarithm of rate over limit.
_ADDS_UP, _HOLDS = 12.0, 2.0  # the first over the whole phase
_FIRST_COARSEST = 2.0
_MEASURE_AT = (0.4, 0.6, 0.7, 0.78, 0.85, 0.91, 0.96)  # of the phase, where the rate is near the limit
_NEAR_LIMIT = 0.8  # of what is aimed at: below it there is no need to measure
_AIM = 0.985  # of the limit: two percent to either side is how near the end comes
_LATE, _AT_MOST = 0.9, 1.02  # from where in the phase, and beyond which part of the limit, steps are widened
_SMALL_PRICE = 1e-3
_HIGHEST = 5.0  # of the logarithm of the price over the price asked for
_SMOOTHING = 0.8  # of the estimate, from one reading to the next
_TRIES = 6
_COARSEST = 64.0
# Weights that a fit has rounded are where they are for the sake of its steps: with others, finer ones too, they lose
# half a decibel at once (benchmarks/NOTES.md). So what is a little too large is pulled towards 0 by so much of a step.
_PULLS = (1 / 2048, 1 / 1024, 1 / 512, 1 / 256, 1 / 128)
_NEAR = 0.98  # of a limit: where other steps are near enough
_SPARE_BYTES = 24  # of a file's header, which is written when all sizes are known


class RateControl:
    """The weight of the rate in the loss, from one reading to the next.

    Args:
        weight: what it starts from; it falls below that only where a size is to be reached.
        limit_bits: of a parameter, on average; None: the weight stays as it is.
        reach: come close to the limit from below, too.

    Attributes:
        weight: the weight now.
        wants_measure: whether :meth:`calibrate` should be called, which takes a second or two.
    """

    def __init__(self, weight: float, limit_bits: float | None, reach: bool = False):
        self.weight = self._start = weight
        self._limit = None if limit_bits is None else _AIM * limit_bits
        self._lowest = -_HIGHEST if reach else 0.0
        self._added_up = 0.0
        self._estimate = math.nan
        self._done = math.nan
        self._coded_share = 1.0  # of the estimate, which knows nothing of contexts
        self._measures = 0
        self.wants_measure = False

    def first_coarseness(self, usual: float) -> float:
        """The first steps over standard deviations: coarser than usual where the limit is below what that costs."""
        if self._limit is None:
            return usual
        # What a Gaussian costs, in bits, is the logarithm of 4.13 standard deviations over the step.
        return min(max(usual, 4.13 / 2**self._limit), _FIRST_COARSEST)

    def read(self, bits: float, done: float) -> None:
        """Take note of the rate.

        Args:
            bits: of a parameter, as the fit estimates them.
            done: fraction of the phase that is over.
        """
        if self._limit is None or not math.isfinite(bits):
            return
        if math.isnan(self._estimate):
            self._estimate, self._done = bits, done
            return
        self._estimate += (1 - _SMOOTHING) * (bits - self._estimate)
        excess = math.log(max(self._estimate * self._coded_share, 1e-3) / self._limit)
        due = self._measures < len(_MEASURE_AT) and done >= _MEASURE_AT[self._measures]
        self.wants_measure = due and excess > math.log(_NEAR_LIMIT)
        self._added_up = max(self._lowest, self._added_up + _ADDS_UP * excess * (done - self._done))
        self._done = done
        rise = min(max(self._lowest, self._added_up + _HOLDS * excess), _HIGHEST)
        # A price of nothing cannot be multiplied: where there has to be one, it grows from a small one.
        self.weight = max(self._start, _SMALL_PRICE) * math.exp(rise) if rise else self._start

    def state(self) -> dict[str, float]:
        """All that later prices depend on."""
        return dict(vars(self))

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what :meth:`state` gave.

        Raises:
            KeyError: it is not the state of a rate control.
        """
        if state.keys() != vars(self).keys():
            raise KeyError("rate")
        vars(self).update(state)

    def calibrate(self, bits: float) -> float:
        """Take note of what the coder really makes of the weights, in bits of a parameter.

        Returns:
            A factor on all steps, 1 but where the end is near and the rate would miss the limit: what is left of the
            fit then makes up for wider steps, as nothing does after its end.
        """
        share = bits / max(self._estimate, 1e-3)
        # Values near a bound between two steps come down now on this side, now on that: two percent of a size.
        self._coded_share = share if not self._measures else (share + self._coded_share) / 2
        # One measure for all that were due: in a fast fit the rate may come near its limit late.
        self._measures += sum(self._done >= due for due in _MEASURE_AT[self._measures :])
        self.wants_measure = False
        if self._limit is None or self._done < _LATE or bits <= self._limit * _AT_MOST / _AIM:
            return 1.0
        self._estimate *= self._limit / bits
        return 2 ** (bits - self._limit)


def coded(field: Field, steps: dict[str, np.ndarray], pull: float = 0.0) -> np.ndarray:
    """The stream of a field's weights, ``(n,)`` uint8: tensors with steps are rounded to them, others are float16.

    Args:
        field: with the weights.
        steps: by tensor, ``(C,)`` by the second axis or ``(1,)``.
        pull: towards 0 before rounding, in steps.

    Raises:
        ContainerError: a weight is not finite.
    """
    weights = to_arrays(field)
    for name, step in steps.items() if pull else ():
        values = weights[name]
        by = pull * (step.reshape(-1, *[1] * (values.ndim - 2)) if step.size > 1 else step)
        weights[name] = np.sign(values) * np.maximum(np.abs(values) - by, 0)
    return bitstream.encode({n: round_to_steps(w, steps[n]) if n in steps else w for n, w in weights.items()})


def coded_to(field: Field, steps: dict[str, np.ndarray], goal: SizeGoal | None) -> np.ndarray:
    """The same brought under a goal's limit: pulled towards 0 where it misses it by little, else with wider steps.

    Where nothing does that, since the tensors without steps alone are larger, it is the smallest there is.
    """
    stream = coded(field, steps)
    limit_bytes = math.inf if goal is None else goal.limit_bytes - _SPARE_BYTES
    if stream.size <= limit_bytes:
        return stream
    if coded(field, steps, _PULLS[-1]).size > limit_bytes:  # the others would be tried in vain
        return _widened_to(field, steps, stream, limit_bytes)
    pulled = (coded(field, steps, pull) for pull in _PULLS)
    return next(stream for stream in pulled if stream.size <= limit_bytes)


def _widened_to(field: Field, steps: dict[str, np.ndarray], stream: np.ndarray, limit_bytes: float) -> np.ndarray:
    """A stream that is too large, with all steps widened alike, by about as little as it takes."""

    def scaled(factor: float) -> np.ndarray:
        return coded(field, {name: step * factor for name, step in steps.items()})

    # Bracket the factor: at `fine` the stream is too large, at `coarse` it fits. Twice the step, a bit a value less.
    fine = coarse = 1.0
    while stream.size > limit_bytes:
        if coarse >= _COARSEST:
            return stream
        fine, coarse = coarse, coarse * max(1.1, stream.size / max(limit_bytes, 1))
        stream = scaled(coarse)
    for _ in range(_TRIES):
        if stream.size >= _NEAR * limit_bytes:
            break
        middle = math.sqrt(fine * coarse)
        trial = scaled(middle)
        if trial.size <= limit_bytes:
            stream, coarse = trial, middle
        else:
            fine = middle
    return stream
