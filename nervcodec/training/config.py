# SPDX-License-Identifier: MIT
"""Settings of a fit: duration, learning rate schedule, losses, optimizer, quantization, target size. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from nervcodec.errors import ConfigError
from nervcodec.ranges import parse_duration
from nervcodec.settings import Setting, validate

Schedule = Callable[[float], float]
# Weights of the terms of each fused loss; "ms-ssim" is a term only. Numbered as in HNeRV (Chen et al. 2023,
# arXiv:2304.02633).
FUSIONS: dict[str, tuple[tuple[float, str], ...]] = {
    "fusion1": ((0.3, "l2"), (0.7, "ssim")),
    "fusion2": ((0.3, "l1"), (0.7, "ssim")),
    "fusion3": ((0.5, "l2"), (0.5, "ssim")),
    "fusion4": ((0.5, "l1"), (0.5, "ssim")),
    "fusion5": ((0.7, "l2"), (0.3, "ssim")),
    "fusion6": ((0.7, "l1"), (0.3, "ssim")),
    "fusion7": ((0.7, "l2"), (0.3, "l1")),
    "fusion8": ((0.5, "l2"), (0.5, "l1")),
    "fusion9": ((0.9, "l1"), (0.1, "ssim")),
    "fusion10": ((0.7, "l1"), (0.3, "ms-ssim")),
    "fusion11": ((0.9, "l1"), (0.1, "ms-ssim")),
    "fusion12": ((0.8, "l1"), (0.2, "ms-ssim")),
}
PIXEL_LOSSES = ("l1", "l2", "log-l2", "ssim", *FUSIONS)
MUON, ADAM = "muon", "adam"
MUON_LR, ADAM_LR = 0.02, 0.001
DEFAULT_TIME_S, FURTHER_TIME_S = 180.0, 60.0  # of fitting up to ten seconds of video; further ten seconds
GOAL, SECTION = "Goal", "Fit"


def cosine(warmup: float, start: float, end: float) -> Schedule:
    """Linear warm-up from 0 to ``start``, then half a cosine from ``start`` to ``end``.

    Args:
        warmup: fraction of the fit spent warming up, at least 0 and below 1.
        start, end: factors on the learning rate.
    """

    def factor(progress: float) -> float:
        if progress < warmup:
            return start * progress / warmup
        position = min(1.0, (progress - warmup) / (1 - warmup))
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * position))

    return factor


def linear(warmup: float, start: float, end: float) -> Schedule:
    """As :func:`cosine`, with a straight line from ``start`` to ``end``."""

    def factor(progress: float) -> float:
        if progress < warmup:
            return start * progress / warmup
        return start + (end - start) * min(1.0, (progress - warmup) / (1 - warmup))

    return factor


def step(interval: float, ratio: float) -> Schedule:
    """Multiply by ``ratio`` every ``interval`` (a fraction of the fit)."""
    return lambda progress: ratio ** math.floor(progress / interval + 1e-9)


def parse_schedule(text: str) -> Schedule:
    """Read ``cosine_WARMUP_FROM_TO``, ``linear_WARMUP_FROM_TO``, ``step_INTERVAL_RATIO`` or ``constant``.

    Returns:
        A function from the fraction of the fit, 0 to 1, to the factor on the learning rate.

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
            return lambda progress: 1.0
    raise ConfigError(f"{text!r} is not a schedule; write cosine_0.1_1_0.1, linear_0.1_1_0, step_0.25_0.5 or constant")


@dataclass(frozen=True)
class SizeGoal:
    """Target for the stored weights of a segment.

    Attributes:
        limit_bytes: maximum size.
        reach: whether the weights should also grow up to the limit.
    """

    limit_bytes: float
    reach: bool = False

    def minus(self, size_bytes: float, minimum: float) -> SizeGoal:
        """The rest of the limit after ``size_bytes`` are subtracted, not below a minimum."""
        return replace(self, limit_bytes=max(self.limit_bytes - size_bytes, minimum))


