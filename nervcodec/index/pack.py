# SPDX-License-Identifier: MIT
"""What the index keeps of a container's embeddings: eight bits a number, and one row a stored code and patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervcodec.search.index import EmbeddingIndex, SegmentIndex

_LEVELS = 127
_WIDTHS = 32  # codes are filled up to a multiple of so many numbers, so that few kinds of tables are needed


@dataclass(frozen=True)
class PackedSegment:
    """A segment as the index has it: everything that ``SegmentIndex.scores`` needs, but for most of the time between
    entries, in eight bits.

    Attributes:
        patches: in a frame.
        directions: ``(width, D)`` int8, the basis with the codes' units in it, in units of ``steps``.
        steps: ``(width,)`` float32.
        mean: ``(D,)`` float32.
        codes: ``(entries * patches, width)`` int8, entry by entry.
        lengths: ``(entries * patches,)`` float32, of the embeddings before they are brought to length 1.
        middle_weights, middle_lengths: ``(entries * patches,)`` float32. Halfway to the next entry an embedding may
            match better than at both ends: the weight of the next one in the frame nearest to the middle, and the
            length there. Where no frame lies between, the weight is 0 and the length that of the entry.
    """

    patches: int
    directions: np.ndarray
    steps: np.ndarray
    mean: np.ndarray
    codes: np.ndarray
    lengths: np.ndarray
    middle_weights: np.ndarray
    middle_lengths: np.ndarray


def width_of(index: EmbeddingIndex) -> int:
    """Numbers in a code of the container, filled up."""
    rank = max(len(segment.basis) for segment in index.segments)
    return -(-rank // _WIDTHS) * _WIDTHS


def pack(segment: SegmentIndex, width: int) -> PackedSegment:
    """Round a segment for the index, its codes filled up to ``width`` numbers."""
    entries, patches, rank = segment.coefficients.shape
    basis = segment.basis.astype(np.float32)
    directions = np.zeros((width, basis.shape[1]), np.float32)
    directions[:rank] = segment.scale[:, None] * basis
    steps = np.maximum(np.abs(directions).max(axis=1) / _LEVELS, 1e-30).astype(np.float32)
    codes = np.zeros((entries, patches, width), np.int8)
    codes[..., :rank] = segment.coefficients
    vectors = (segment.coefficients * segment.scale) @ basis + segment.mean.astype(np.float32)
    lengths = np.maximum(np.linalg.norm(vectors, axis=-1), 1e-4)
    weights, middles = _middles(segment, lengths)
    return PackedSegment(
        patches,
        np.rint(directions / steps[:, None]).astype(np.int8),
        steps,
        segment.mean.astype(np.float32),
        codes.reshape(-1, width),
        *(array.astype(np.float32).ravel() for array in (lengths, weights, middles)),
    )


def _middles(segment: SegmentIndex, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and lengths in the middle of what follows each entry, ``(entries, patches)`` both."""
    weights, middles = np.zeros_like(lengths), lengths.copy()
    between = np.flatnonzero((segment.after == segment.before + 1) & (segment.weight > 0) & (segment.weight < 1))
    # Of the frames after an entry the one that is written last stays: that nearest to the middle.
    order = between[np.argsort(-np.abs(segment.weight[between] - 0.5), kind="stable")]
    weights[segment.before[order]] = segment.weight[order, None]
    middles[segment.before[order]] = np.maximum(segment.lengths[order], 1e-4)
    return weights, middles
