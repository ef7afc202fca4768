# SPDX-License-Identifier: MIT
"""A segment as plain arrays: all that a fit sees of a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SegmentData:
    """Plain arrays of one segment.

    Attributes:
        frames: ``(N, H, W, 3)`` uint8 RGB.
        embeddings: ``(n, patches, D)`` float32 unit vectors of some frames, or None.
        embedded_frames: ``(n,)`` the numbers of those frames, ascending.
        fitted: ``(N,)`` bool, the frames to fit, at least one; None for all.
        held_out_embeddings, held_out_embedded: the same for some held-out frames, only to be looked at.
    """

    frames: np.ndarray
    embeddings: np.ndarray | None = None
    embedded_frames: np.ndarray | None = None
    fitted: np.ndarray | None = None
    held_out_embeddings: np.ndarray | None = None
    held_out_embedded: np.ndarray | None = None

    @property
    def is_fitted(self) -> np.ndarray:
        """``(N,)`` bool."""
        return np.ones(len(self.frames), bool) if self.fitted is None else self.fitted
