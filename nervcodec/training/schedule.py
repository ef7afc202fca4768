# SPDX-License-Identifier: MIT
"""Learning rate schedules: pure functions of how much of the fit is done."""

from __future__ import annotations

import math
from collections.abc import Callable

from nervcodec.errors import ConfigError

Schedule = Callable[[float], float]


def cosine(warmup: float, start: float, end: float) -> Schedule:
    """Linear warm-up from 0 to ``start``, then half a cosine from ``start`` to ``end``.

    Args:
        warmup: fraction of the fit spent warming up, at least 0 and below 1.
        start, end: factors on the learning rate.
    """

    def factor(done: float) -> float:
        if done < warmup:
            return start * done / warmup
        position = min(1.0, (done - warmup) / (1 - warmup))
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * position))

    return factor


def linear(warmup: float, start: float, end: float) -> Schedule:
    """As :func:`cosine`, with a straight line from ``start`` to ``end``."""

    def factor(done: float) -> float:
        if done < warmup:
            return start * done / warmup
        return start + (end - start) * min(1.0, (done - warmup) / (1 - warmup))

    return factor


def step(interval: float, ratio: float) -> Schedule:
    """Multiply by ``ratio`` every ``interval`` (a fraction of the fit)."""
    return lambda done: ratio ** math.floor(done / interval + 1e-9)


def parse_schedule(text: str) -> Schedule:
    """Read ``cosine_WARMUP_FROM_TO``, ``linear_WARMUP_FROM_TO``, ``step_INTERVAL_RATIO`` or ``constant``.

    Returns:
        A function of the fraction done, 0 to 1, giving the factor on the learning rate.

    Raises:
        ConfigError: not one of these, or a number out of range.
    """
    kind, *numbers = text.lower().split("_")
    try:
        values = [float(n) for n in numbers]
    except ValueError:
        values = [math.nan]
    if all(math.isfinite(v) and v >= 0 for v in values):
        if kind == "cosine" and len(values) == 3 and values[0] < 1:
            return cosine(*values)
        if kind == "linear" and len(values) == 3 and values[0] < 1:
            return linear(*values)
        if kind == "step" and len(values) == 2 and values[0] > 0 and values[1] > 0:
            return step(*values)
        if kind == "constant" and not values:
            return lambda done: 1.0
    raise ConfigError(f"{text!r} is not a schedule; write cosine_0.1_1_0.1, linear_0.1_1_0, step_0.25_0.5 or constant")
