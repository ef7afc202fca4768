# SPDX-License-Identifier: MIT
"""Quality patch by patch, and at positions between the patches that a network was fitted at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nervcodec import metrics
from nervcodec.coordinates import PatchGrid
from nervcodec.decoding import OpenVideo


class PatchFigures(NamedTuple):
    """One patch of one frame against the original; ``cosine`` is None where no reference embedding was made."""

    frame: int
    row: int
    column: int
    psnr_db: float
    ssim: float
    ms_ssim: float | None
    role: str
    cosine: float | None = None


def of_patches(number: int, decoded: np.ndarray, source: np.ndarray, grid: PatchGrid, role: str) -> list[PatchFigures]:
    """Every patch of a frame, row by row.

    Args:
        number: of the frame.
        decoded, source: ``(H, W, 3)`` uint8 RGB.
        grid: the patch grid.
        role: of the frame in the fit.
    """
    rows = []
    for patch, (x, y, width, height) in enumerate(grid.boxes()):
        a, b = (image[y : y + height, x : x + width] for image in (decoded, source))
        row, column = divmod(patch, grid.columns)
        psnr_db, ssim, ms_ssim = metrics.psnr_db(a, b), metrics.ssim(a, b), metrics.ms_ssim(a, b)
        rows.append(PatchFigures(number, row, column, psnr_db, ssim, ms_ssim, role))
    return rows


@dataclass(frozen=True)
class BetweenPatches:
    """What a network gives at positions that it was not fitted at.

    Attributes:
        positions: how many windows were looked at, halfway between patches, of all frames together.
        psnr_db: their mean.
        patch_psnr_db: the mean for the same pixels as the patches give them.
    """

    positions: int
    psnr_db: float
    patch_psnr_db: float

    @property
    def drop_db(self) -> float:
        """By how much positions between patches are worse."""
        return self.patch_psnr_db - self.psnr_db

    def to_json(self) -> dict[str, float]:
        """Under the names of ``eval --json``."""
        return {
            "positions": self.positions,
            "psnr": round(self.psnr_db, 4),
            "patch_psnr": round(self.patch_psnr_db, 4),
            "drop_db": round(self.drop_db, 4),
        }


def between_patches(video: OpenVideo, sources: dict[int, np.ndarray]) -> BetweenPatches | None:
    """Look halfway between neighbouring patches, in rows, in columns and in both.

    Args:
        video: the container.
        sources: original frames ``(H, W, 3)`` uint8 by number.

    Returns:
        None where there is a single patch, or no frame.
    """
    grid = video.grid
    rows, columns = (np.arange(0, count - 0.5, 0.5) for count in (grid.rows, grid.columns))
    places = [(r, c) for r in rows for c in columns if r % 1 or c % 1]
    if not places or not sources:
        return None
    between, at_patches = [], []
    for number, source in sources.items():
        frame = video[number]
        for row, column in places:
            x, y, width, height = grid.box_between(row, column)
            wanted = source[y : y + height, x : x + width]
            between.append(metrics.psnr_db(video.window_between(number, row, column), wanted))
            at_patches.append(metrics.psnr_db(frame[y : y + height, x : x + width], wanted))
    return BetweenPatches(len(between), float(np.mean(between)), float(np.mean(at_patches)))
