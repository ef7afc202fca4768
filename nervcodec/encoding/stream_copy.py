# SPDX-License-Identifier: MIT
"""A source's own stream made searchable: its packets as they are, and a semantic head for each segment."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass, replace
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
    serialize,
)
from nervcodec.encoding.plan import Plan
from nervcodec.encoding.segment import EncodedSegment
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.formats.header import BaseHeader, Segment
from nervcodec.network.config import HeadOnlyConfig, network_to_json


@dataclass(frozen=True)
class CopiedBase:
    """The base layer of a file: the source's packets.

    Attributes:
        facts: as the header has them.
        file: a Matroska file.
        data: ``(n,)`` uint8, its bytes, for another machine; else None.
    """

    facts: BaseHeader
    file: Path
    data: np.ndarray | None = None

    @property
    def stream(self) -> np.ndarray:
        """``(n,)`` uint8, the file, which is not in memory on the machine that has it."""
        return np.memmap(self.file, np.uint8, "r") if self.data is None else self.data


@dataclass(frozen=True)
class CopyResult:
    """What a copy came to.

    Attributes:
        segments: with their heads.
        base: of the whole file.
        embed_s: seconds that reference embeddings took.
        basis: that the heads of several segments have in common, or None.
    """

    segments: list[EncodedSegment]
    base: CopiedBase
    embed_s: float
    basis: EmbeddingBasis | None = None


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
    networks: list[HeadOnlyConfig] = []
    embeddings: list[SegmentEmbeddings] = []
    with contextlib.closing(packets.frames()) as frames:
        for index, count in enumerate(plan.lengths):
            observer.stage("Comparing frames", count)
            shown = itertools.islice(frames, count)
            embedding = time.perf_counter()
            known = embed_segment(plan, shown, plan.first_frame(index), count, plan.cuts(index), observer)
            embed_s += time.perf_counter() - embedding
            if known is not None:
                embeddings.append(known.as_float16)
            for _ in shown:
                observer.advance()
            networks.append(HeadOnlyConfig(plan.geometry(count), cuts=plan.cuts(index)))
        for _ in frames:  # what comes after the last is an error, found where the end is looked for
            continue
    room = embedding_budget(packets.file.stat().st_size)
    basis = basis_for(plan, embeddings, room) if len(embeddings) > 1 else None
    segments = [
        _with_head(
            plan,
            index,
            network,
            embeddings[index] if embeddings else None,
            room if basis is None else basis,
        )
        for index, network in enumerate(networks)
    ]
    segments[0] = replace(segments[0], elapsed_s=time.perf_counter() - start - embed_s)
    return CopyResult(segments, CopiedBase(packets.facts, packets.file), embed_s, basis)


def _with_head(
    plan: Plan, index: int, network: HeadOnlyConfig, known: SegmentEmbeddings | None, how: EmbeddingBasis | float
) -> EncodedSegment:
    """A segment whose network is a semantic head alone, in a basis or of a number of bytes, or nothing at all."""
    first = plan.first_frame(index)
    embedded = () if known is None else tuple(known.numbers.tolist())
    reference = None if known is None else known.reference.astype(np.float32)
    if isinstance(how, EmbeddingBasis):
        head = how.segment(embedded, reference)
    else:
        head = head_of(reference, embedded, (plan.grid.rows, plan.grid.columns), how)
    config = replace(network, semantic=head.semantic)
    return EncodedSegment(
        segment=Segment(first, network.geometry.frames, network_to_json(config), f"{index}/"),
        stream=serialize(config, embedded, head.tensors),
        entropy_bytes=bitstream.entropy_bytes(head.tensors),
        psnr_db=np.full(network.geometry.frames, metrics.IDENTICAL_DB),
        parameters=bitstream.value_count(head.tensors),
        steps=0,
        elapsed_s=0.0,
    )
