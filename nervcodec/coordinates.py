# SPDX-License-Identifier: MIT
"""The patch grid, coordinates and interpolation weights of frames, and checked indices of frames and patches."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, cast

import numpy as np


@dataclass(frozen=True)
class Patch:
    """A patch of a frame.

    Attributes:
        row, column: position in the patch grid.
        x, y, width, height: in pixels.
    """

    row: int
    column: int
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class PatchGrid:
    """A frame cut into rows x columns of patches whose sizes differ by at most one pixel.

    Attributes:
        height, width: of the frame, in pixels.
        rows, columns: of the grid; never more than there are pixels.
    """

    height: int
    width: int
    rows: int
    columns: int

    @classmethod
    def fitting(cls, height: int, width: int, rows: int, columns: int) -> PatchGrid:
        """A grid of at most ``rows`` x ``columns`` patches with at least one pixel each."""
        return cls(height, width, min(rows, height), min(columns, width))

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """(x, y, width, height) of a patch in pixels.

        Raises:
            IndexError: no such patch; negative indices are for :meth:`resolve`.
        """
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise IndexError(f"patch {row},{column} is outside the {self.rows}x{self.columns} grid")
        top, bottom = row * self.height // self.rows, (row + 1) * self.height // self.rows
        left, right = column * self.width // self.columns, (column + 1) * self.width // self.columns
        return left, top, right - left, bottom - top

    def patch(self, row: int, column: int) -> Patch:
        """One patch; see :meth:`box`."""
        return Patch(row, column, *self.box(row, column))

    def patches(self) -> list[Patch]:
        """All patches, row by row."""
        return [self.patch(row, column) for row in range(self.rows) for column in range(self.columns)]

    def resolve(self, row: object, column: object) -> tuple[int, int]:
        """Row and column of a patch from 0; negative ones count from the last.

        Raises:
            TypeError: not integers.
            IndexError: no such patch.
        """
        return position(row, self.rows, "row of patches"), position(column, self.columns, "column of patches")

    def boxes(self) -> list[tuple[int, int, int, int]]:
        """All boxes, row by row."""
        return [self.box(r, c) for r in range(self.rows) for c in range(self.columns)]

    @property
    def patch_size(self) -> tuple[int, int]:
        """(height, width) of the largest patch."""
        return -(-self.height // self.rows), -(-self.width // self.columns)


def patch_coordinates(frame: int, row: int, column: int, count: int, grid: PatchGrid) -> tuple[float, float, float]:
    """(t, y, x) of a patch in [0, 1]: the frame's time, 0 for the first or only frame, and the patch's centre."""
    return frame / max(count - 1, 1), (row + 0.5) / grid.rows, (column + 0.5) / grid.columns


def position(index: object, count: int, what: str = "frame") -> int:
    """An index as an integer from 0 to ``count - 1``.

    Args:
        index: an integer of any type, from ``-count`` on.
        count: length of the sequence.
        what: name of an element, for messages.

    Raises:
        TypeError: not an integer; True and False are not.
        IndexError: out of range.
    """
    try:
        if _is_boolean(index):
            raise TypeError
        number = operator.index(cast(SupportsIndex, index))
    except TypeError:
        raise TypeError(f"a {what} is named by a whole number, not by {type(index).__name__}") from None
    if not -count <= number < count:
        raise IndexError(f"{what} {number} is out of range; there are {count} (0 to {count - 1})")
    return number % count


def positions(indexes: Iterable[object], count: int) -> Sequence[int]:
    """Indices as integers from 0 to ``count - 1``, in order; a mask of ``count`` booleans selects where it is True.

    Raises:
        TypeError: not a list, array or other iterable of integers.
        IndexError: one is out of range, or a mask is of another length.
    """
    if isinstance(indexes, (str, bytes)) or not isinstance(indexes, Iterable):
        raise TypeError(f"several frames are named by a list or array of whole numbers, not by {indexes!r:.40}")
    if isinstance(indexes, range) and indexes and min(indexes[0], indexes[-1]) >= 0:
        position(max(indexes[0], indexes[-1]), count)
        return indexes
    listed = list(indexes)
    if listed and all(_is_boolean(entry) for entry in listed):
        if len(listed) != count:
            raise IndexError(f"a mask of {len(listed)} frames does not fit; there are {count}")
        return [number for number, selected in enumerate(listed) if selected]
    return [position(index, count) for index in listed]


def _is_boolean(value: object) -> bool:
    """Whether a value is a boolean of Python, numpy or torch."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def interpolation_weights(
    entries: tuple[int, ...], frames: int, cuts: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries before and after each frame, int64, and the weight of the later one, float32, ``(frames,)`` each.

    Args:
        entries: frame of each entry, ascending, at least one.
        frames: of the segment.
        cuts: first frames of the shots after the first, ascending; there is no interpolation across a cut.
    """
    number, entry_frames = np.arange(frames), np.array(entries, np.int64)
    shot_of = np.searchsorted(np.array(cuts, np.int64), number, side="right")
    lower = np.maximum(np.searchsorted(entry_frames, number, side="right") - 1, 0)
    upper = np.minimum(np.searchsorted(entry_frames, number), len(entries) - 1)
    nearest = np.where(number - entry_frames[lower] <= entry_frames[upper] - number, lower, upper)
    before, after = shot_of[entry_frames[lower]] == shot_of, shot_of[entry_frames[upper]] == shot_of
    lower, upper = (
        np.where(before, lower, np.where(after, upper, nearest)),
        np.where(after, upper, np.where(before, lower, nearest)),
    )
    gap = np.maximum(entry_frames[upper] - entry_frames[lower], 1)
    fraction = ((number - entry_frames[lower]).astype(np.float32) / gap.astype(np.float32)).clip(0, 1)
    return lower, upper, np.where(lower == upper, np.float32(0), fraction)
