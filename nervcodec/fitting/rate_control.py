# SPDX-License-Identifier: MIT
"""Keeping weights under a size: a price for bits that rises while they are too many, coarser steps at the end."""

from __future__ import annotations

import math

import numpy as np

from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import round_to_steps
from nervcodec.network.build import to_arrays
from nervcodec.network.field import Field

_RESPONSE = 35.0  # growth of the price's logarithm over the whole phase for a rate that is e times too large
_MEASURE_AT = 0.4  # of the phase
_SMOOTHING = 0.95  # of the estimate, from one reading to the next
_COARSER = 1.02  # factor of steps from one try to the next
_COARSEST = 64.0


class RateControl:
    """The weight of the rate in the loss, from one reading to the next.

    Args:
        weight: what it never falls below.
        limit_bits: of a parameter, on average; None: the weight stays as it is.

    Attributes:
        weight: the weight now.
        wants_measure: whether :meth:`calibrate` should be called, which is worth its second or two once.
    """

    def __init__(self, weight: float, limit_bits: float | None):
        self.weight, self._least, self._limit = weight, weight, limit_bits
        self._estimate = math.nan
        self._done = math.nan
        self._coded_share = 1.0  # of the estimate, which knows nothing of contexts
        self.wants_measure = False

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
        if self._coded_share == 1.0 and done >= _MEASURE_AT:
            self.wants_measure = True
        excess = math.log(max(self._estimate * self._coded_share, 1e-3) / self._limit)
        least = max(self._least, 1e-4)
        self.weight = max(self._least, max(self.weight, least) * math.exp(_RESPONSE * excess * (done - self._done)))
        self._done = done

    def calibrate(self, bits: float) -> None:
        """Take note of what the coder really makes of the weights, in bits of a parameter."""
        self._coded_share = bits / max(self._estimate, 1e-3)
        self.wants_measure = False


def coded(field: Field, steps: dict[str, np.ndarray]) -> np.ndarray:
    """The stream of a field's weights, ``(n,)`` uint8: tensors with steps are rounded to them, others are float16.

    Raises:
        ContainerError: a weight is not finite.
    """
    weights = to_arrays(field)
    return bitstream.encode({n: round_to_steps(w, steps[n]) if n in steps else w for n, w in weights.items()})


def coded_within(field: Field, steps: dict[str, np.ndarray], limit_bytes: float | None) -> np.ndarray:
    """The same with all steps widened alike, by as little as brings the stream under a size.

    Where nothing does, since the tensors without steps alone are larger, it is the smallest there is.
    """
    stream, factor = coded(field, steps), 1.0
    while limit_bytes is not None and stream.size > limit_bytes and factor < _COARSEST:
        # Twice the step is about a bit a value less; near the limit, small steps.
        factor *= max(_COARSER, (stream.size / limit_bytes) ** 1.2)
        stream = coded(field, {name: step * factor for name, step in steps.items()})
    return stream