@dataclass(frozen=True)
class FitConfig:
    """Settings of the fit of one segment. Without time and epochs, a default time is used."""

    time_s: float | None = Setting(
        None, "Duration of the fit (90s, 5m, 1h); the learning rate schedule ends with it.", GOAL,
        unset=f"{DEFAULT_TIME_S / 60:g}m, {FURTHER_TIME_S / 60:g}m more for each further 10 s of video", above=0,
        parse=parse_duration, flag="time", metavar="TIME",
    ).field()  # fmt: skip
    epochs: int | None = Setting(None, "Or number of passes over the video.", GOAL, least=1, metavar="N").field()
    psnr_db: float | None = Setting(
        None, "Stop when the file reaches this PSNR over the fitted frames.", GOAL,
        above=0, below=100, flag="psnr", metavar="DB",
    ).field()  # fmt: skip
    loss: str = Setting("log-l2", "Pixel loss.", SECTION, choices=PIXEL_LOSSES, metavar="NAME").field()
    semantic_loss: str = Setting(
        "centred", "Compare embeddings less the video's mean (centred), or raw, as in the original method (cosine).",
        SECTION, choices=("centred", "cosine"),
    ).field()  # fmt: skip
    semantic_weight: float = Setting(
        0.55, "Weight of the semantic loss; 0 fits pixels only.", SECTION, least=0, metavar="X"
    ).field()
    pixel_warmup: float = Setting(
        0.15, "Fit pixels only for this fraction of the fit, or for this number of epochs if 1 or more.", SECTION,
        least=0, metavar="X",
    ).field()  # fmt: skip
    optimizer: str | None = Setting(
        None, "Optimizer: muon for matrices with adam for the rest, or adam for all.", SECTION,
        unset=f"{MUON} for grid, {ADAM} for pe", choices=(MUON, ADAM),
    ).field()  # fmt: skip
    lr: float | None = Setting(  # with Muon, grids get the same, all else 0.15 times it
        None, "Learning rate.", SECTION, above=0, metavar="X",
        unset=f"{MUON_LR:g} with {MUON}, lower for a fit of many steps; {ADAM_LR:g} with {ADAM}",
    ).field()  # fmt: skip
    lr_type: str = Setting(
        "linear_0.03_1_0", "Schedule of the learning rate.", SECTION,
        forms=("cosine_WARMUP_FROM_TO", "linear_WARMUP_FROM_TO", "step_INTERVAL_RATIO", "constant"),
        check=parse_schedule, metavar="NAME",
    ).field()  # fmt: skip
    rounding_share: float = Setting(
        0.65, "Fraction of the fit, at its end, in which weights are quantized; 0 for none.", SECTION,
        least=0, most=1, flag="",
    ).field()  # fmt: skip
    rate_weight: float = Setting(
        0.1, "Weight of the rate in the loss (lambda), from quantization on: more makes the file smaller.", SECTION,
        least=0, metavar="X",
    ).field()  # fmt: skip
    batch_size: int | None = Setting(
        None, "Frames (grid) or patches (pe) in a batch.", SECTION, unset="chosen from the size of a frame",
        least=1, metavar="N",
    ).field()  # fmt: skip
    eval_every: int | None = Setting(
        None, "Measure some frames every N epochs.", SECTION, unset="never", least=1, metavar="N"
    ).field()
    seed: int = Setting(0, "Seed of weights and batches.", SECTION, least=0, metavar="N").field()

    def with_default_time(self, ten_seconds: int, further_s: float = FURTHER_TIME_S) -> FitConfig:
        """With the default time for the length of the video, if neither time nor epochs are set.

        Args:
            ten_seconds: number of ten-second intervals of the video.
            further_s: seconds of fitting for each of them after the first.
        """
        if self.time_s is not None or self.epochs is not None:
            return self
        return replace(self, time_s=DEFAULT_TIME_S + further_s * (ten_seconds - 1))

    def scaled(self, share: float) -> FitConfig:
        """With a share of the time; epochs count passes over a segment and do not change."""
        return self if self.time_s is None else replace(self, time_s=self.time_s * share)

    def __post_init__(self) -> None:
        validate(self)
