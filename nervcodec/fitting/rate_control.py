# SPDX-License-Identifier: MIT
"""Weights of a given size: a price for bits that follows their number, and other steps for the last percent."""

from __future__ import annotations

import math

import numpy as np

from nervcodec.fitting.config import SizeGoal
from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import round_to_steps
from nervcodec.network.build import to_arrays
from nervcodec.network.field import Field

# A price is exp(what has added up + what holds now), both in proportion to the logarithm of rate over limit.
_ADDS_UP, _HOLDS = 12.0, 2.0  # the first over the whole phase
_FIRST_COARSEST = 2.0
_MEASURE_AT = (0.4, 0.7, 0.9, 0.97)  # of the phase, where the rate is near the limit
_NEAR_LIMIT = 0.8  # of what is aimed at: below it there is no need to measure
_AIM = 0.975  # of the limit. Weights that miss the limit are all rounded anew, which costs half a decibel
_LATE, _AT_MOST = 0.9, 0.99  # from where in the phase, and beyond which part of the limit, steps are widened
_SMALL_PRICE = 1e-3
_HIGHEST = 5.0  # of the logarithm of the price over the price asked for
_SMOOTHING = 0.8  # of the estimate, from one reading to the next
_TRIES = 6
_COARSEST = 64.0
_FINEST = 1 / 16
_NEAR = 0.955  # a size that is aimed at is reached between this part of it and the whole


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
        self._coded_share = bits / max(self._estimate, 1e-3)
        # One measure for all that were due: in a fast fit the rate may come near its limit late.
        self._measures += sum(self._done >= due for due in _MEASURE_AT[self._measures :])
        self.wants_measure = False
        if self._limit is None or self._done < _LATE or bits <= self._limit * _AT_MOST / _AIM:
            return 1.0
        self._estimate *= self._limit / bits
        return 2 ** (bits - self._limit)


def coded(field: Field, steps: dict[str, np.ndarray]) -> np.ndarray:
    """The stream of a field's weights, ``(n,)`` uint8: tensors with steps are rounded to them, others are float16.

    Raises:
        ContainerError: a weight is not finite.
    """
    weights = to_arrays(field)
    return bitstream.encode({n: round_to_steps(w, steps[n]) if n in steps else w for n, w in weights.items()})


def coded_to(field: Field, steps: dict[str, np.ndarray], goal: SizeGoal | None) -> np.ndarray:
    """The same with all steps widened or narrowed alike, by about as little as meets a goal.

    Where nothing brings it under the limit, since the tensors without steps alone are larger, it is the smallest
    there is; where the finest steps do not reach it, what they give.
    """
    stream = coded(field, steps)
    if goal is None or _NEAR * goal.limit_bytes <= stream.size <= goal.limit_bytes:
        return stream

    def scaled(factor: float) -> np.ndarray:
        return coded(field, {name: step * factor for name, step in steps.items()})

    # Bracket the factor: at `fine` the stream is too large, at `coarse` it fits. Twice the step, a bit a value less.
    fine = coarse = 1.0
    if stream.size > goal.limit_bytes:
        while stream.size > goal.limit_bytes:
            if coarse >= _COARSEST:
                return stream
            fine, coarse = coarse, coarse * max(1.1, stream.size / goal.limit_bytes)
            stream = scaled(coarse)
    elif goal.reach:
        while (finer := scaled(fine := fine / 1.5)).size <= goal.limit_bytes:
            stream, coarse = finer, fine
            if fine <= _FINEST:
                return stream
    else:
        return stream
    for _ in range(_TRIES):
        if stream.size >= _NEAR * goal.limit_bytes:
            break
        middle = math.sqrt(fine * coarse)
        trial = scaled(middle)
        if trial.size <= goal.limit_bytes:
            stream, coarse = trial, middle
        else:
            fine = middle
    return stream
