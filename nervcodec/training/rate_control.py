# SPDX-License-Identifier: MIT
"""Rate control: the rate weight (lambda) follows the estimated rate, and coarser steps give the last percent."""

from __future__ import annotations

import math

import numpy as np

from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import quantize_tensor
from nervcodec.network.build import to_arrays
from nervcodec.network.field import Field
from nervcodec.training.config import SizeGoal

# A PI controller: log lambda is an integral plus a proportional term of the logarithm of rate over limit.
_INTEGRAL, _PROPORTIONAL = 12.0, 2.0  # the first over the whole phase
_MAX_INITIAL_RATIO = 2.0
_MEASURE_AT = (0.4, 0.6, 0.7, 0.78, 0.85, 0.91, 0.96)  # of the phase, where the rate is near the limit
_NEAR_LIMIT = 0.8  # of the target: no measurement is needed below it
_TARGET = 0.985  # of the limit: the final size is within two percent of it
_LATE, _TOLERANCE = 0.9, 1.02  # steps are widened after this part of the phase, above this part of the limit
_MIN_LAMBDA = 1e-3
_MAX_LOG_FACTOR = 5.0  # on lambda
_SMOOTHING = 0.8  # of the estimate, from one reading to the next
_BISECTIONS = 6
_MAX_FACTOR = 64.0
# Quantization-aware weights sit on the learned grid; other steps, finer ones too, cost 0.5 dB (benchmarks/NOTES.md). So
# a stream that is slightly too large is shrunk by moving weights towards 0, by these fractions of a step.
_SHRINKS = (1 / 2048, 1 / 1024, 1 / 512, 1 / 256, 1 / 128)
_CLOSE = 0.98  # of a limit: where widened steps are close enough
_RESERVED_BYTES = 24  # for the header, which is written when all sizes are known


class RateControl:
    """Controls the weight of the rate in the loss (lambda).

    Args:
        weight: initial lambda; it falls below that only with ``reach``.
        limit_bits: mean bits a parameter; None keeps lambda constant.
        reach: also approach the limit from below.

    Attributes:
        weight: current lambda.
        needs_measurement: whether :meth:`calibrate` is due; it takes a second or two.
    """

    def __init__(self, weight: float, limit_bits: float | None, reach: bool = False):
        self.weight = self._start = weight
        self._limit = None if limit_bits is None else _TARGET * limit_bits
        self._lowest = -_MAX_LOG_FACTOR if reach else 0.0
        self._integral = 0.0
        self._estimate = math.nan
        self._progress = math.nan
        self._coded_ratio = 1.0  # coded size over the estimate, which ignores contexts
        self._measurements = 0
        self.needs_measurement = False

    def initial_step_ratio(self, default: float) -> float:
        """Initial steps over standard deviations: above the default where the limit is below its rate."""
        if self._limit is None:
            return default
        # The entropy of a Gaussian, in bits, is log2 of 4.13 standard deviations over the step.
        return min(max(default, 4.13 / 2**self._limit), _MAX_INITIAL_RATIO)

    def update(self, bits: float, progress: float) -> None:
        """Update lambda from a reading of the rate.

        Args:
            bits: estimated, a parameter.
            progress: fraction of the quantized phase.
        """
        if self._limit is None or not math.isfinite(bits):
            return
        if math.isnan(self._estimate):
            self._estimate, self._progress = bits, progress
            return
        self._estimate += (1 - _SMOOTHING) * (bits - self._estimate)
        excess = math.log(max(self._estimate * self._coded_ratio, 1e-3) / self._limit)
        due = self._measurements < len(_MEASURE_AT) and progress >= _MEASURE_AT[self._measurements]
        self.needs_measurement = due and excess > math.log(_NEAR_LIMIT)
        self._integral = max(self._lowest, self._integral + _INTEGRAL * excess * (progress - self._progress))
        self._progress = progress
        log_factor = min(max(self._lowest, self._integral + _PROPORTIONAL * excess), _MAX_LOG_FACTOR)
        # A lambda of 0 cannot be multiplied, so it grows from a small one.
        self.weight = max(self._start, _MIN_LAMBDA) * math.exp(log_factor) if log_factor else self._start

    def state_dict(self) -> dict[str, float]:
        """Everything that later values depend on."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from a :meth:`state_dict`.

        Raises:
            KeyError: it is not the state of a rate control.
        """
        if state.keys() != vars(self).keys():
            raise KeyError("rate")
        vars(self).update(state)

    def calibrate(self, bits: float) -> float:
        """Update from the coded size of the weights, in bits a parameter.

        Returns:
            A factor on all steps: above 1 only near the end where the rate would miss the limit. The rest of the fit
            then compensates for the wider steps, which is not possible after its end.
        """
        ratio = bits / max(self._estimate, 1e-3)
        # Values near a rounding boundary flip between measurements, which changes a size by two percent: average.
        self._coded_ratio = ratio if not self._measurements else (ratio + self._coded_ratio) / 2
        # One measurement counts for all that were due: in a fast fit the rate may approach its limit late.
        self._measurements += sum(self._progress >= due for due in _MEASURE_AT[self._measurements :])
        self.needs_measurement = False
        if self._limit is None or self._progress < _LATE or bits <= self._limit * _TOLERANCE / _TARGET:
            return 1.0
        self._estimate *= self._limit / bits
        return 2 ** (bits - self._limit)


