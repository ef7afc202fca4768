# SPDX-License-Identifier: MIT
"""How the time of an encode is shared out: to what all segments share, then to each of them."""

from __future__ import annotations

import math
from dataclasses import replace

from nervcodec import sizing
from nervcodec.encoding.plan import Plan
from nervcodec.training.config import DEFAULT_TIME_S, FURTHER_TIME_S, FitConfig


def shared_fit(plan: Plan) -> FitConfig:
    """The fit of the network that segments share: a part of what they are given, but no longer than is of use."""
    whole = _fit_of_all(plan)
    if whole.epochs is not None:
        whole = replace(whole, epochs=max(1, round(sizing.SHARED_FIT * whole.epochs)))
    return whole.scaled(_shared_part(whole))


def segment_fit(plan: Plan, frames: int) -> FitConfig:
    """The fit of a segment of so many frames."""
    whole = _fit_of_all(plan)
    own = 1 - _shared_part(whole) if plan.shares_network else 1.0
    if plan.shares_network and whole.epochs is not None:
        whole = replace(whole, epochs=max(1, whole.epochs - round(sizing.SHARED_FIT * whole.epochs)))
    return whole.scaled(own * frames / plan.info.frame_count)


def _fit_of_all(plan: Plan) -> FitConfig:
    """The fit of a whole video. Segments of a ``pe`` network share nothing, so that further ones take as long."""
    is_grid = plan.wanted.network.embed == "grid"
    return plan.wanted.fit.with_default_time(plan.ten_seconds, FURTHER_TIME_S if is_grid else DEFAULT_TIME_S)


def _shared_part(whole: FitConfig) -> float:
    most = math.inf if whole.time_s is None else sizing.MOST_SHARED_S / whole.time_s
    return min(sizing.SHARED_FIT, most)
