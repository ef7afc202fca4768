# SPDX-License-Identifier: MIT
"""Segments and their codes as rows of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nervcodec.index.pack import PackedSegment

if TYPE_CHECKING:
    import pyarrow as pa

Numbered = tuple[int, int, PackedSegment]  # the number of a content, and a segment with its place in it


def segment_rows(numbered: list[Numbered]) -> pa.Table:
    """Rows of a table of segments."""
    import pyarrow as arrow

    segments = [segment for _, _, segment in numbered]
    return arrow.table({
        "number": arrow.array([number for number, _, _ in numbered], arrow.int32()),
        "segment": arrow.array([number + place for number, place, _ in numbered], arrow.int32()),
        "patches": arrow.array([segment.patches for segment in segments], arrow.int32()),
        "steps": _lists(np.stack([segment.steps for segment in segments])),
        "mean": _lists(np.stack([segment.mean for segment in segments])),
        "directions": _lists(np.stack([segment.directions.ravel() for segment in segments])),
    })  # fmt: skip


def code_rows(numbered: list[Numbered]) -> pa.Table:
    """Rows of a table of codes."""
    import pyarrow as arrow

    segments = [segment for _, _, segment in numbered]
    counts = [len(segment.codes) for segment in segments]

    def joined(part: str) -> np.ndarray:
        return np.concatenate([getattr(segment, part) for segment in segments])

    entry_and_patch = [np.divmod(np.arange(len(s.codes), dtype=np.int32), s.patches) for s in segments]
    return arrow.table({
        "segment": arrow.array(np.repeat(np.array([n + place for n, place, _ in numbered], np.int32), counts)),
        "entry": arrow.array(np.concatenate([entry for entry, _ in entry_and_patch])),
        "patch": arrow.array(np.concatenate([patch for _, patch in entry_and_patch])),
        "length": arrow.array(joined("lengths")),
        "middle_weight": arrow.array(joined("middle_weights")),
        "middle_length": arrow.array(joined("middle_lengths")),
        "code": _lists(joined("codes")),
    })  # fmt: skip


def _lists(rows: np.ndarray) -> pa.FixedSizeListArray:
    import pyarrow as arrow

    return arrow.FixedSizeListArray.from_arrays(arrow.array(rows.ravel()), rows.shape[1])
