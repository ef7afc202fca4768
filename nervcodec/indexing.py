# SPDX-License-Identifier: MIT
"""What counts as an index, everywhere in the library: whole numbers as sequences take them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import SupportsIndex, cast


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
