# SPDX-License-Identifier: MIT
"""A source's own stream made searchable: its packets as they are, and a semantic head for each segment."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nervcodec import metrics
from nervcodec.base.copy import Packets
from nervcodec.encoding.embeddings import (
    EmbeddingBasis,
    SegmentEmbeddings,
    basis_for,
    embed_segment,
    embedding_budget,
    head_of,
)
from nervcodec.encoding.plan import Plan
from nervcodec.encoding.segment import EncodedSegment, head_segment
from nervcodec.events import Observer
from nervcodec.formats.header import BaseHeader


@dataclass(frozen=True)
class CopyResult:
    """The copied packets of a source, and the segments of their embeddings.

    Attributes:
        segments: with their heads.
        header: of the base layer.
        file: a Matroska file of the packets.
        embed_s: seconds that reference embeddings took.
        basis: that the heads of several segments have in common, or None.
        data: ``(n,)`` uint8, the bytes of the file, for another machine; else None.
    """

    segments: list[EncodedSegment]
    header: BaseHeader
    file: Path
    embed_s: float
    basis: EmbeddingBasis | None = None
    data: np.ndarray | None = None

    @property
    def stream(self) -> np.ndarray:
        """``(n,)`` uint8, the file, which is not in memory on the machine that has it."""
        return np.memmap(self.file, np.uint8, "r") if self.data is None else self.data


def copy_source(plan: Plan, folder: Path, observer: Observer) -> CopyResult:
    """Take the packets of a source, see that they decode to its frames, and give each segment its head.

    Args:
        plan: of the encode.
        folder: an empty one, in which the packets stay until they are written.
        observer: told of progress.

    Raises:
        VideoError: the packets cannot be taken, or decode to other frames.
    """
    assert plan.planes is not None
    start, embed_s = time.perf_counter(), 0.0
    packets = Packets.of(plan.info, plan.planes, folder / "packets.mkv")
    embeddings: list[SegmentEmbeddings] = []
    with contextlib.closing(packets.frames()) as frames:
        for index, count in enumerate(plan.lengths):
            observer.stage("Comparing frames", count)
            segment_frames = itertools.islice(frames, count)
            embedding = time.perf_counter()
            embedded = embed_segment(plan, segment_frames, plan.first_frame(index), count, plan.cuts(index), observer)
            embed_s += time.perf_counter() - embedding
            if embedded is not None:
                embeddings.append(embedded.as_float16)
            for _ in segment_frames:
                observer.advance()
        for _ in frames:  # a further frame is an error, raised by the generator
            continue
    limit_bytes = embedding_budget(packets.file.stat().st_size)
    basis = basis_for(plan, embeddings, limit_bytes) if len(embeddings) > 1 else None
    segments = []
    for index, count in enumerate(plan.lengths):
        head = head_of(embeddings[index] if embeddings else None, plan.patch_grid, limit_bytes, basis)
        seconds = 0.0 if index else time.perf_counter() - start - embed_s
        segments.append(head_segment(plan, index, head, np.full(count, metrics.IDENTICAL_DB), seconds))
    return CopyResult(segments, packets.facts, packets.file, embed_s, basis)
