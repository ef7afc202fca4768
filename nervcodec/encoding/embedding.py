# SPDX-License-Identifier: MIT
"""The reference embeddings of a segment: of which of its frames, and of which patches anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervcodec.encoding.plan import Plan
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.semantic.changes import find_changes
from nervcodec.semantic.patches import embed_patches, sampled_frames
from nervcodec.split import FITTED


@dataclass(frozen=True)
class Chosen:
    """What of a segment is embedded.

    Attributes:
        numbers: ``(n,)`` int64 of frames, counted from the segment's first.
        anew: ``(n, patches)`` bool, which of their patches are not as they were; None for all.
    """

    numbers: np.ndarray
    anew: np.ndarray | None = None


def fitted_frames(plan: Plan, first: int, count: int) -> np.ndarray:
    """``(count,)`` bool: the frames of a segment that are fitted.

    Raises:
        ConfigError: none is.
    """
    split = plan.wanted.split
    fitted = np.array(split.roles(first, count)) == FITTED if split else np.ones(count, bool)
    if not fitted.any():
        raise ConfigError(f"the split leaves no frame to fit in the segment that starts at frame {first}")
    return fitted


def choose_frames(plan: Plan, pixels: np.ndarray, fitted: np.ndarray, cuts: tuple[int, ...]) -> Chosen:
    """The frames of a segment that get embeddings: none where there is no encoder.

    Args:
        plan: of the encode.
        pixels: ``(N, H, W, 3)`` uint8.
        fitted: ``(N,)`` bool; no others are embedded.
        cuts: first frames of the shots after the first.
    """
    if plan.encoder is None:
        return Chosen(np.empty(0, np.int64))
    rate = float(plan.info.frame_rate) * fitted.mean()
    sampled = np.flatnonzero(fitted)[sampled_frames(fitted.sum(), rate, plan.wanted.semantic_fps)]
    places = where_it_changes(plan, pixels[sampled], sampled, cuts)
    return Chosen(sampled[places.numbers], places.anew)


def where_it_changes(plan: Plan, images: np.ndarray, numbers: np.ndarray, cuts: tuple[int, ...]) -> Chosen:
    """Which of some images, frames of a segment with these numbers, get embeddings; by their places among them."""
    changes = find_changes(images, plan.grid, np.searchsorted(cuts, numbers, "right"))
    return Chosen(changes.kept, changes.anew)


def embed(plan: Plan, images: np.ndarray, chosen: Chosen, observer: Observer) -> np.ndarray | None:
    """Embeddings of the images that were chosen, ``(n, patches, D)``; None where there is no encoder."""
    if plan.encoder is None:
        return None
    return embed_patches(images[chosen.numbers], plan.grid, plan.encoder, observer, chosen.anew)
