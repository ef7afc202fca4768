# SPDX-License-Identifier: MIT
"""Quality patch by patch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nervcodec import metrics
from nervcodec.coordinates import PatchGrid


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
