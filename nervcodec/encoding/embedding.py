# SPDX-License-Identifier: MIT
"""The reference embeddings of a segment: which of its frames get them, and what they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervcodec.encoding.plan import Plan
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.ranges import FITTED
from nervcodec.semantic.patches import embed_changes, sampled_frames
from nervcodec.tone_mapping import peak_of, to_screen8


@dataclass(frozen=True)
class Embedded:
    """Reference embeddings of a segment.

    Attributes:
        numbers: ``(n,)`` int64 of their frames, counted from the segment's first.
        reference: ``(n, patches, D)`` unit vectors, float32, or float16 where those of all segments are kept.
    """

    numbers: np.ndarray
    reference: np.ndarray

    @property
    def halved(self) -> Embedded:
        """In float16."""
        return Embedded(self.numbers, self.reference.astype(np.float16))


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


def embed_segment(
    plan: Plan,
    frames: Iterable[Any],
    first: int,
    count: int,
    cuts: tuple[int, ...],
    observer: Observer,
) -> Embedded | None:
    """Embed a segment, of which a few frames are in memory at once; None where there is no encoder.

    Args:
        plan: of the encode.
        frames: ``(H, W, 3)`` uint8 each, or planes where the plan has a base layer. Held-out ones are not embedded.
        first, count: the number of its first frame, and how many there are.
        cuts: first frames of its shots after the first.
        observer: told of each frame.

    Raises:
        ConfigError: no frame to fit.
    """
    fitted = fitted_frames(plan, first, count)
    if plan.encoder is None:
        return None
    rate = float(plan.info.frame_rate) * fitted.mean()
    sampled = set(np.flatnonzero(fitted)[sampled_frames(fitted.sum(), rate, plan.wanted.semantic_fps)].tolist())

    peak = peak_of(plan.info.light)

    def images() -> Iterator[tuple[int, np.ndarray]]:
        for number, frame in enumerate(frames):
            if number in sampled:
                yield number, frame if plan.planes is None else to_screen8(frame, plan.planes, peak=peak)[0]
            observer.advance()

    observer.stage("Embedding patches", count)
    numbers, vectors = embed_changes(images(), plan.grid, plan.encoder, cuts)
    return Embedded(numbers, vectors)
