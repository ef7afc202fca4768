# SPDX-License-Identifier: MIT
"""Where patches lie and how frames and patches become coordinates in [0, 1]: the one place that decides both."""

from __future__ import annotations

from dataclasses import dataclass

from nervcodec.indexing import position


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