def encode_weights(field: Field, steps: dict[str, np.ndarray], shrink: float = 0.0) -> np.ndarray:
    """Coded weights of a field, ``(n,)`` uint8: tensors with steps are quantized, others stored as float16.

    Args:
        field: with the weights.
        steps: by tensor, ``(C,)`` by the second axis or ``(1,)``.
        shrink: move values towards 0 before rounding, in steps.

    Raises:
        ContainerError: a weight is not finite.
    """
    weights = to_arrays(field)
    for name, step in steps.items() if shrink else ():
        values = weights[name]
        by = shrink * (step.reshape(-1, *[1] * (values.ndim - 2)) if step.size > 1 else step)
        weights[name] = np.sign(values) * np.maximum(np.abs(values) - by, 0)
    return bitstream.encode({n: quantize_tensor(w, steps[n]) if n in steps else w for n, w in weights.items()})


def encode_to_size(field: Field, steps: dict[str, np.ndarray], goal: SizeGoal | None) -> np.ndarray:
    """Coded weights below a goal's limit: shrunk towards 0 where they exceed it slightly, else with wider steps.

    If neither suffices, since the tensors without steps alone are larger, the smallest stream is returned.
    """
    stream = encode_weights(field, steps)
    limit_bytes = math.inf if goal is None else goal.limit_bytes - _RESERVED_BYTES
    if stream.size <= limit_bytes:
        return stream
    if encode_weights(field, steps, _SHRINKS[-1]).size > limit_bytes:  # none of the others suffices
        return _with_wider_steps(field, steps, stream, limit_bytes)
    streams = (encode_weights(field, steps, shrink) for shrink in _SHRINKS)
    return next(stream for stream in streams if stream.size <= limit_bytes)


def _with_wider_steps(field: Field, steps: dict[str, np.ndarray], stream: np.ndarray, limit_bytes: float) -> np.ndarray:
    """A stream that is too large, with all steps multiplied by about the smallest factor that suffices."""

    def scaled(factor: float) -> np.ndarray:
        return encode_weights(field, {name: step * factor for name, step in steps.items()})

    # Bracket the factor: at `fine` the stream is too large, at `coarse` it fits. Doubling steps saves a bit a value.
    fine = coarse = 1.0
    while stream.size > limit_bytes:
        if coarse >= _MAX_FACTOR:
            return stream
        fine, coarse = coarse, coarse * max(1.1, stream.size / max(limit_bytes, 1))
        stream = scaled(coarse)
    for _ in range(_BISECTIONS):
        if stream.size >= _CLOSE * limit_bytes:
            break
        middle = math.sqrt(fine * coarse)
        trial = scaled(middle)
        if trial.size <= limit_bytes:
            stream, coarse = trial, middle
        else:
            fine = middle
    return stream
