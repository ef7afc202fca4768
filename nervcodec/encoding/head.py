# SPDX-License-Identifier: MIT
"""The semantic head of a segment above a base layer, and a segment's stream of what it stores."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nervcodec.formats import bitstream
from nervcodec.network.config import NetworkConfig, SemanticConfig, frame_tables
from nervcodec.training.pca import principal_head

SEMANTIC_SHARE = 0.08  # of a segment's bytes that embeddings may take where that leaves them good enough

Tensors = dict[str, bitstream.QuantizedTensor | np.ndarray]


@dataclass(frozen=True)
class SegmentHead:
    """A semantic head, or none.

    Attributes:
        semantic: its configuration; None for none.
        tensors: by the names that parameters have in a network.
        size_bytes: of the tensors when they are coded.
    """

    semantic: SemanticConfig | None = None
    tensors: Tensors = field(default_factory=dict)
    size_bytes: int = 0


def head_of(
    reference: np.ndarray | None, embedded: tuple[int, ...], grid: tuple[int, int], limit_bytes: float
) -> SegmentHead:
    """The head for the embeddings of a segment.

    Args:
        reference: ``(n, patches, D)`` float32; None or empty for no head.
        embedded: the frames that they are of.
        grid: rows and columns of patches.
        limit_bytes: see :func:`nervcodec.training.pca.principal_head`.
    """
    if reference is None or not len(reference):
        return SegmentHead()
    head = principal_head(reference, grid, limit_bytes)
    semantic = SemanticConfig(reference.shape[2], rank=head.rank, code_frames=embedded)
    return SegmentHead(semantic, head.tensors, head.size_bytes)


def room_beside(stream_bytes: float) -> float:
    """Bytes that embeddings may take beside a stream of so many."""
    return stream_bytes * SEMANTIC_SHARE / (1 - SEMANTIC_SHARE)


def stored(config: NetworkConfig, embedded: tuple[int, ...], tensors: Tensors) -> np.ndarray:
    """``(n,)`` uint8, what is said of a segment's frames and its weights; empty where there are none."""
    if not tensors:
        return np.empty(0, np.uint8)
    return bitstream.encode({**frame_tables(config, embedded).tensors(), **tensors})
