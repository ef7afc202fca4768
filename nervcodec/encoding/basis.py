# SPDX-License-Identifier: MIT
"""Embeddings of a whole video before any of its segments is coded, and the basis that all of them are stored in.

A basis is some kilobytes, whatever the number of embeddings: every segment with one of its own would pay for it again.
Above a base layer a head is known in closed form, so that all embeddings can be made first; they take little memory
(two megabytes for a minute of 2 x 4 patches of 384 numbers, at the most).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nervcodec.encoding.embedding import Embedded
from nervcodec.encoding.head import SEMANTIC_SHARE, SegmentHead, Tensors, room_beside
from nervcodec.encoding.plan import Plan
from nervcodec.formats import bitstream
from nervcodec.network.config import SemanticConfig
from nervcodec.training.pca import CODES, Head, principal_head, project

_SAMPLED = 400  # frames that a basis is made from, at most
_USUAL_BPP = 0.02  # of footage in AV1, where no size is asked for: what embeddings should not take too much of


@dataclass(frozen=True)
class Basis:
    """What the embeddings of all segments have in common, as it is stored.

    Attributes:
        head: of embeddings from the whole video.
        grid: rows and columns of patches.
    """

    head: Head
    grid: tuple[int, int]

    @classmethod
    def of(cls, everything: Sequence[Embedded], grid: tuple[int, int], limit_bytes: float) -> Basis:
        """The basis for all segments of a video.

        Args:
            everything: embeddings of each segment.
            grid: rows and columns of patches.
            limit_bytes: of the basis and all codes together, see :func:`principal_head`.
        """
        frames = sum(len(each.numbers) for each in everything)
        step = max(1, -(-frames // _SAMPLED))
        sample = np.concatenate([each.reference for each in everything])[::step].astype(np.float32)
        return cls(principal_head(sample, grid, limit_bytes / step), grid)

    @property
    def tensors(self) -> Tensors:
        """What is stored once."""
        return {name: tensor for name, tensor in self.head.tensors.items() if name != CODES}

    @property
    def size_bytes(self) -> int:
        """Of those when they are coded."""
        return bitstream.encode(self.tensors).size

    def to_facts(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        stream = torch.from_numpy(bitstream.encode(self.head.tensors).copy())
        return {**vars(self.head), "tensors": stream, "grid": list(self.grid)}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Basis:
        """The inverse of :meth:`to_facts`."""
        tensors = bitstream.read(facts["tensors"].numpy())
        rows, columns = facts["grid"]
        return cls(Head(facts["rank"], tensors, facts["cosine"], facts["size_bytes"]), (rows, columns))

    def segment(self, embedded: tuple[int, ...], reference: np.ndarray | None) -> SegmentHead:
        """What a segment stores itself.

        Args:
            embedded: frames with embeddings, counted from the segment's first.
            reference: ``(n, patches, D)`` of them; None or empty for no head.
        """
        if reference is None or not len(reference):
            return SegmentHead()
        tensors: Tensors = {CODES: project(self.head, reference.astype(np.float32), self.grid)}
        semantic = SemanticConfig(reference.shape[2], rank=self.head.rank, code_frames=embedded)
        return SegmentHead(semantic, tensors, bitstream.encode(tensors).size)


def basis_for(plan: Plan, everything: Sequence[Embedded], limit_bytes: float | None = None) -> Basis:
    """The basis for a plan's segments.

    Args:
        plan: of the encode.
        everything: embeddings of each segment.
        limit_bytes: of all embeddings; None for a share of the size asked for, or of what footage takes.
    """
    if limit_bytes is None and plan.wanted_bytes is not None:
        limit_bytes = SEMANTIC_SHARE * plan.wanted_bytes
    elif limit_bytes is None:
        pixels = plan.info.frame_count * plan.info.height * plan.info.width
        limit_bytes = room_beside(_USUAL_BPP / 8 * pixels)
    return Basis.of(everything, (plan.grid.rows, plan.grid.columns), limit_bytes)
