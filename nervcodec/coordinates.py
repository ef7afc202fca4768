# SPDX-License-Identifier: MIT
"""The patch grid, coordinates and interpolation weights of frames, and checked indices of frames and patches."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, cast

import numpy as np


@dataclass(frozen=True)
class Window:
    """A part of a frame.

    Attributes:
        row, column: its place in the patch grid.
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
        """The grid asked for, or the finest one below it that leaves every patch at least one pixel."""
        return cls(height, width, min(rows, height), min(columns, width))

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """(x, y, width, height) of a patch in pixels.

        Raises:
            IndexError: no such patch; negative numbers are taken by :meth:`place` alone.
        """
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise IndexError(f"patch {row},{column} is outside the {self.rows}x{self.columns} grid")
        top, bottom = row * self.height // self.rows, (row + 1) * self.height // self.rows
        left, right = column * self.width // self.columns, (column + 1) * self.width // self.columns
        return left, top, right - left, bottom - top

    def window(self, row: int, column: int) -> Window:
        """A patch; see :meth:`box`."""
        return Window(row, column, *self.box(row, column))

    def windows(self) -> list[Window]:
        """All patches, row by row."""
        return [self.window(row, column) for row in range(self.rows) for column in range(self.columns)]

    def place(self, row: object, column: object) -> tuple[int, int]:
        """Row and column of a patch from 0, where negative numbers count from the last.

        Raises:
            TypeError: no whole numbers.
            IndexError: no such patch.
        """
        return position(row, self.rows, "row of patches"), position(column, self.columns, "column of patches")

    def boxes(self) -> list[tuple[int, int, int, int]]:
        """All boxes, row by row."""
        return [self.box(r, c) for r in range(self.rows) for c in range(self.columns)]

    @property
    def patch_size(self) -> tuple[int, int]:
        """(height, width) that every patch fits in: the largest patch's."""
        return -(-self.height // self.rows), -(-self.width // self.columns)


def frame_coordinate(frame: float, count: int) -> float:
    """The time coordinate of a frame: the first is 0, the last 1; 0 for a single one."""
    return frame / max(count - 1, 1)


def patch_coordinates(frame: int, row: int, column: int, count: int, grid: PatchGrid) -> tuple[float, float, float]:
    """(t, y, x) of a patch in [0, 1]: the frame's time and the patch's centre."""
    return frame_coordinate(frame, count), (row + 0.5) / grid.rows, (column + 0.5) / grid.columns


def position(index: object, count: int, what: str = "frame") -> int:
    """An index as a number from 0 to ``count - 1``.

    Args:
        index: a whole number of any kind, from ``-count`` on.
        count: how many there are.
        what: is counted.

    Raises:
        TypeError: no whole number; True and False are none.
        IndexError: out of range.
    """
    try:
        if _is_truth(index):
            raise TypeError
        number = operator.index(cast(SupportsIndex, index))
    except TypeError:
        raise TypeError(f"a {what} is named by a whole number, not by {type(index).__name__}") from None
    if not -count <= number < count:
        raise IndexError(f"{what} {number} is out of range; there are {count} (0 to {count - 1})")
    return number % count


def positions(indexes: Iterable[object], count: int) -> Sequence[int]:
    """Several indexes as numbers from 0 to ``count - 1``, in order; of a mask of ``count`` booleans, where it is True.

    Raises:
        TypeError: no list, array or other series of whole numbers.
        IndexError: one is out of range, or a mask is of another length.
    """
    if isinstance(indexes, (str, bytes)) or not isinstance(indexes, Iterable):
        raise TypeError(f"several frames are named by a list or array of whole numbers, not by {indexes!r:.40}")
    if isinstance(indexes, range) and indexes and min(indexes[0], indexes[-1]) >= 0:
        position(max(indexes[0], indexes[-1]), count)
        return indexes
    listed = list(indexes)
    if listed and all(_is_truth(entry) for entry in listed):
        if len(listed) != count:
            raise IndexError(f"a mask of {len(listed)} frames does not fit; there are {count}")
        return [number for number, wanted in enumerate(listed) if wanted]
    return [position(index, count) for index in listed]


def _is_truth(value: object) -> bool:
    """Whether it is True or False, of Python, numpy or torch."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def at(entries: tuple[int, ...], frames: int, cuts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries before and after each frame, int64, and the weight of the one after it, float32, ``(frames,)`` each.

    Args:
        entries: frame of each, ascending, at least one.
        frames: of the segment.
        cuts: first frames of the shots after the first, ascending; nothing is interpolated across one.
    """
    number, place = np.arange(frames), np.array(entries, np.int64)
    shot_of = np.searchsorted(np.array(cuts, np.int64), number, side="right")
    lower = np.maximum(np.searchsorted(place, number, side="right") - 1, 0)
    upper = np.minimum(np.searchsorted(place, number), len(entries) - 1)
    nearest = np.where(number - place[lower] <= place[upper] - number, lower, upper)
    before, after = shot_of[place[lower]] == shot_of, shot_of[place[upper]] == shot_of
    lower, upper = (
        np.where(before, lower, np.where(after, upper, nearest)),
        np.where(after, upper, np.where(before, lower, nearest)),
    )
    gap = np.maximum(place[upper] - place[lower], 1)
    fraction = ((number - place[lower]).astype(np.float32) / gap.astype(np.float32)).clip(0, 1)
    return lower, upper, np.where(lower == upper, np.float32(0), fraction)
