# SPDX-License-Identifier: MIT
"""Which patches of which frames are worth an embedding of their own: those that look different from when they had one.

Where a camera stands still most patches of most frames show what they showed before, and an encoder would say the same
of them again. A patch is embedded anew where a part of it has changed; else what was said of it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nervcodec.coordinates import PatchGrid

_PARTS = 8  # across and down, of a patch: their means are looked at
_MOST = 0.75  # of the patches of a frame: where more have changed, all are embedded
CHANGED = 5.0  # of 255: from which difference of a part's mean on a patch has changed (benchmarks/NOTES.md)


class ChangedFrame(NamedTuple):
    """A frame that gets embeddings.

    Attributes:
        number: of the frame.
        image: ``(H, W, 3)`` uint8.
        changed: ``(patches,)`` bool; the other patches keep the embedding of the frame before.
    """

    number: int
    image: np.ndarray
    changed: np.ndarray


def find_changes(
    frames: Iterable[tuple[int, np.ndarray]], grid: PatchGrid, cuts: Sequence[int] = ()
) -> Iterator[ChangedFrame]:
    """The frames with a patch that changed since it was embedded. Two images are in memory.

    Embeddings are interpolated between frames that have them. So that one which held for long does not become another
    long before the picture does, the last frame before a change within a shot is given as well.

    Args:
        frames: numbers, ascending, and ``(H, W, 3)`` uint8; those that would get embeddings if all were different.
        grid: the patch grid.
        cuts: first frames of the shots after the first, ascending.
    """
    held = np.full((grid.rows * grid.columns, _PARTS * _PARTS * 3), np.inf, np.float32)
    waiting: tuple[int, np.ndarray] | None = None
    for number, image in frames:
        looks = _looks(image, grid)
        changed = np.abs(looks - held).max(axis=1) > CHANGED
        if not changed.any():
            waiting = number, image
            continue
        if waiting is not None and not any(waiting[0] < cut <= number for cut in cuts):
            yield ChangedFrame(*waiting, np.zeros(len(held), bool))
        waiting = None
        changed |= changed.mean() > _MOST
        held[changed] = looks[changed]
        yield ChangedFrame(number, image, changed)


def _looks(frame: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Mean colours of the parts of each patch, ``(patches, parts * 3)`` float32."""
    looks = np.zeros((len(grid.boxes()), _PARTS * _PARTS * 3), np.float32)
    for row, (x, y, width, height) in zip(looks, grid.boxes(), strict=True):
        down, across = min(_PARTS, height), min(_PARTS, width)
        # Each part has the same size; what is left over on the right and below would be a pixel or a few.
        patch = frame[y : y + height // down * down, x : x + width // across * across]
        parts = patch.reshape(down, height // down, across, width // across, 3).mean(axis=(1, 3), dtype=np.float32)
        row[: parts.size] = parts.ravel()
    return looks
