# SPDX-License-Identifier: MIT
"""A segment as plain arrays: all that a fit sees of a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervcodec.formats.header import PlaneFormat

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class BaseData:
    """Frames of a segment as a base layer gives them, and as they should be.

    Attributes:
        coded: luma ``(N, H, W)`` and chroma ``(N, h, w)``, uint8, or uint16 where they have 10 bits.
        format: what they stand for.
        source: the same of the source, 4:2:0 as well.
        source_format: what those stand for; it differs by the depth alone.
    """

    coded: Planes
    format: PlaneFormat
    source: Planes
    source_format: PlaneFormat


@dataclass(frozen=True)
class SegmentData:
    """Plain arrays of one segment.

    Attributes:
        frames: ``(N, H, W, 3)`` uint8 RGB.
        embeddings: ``(n, patches, D)`` float32 unit vectors of some frames, or None.
        embedded_frames: ``(n,)`` the numbers of those frames, ascending.
        fitted: ``(N,)`` bool, the frames to fit, at least one; None for all.
        held_out_embeddings, held_out_embedded: the same for some held-out frames, only to be looked at.
        base: what a base layer makes of the frames; None without one.
    """

    frames: np.ndarray
    embeddings: np.ndarray | None = None
    embedded_frames: np.ndarray | None = None
    fitted: np.ndarray | None = None
    held_out_embeddings: np.ndarray | None = None
    held_out_embedded: np.ndarray | None = None
    base: BaseData | None = None

    @property
    def is_fitted(self) -> np.ndarray:
        """``(N,)`` bool."""
        return np.ones(len(self.frames), bool) if self.fitted is None else self.fitted
