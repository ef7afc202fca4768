# SPDX-License-Identifier: MIT
"""How the time of an encode is shared out: to what all segments share, then to each of them."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from nervcodec import sizing
from nervcodec.base import av1
from nervcodec.base.convert import base_format, to_base
from nervcodec.base.rate import USUAL_PRESET, seconds_of
from nervcodec.encoding.layered import DEPTH
from nervcodec.encoding.plan import Plan
from nervcodec.fitting.config import DEFAULT_TIME_S, FURTHER_TIME_S, FitConfig
from nervcodec.video.planes import Planes

_PROBED = 32  # frames that tell how fast this machine is
_BESIDE_CODING = 1.5  # times what coding a base layer takes: with reading, decoding and measuring


def shared_fit(plan: Plan) -> FitConfig:
    """The fit of the network that segments share: a part of what they are given, but no longer than is of use."""
    whole = _fit_of_all(plan)
    if whole.epochs is not None:
        whole = replace(whole, epochs=max(1, round(sizing.SHARED_FIT * whole.epochs)))
    return whole.part(_shared_part(whole))


def segment_fit(plan: Plan, frames: int) -> FitConfig:
    """The fit of a segment of so many frames."""
    whole = _fit_of_all(plan)
    own = 1 - _shared_part(whole) if plan.shares_network else 1.0
    if plan.shares_network and whole.epochs is not None:
        whole = replace(whole, epochs=max(1, whole.epochs - round(sizing.SHARED_FIT * whole.epochs)))
    return whole.part(own * frames / plan.info.frame_count)


def planned_s(plan: Plan) -> tuple[float, float]:
    """Seconds for each frame, about, and for what segments share; NaN where passes are counted."""
    shared = shared_fit(plan).time_s if plan.shares_network else 0.0
    return _frame_s(plan), math.nan if shared is None else shared


def _frame_s(plan: Plan) -> float:
    fit = plan.wanted.fit if plan.planes is not None else segment_fit(plan, plan.info.frame_count)
    if fit.time_s is not None:
        return fit.time_s / plan.info.frame_count
    megapixels = plan.info.height * plan.info.width / 1e6
    return math.nan if fit.epochs is not None else _coded_s(plan, seconds_of(USUAL_PRESET, megapixels))


def _coded_s(plan: Plan, once_s: float) -> float:
    """Seconds for all that is done with a frame of a base layer, of which coding it once takes a part."""
    searches = plan.wanted_bytes is not None or plan.wanted.fit.psnr_db is not None
    return _BESIDE_CODING * once_s * (sizing.BASE_SEARCHES if searches else 1)


def probed_s(plan: Plan, planes: Planes) -> float | None:
    """Seconds for each frame, where no time is asked for, as this machine codes some of them; else None.

    Args:
        plan: of an encode with a base layer.
        planes: frames of its source.
    """
    if plan.wanted.fit.time_s is not None or plan.wanted.fit.epochs is not None:
        return None
    assert plan.planes is not None
    count = min(_PROBED, len(planes.y))
    frames = (to_base(planes.frames(slice(n, n + 1)), plan.planes, DEPTH) for n in range(count))
    size, form = (plan.info.width, plan.info.height), base_format(plan.planes, DEPTH)
    start = time.perf_counter()
    av1.encode(frames, form, *size, plan.info.frame_rate, plan.wanted.layer.first_crf, USUAL_PRESET)
    return _coded_s(plan, (time.perf_counter() - start) / count)


def _fit_of_all(plan: Plan) -> FitConfig:
    """The fit of a whole video. Segments of a ``pe`` network share nothing, so that further ones take as long."""
    is_grid = plan.wanted.network.embed == "grid"
    return plan.wanted.fit.with_end(plan.ten_seconds, FURTHER_TIME_S if is_grid else DEFAULT_TIME_S)


def _shared_part(whole: FitConfig) -> float:
    most = math.inf if whole.time_s is None else sizing.MOST_SHARED_S / whole.time_s
    return min(sizing.SHARED_FIT, most)
