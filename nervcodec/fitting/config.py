# SPDX-License-Identifier: MIT
"""How long, how fast and toward what a fit goes. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nervcodec.errors import ConfigError

PIXEL_LOSSES = ("l1", "l2", "log-l2", "ssim", *(f"fusion{number}" for number in range(1, 13)))
SEMANTIC_LOSSES = ("centred", "cosine")
OPTIMIZERS = ("muon", "adam")
DEFAULT_TIME_S = 180.0  # of fitting per segment


@dataclass(frozen=True)
class FitConfig:
    """Settings of the fit of one segment.

    Attributes:
        time_s: seconds of fitting; the schedule ends there. None: no limit in time.
        epochs: passes over the segment; None: no limit in passes. Where neither is given, ``DEFAULT_TIME_S``.
        psnr_db: end as soon as the quantised network's mean PSNR over the fitted frames reaches this; None: do not.
        loss: pixel loss, one of ``PIXEL_LOSSES``.
        semantic_loss: ``centred``, direction and length less the video's mean, or ``cosine``, the original method's.
        semantic_weight: lambda, weight of the semantic loss; 0 fits pixels only.
        pixel_warmup: fraction of the fit (below 1) or epochs (1 and above) that fit pixels only.
        optimizer: ``muon`` (matrices by Muon, all else by Adam), ``adam``, or None for the network's own.
        lr: learning rate; None for the optimiser's own, which for Muon falls with the steps the fit will have. With
            Muon, grids get the same, all else 0.15 times it.
        lr_type: schedule, see :mod:`nervcodec.fitting.schedule`.
        rounding_share: the last part of the fit, in which weights are rounded as they will be stored; 0 for none.
        rate_weight: weight, in that part, of the mean rate of a weight in bits.
        batch_size: units in a batch (frames for ``grid``, patches for ``pe``); None for the network's own.
        eval_every: epochs between evaluations during the fit; None: none.
        seed: of weights and batches.
    """

    time_s: float | None = None
    epochs: int | None = None
    psnr_db: float | None = None
    loss: str = "log-l2"
    semantic_loss: str = "centred"
    semantic_weight: float = 0.55
    pixel_warmup: float = 0.15
    optimizer: str | None = None
    lr: float | None = None
    lr_type: str = "linear_0.03_1_0"
    rounding_share: float = 0.65
    rate_weight: float = 0.1
    batch_size: int | None = None
    eval_every: int | None = None
    seed: int = 0

    def limited(self, share: float, segment_count: int) -> FitConfig:
        """The same for one segment: its share of the whole time, or the default time where no end is set."""
        if self.time_s is not None:
            return replace(self, time_s=self.time_s * share)
        return self if self.epochs is not None else replace(self, time_s=DEFAULT_TIME_S * segment_count * share)

    def __post_init__(self) -> None:
        from nervcodec.fitting.schedule import parse_schedule

        if self.time_s is not None and not (math.isfinite(self.time_s) and self.time_s > 0):
            raise ConfigError("the time of the fit must be above 0 seconds")
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError("the number of epochs must be 1 or more")
        if self.psnr_db is not None and not 0 < self.psnr_db < 100:
            raise ConfigError("the PSNR to reach must be above 0 and below 100 dB")
        object.__setattr__(self, "loss", self.loss.lower())
        if self.semantic_loss not in SEMANTIC_LOSSES:
            raise ConfigError(f"unknown semantic loss {self.semantic_loss!r}; there are {', '.join(SEMANTIC_LOSSES)}")
        if self.loss not in PIXEL_LOSSES:
            raise ConfigError(f"unknown loss {self.loss!r}; there are {', '.join(PIXEL_LOSSES)}")
        if self.optimizer is not None and self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"unknown optimizer {self.optimizer!r}; there are {', '.join(OPTIMIZERS)}")
        if not (math.isfinite(self.semantic_weight) and self.semantic_weight >= 0):
            raise ConfigError("the semantic weight must be 0 or more")
        if not (math.isfinite(self.pixel_warmup) and self.pixel_warmup >= 0):
            raise ConfigError("the pixel warm-up must be 0 or more")
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError("the learning rate must be above 0")
        if not 0 <= self.rounding_share <= 1:
            raise ConfigError("the rounding share must be from 0 to 1")
        if not (math.isfinite(self.rate_weight) and self.rate_weight >= 0):
            raise ConfigError("the rate weight must be 0 or more")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError("the batch size must be 1 or more")
        if self.eval_every is not None and self.eval_every < 1:
            raise ConfigError("epochs between evaluations must be 1 or more")
        parse_schedule(self.lr_type)
