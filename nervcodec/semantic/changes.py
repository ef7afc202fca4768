# SPDX-License-Identifier: MIT
"""Which patches of which frames are worth an embedding of their own: those that look different from when they had one.

Where a camera stands still most patches of most frames show what they showed before, and an encoder would say the same
of them again. A patch is embedded anew where a part of it has changed; else what was said of it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervcodec.coordinates import PatchGrid

_PARTS = 8  # across and down, of a patch: their means are looked at
_NEARLY_ALL = 0.9  # of the patches: from which share on all are embedded, as whoever judges them would have them
CHANGED = 5.0  # of 255: from which difference of a part's mean on a patch has changed (benchmarks/NOTES.md)


@dataclass(frozen=True)
class Changes:
    """What of some frames is embedded.

    Attributes:
        kept: ``(m,)`` int64, ascending from 0: the frames that get embeddings.
        anew: ``(m, patches)`` bool: whether a patch is given to the encoder, or has what it had in the frame before.
    """

    kept: np.ndarray
    anew: np.ndarray


def find_changes(frames: np.ndarray, grid: PatchGrid, shots: np.ndarray) -> Changes:
    """The patches that change from each of some frames to the next.

    Embeddings are interpolated between frames that have them. So that one which held for long does not become another
    long before the picture does, the last frame before a change within a shot is kept as well.

    Args:
        frames: ``(n, H, W, 3)`` uint8, at least one; those that would get embeddings if all were different.
        grid: the patch grid.
        shots: ``(n,)`` int, the number of the shot that each belongs to, ascending.
    """
    held = _looks(frames[0], grid)
    kept, anew = [0], [np.ones(len(held), bool)]
    for number in range(1, len(frames)):
        looks = _looks(frames[number], grid)
        changed = np.abs(looks - held).max(axis=1) > CHANGED
        if not changed.any():
            continue
        if kept[-1] < number - 1 and shots[number - 1] == shots[number]:
            kept.append(number - 1)
            anew.append(np.zeros(len(held), bool))
        kept.append(number)
        anew.append(changed)
        held[changed] = looks[changed]
    found = np.array(anew)
    return Changes(np.array(kept, np.int64), np.ones_like(found) if found.mean() > _NEARLY_ALL else found)


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
