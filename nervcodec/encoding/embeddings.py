# SPDX-License-Identifier: MIT
"""Reference embeddings of segments, and the semantic heads that store them.

A basis is some kilobytes, however many embeddings there are: a video of several segments stores one for all of them.
Above a base layer a head is known in closed form, so that all embeddings can be made first; they take little memory
(at most two megabytes for a minute of 2 x 4 patches of 384 numbers).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nervcodec.encoding.plan import Plan
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.network.config import NetworkConfig, SemanticConfig, frame_tables
from nervcodec.ranges import FITTED
from nervcodec.semantic.patches import embed_changes, sampled_frames
from nervcodec.tone_mapping import peak_of, to_screen8
from nervcodec.training.pca import CODES, Head, principal_head, project

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


def embedding_budget(stream_bytes: float) -> float:
    """Bytes that embeddings may take beside a stream of ``stream_bytes``."""
    return stream_bytes * SEMANTIC_SHARE / (1 - SEMANTIC_SHARE)


def serialize(config: NetworkConfig, embedded: tuple[int, ...], tensors: Tensors) -> np.ndarray:
    """``(n,)`` uint8, tables of a segment's frames, and its weights; empty if it has none."""
    if not tensors:
        return np.empty(0, np.uint8)
    return bitstream.encode({**frame_tables(config, embedded).tensors(), **tensors})


@dataclass(frozen=True)
class SegmentEmbeddings:
    """Reference embeddings of a segment.

    Attributes:
        numbers: ``(n,)`` int64 of their frames, counted from the segment's first.
        reference: ``(n, patches, D)`` unit vectors, float32, or float16 where those of all segments are kept.
    """

    numbers: np.ndarray
    reference: np.ndarray

    @property
    def embedded(self) -> tuple[int, ...]:
        """The numbers as a tuple."""
        return tuple(self.numbers.tolist())

    @property
    def as_float16(self) -> SegmentEmbeddings:
        """In float16."""
        return SegmentEmbeddings(self.numbers, self.reference.astype(np.float16))


def fitted_frames(plan: Plan, first: int, count: int) -> np.ndarray:
    """``(count,)`` bool: the frames of a segment that are fitted.

    Raises:
        ConfigError: none is.
    """
    split = plan.options.split
    fitted = np.array(split.roles(first, count)) == FITTED if split else np.ones(count, bool)
    if not fitted.any():
        raise ConfigError(f"the split leaves no frame to fit in the segment that starts at frame {first}")
    return fitted


def embed_segment(
    plan: Plan,
    frames: Iterable[Any],
    first: int,
    count: int,
    cuts: tuple[int, ...],
    observer: Observer,
) -> SegmentEmbeddings | None:
    """Embed a segment, of which a few frames are in memory at once; None where there is no encoder.

    Args:
        plan: of the encode.
        frames: ``(H, W, 3)`` uint8 each, or planes where the plan has a base layer. Held-out ones are not embedded.
        first, count: the number of its first frame, and how many there are.
        cuts: first frames of its shots after the first.
        observer: told of each frame.

    Raises:
        ConfigError: no frame to fit.
    """
    fitted = fitted_frames(plan, first, count)
    if plan.encoder is None:
        return None
    rate = float(plan.info.frame_rate) * fitted.mean()
    sampled = set(np.flatnonzero(fitted)[sampled_frames(fitted.sum(), rate, plan.options.semantic_fps)].tolist())

    peak = peak_of(plan.info.light)

    def images() -> Iterator[tuple[int, np.ndarray]]:
        for number, frame in enumerate(frames):
            if number in sampled:
                yield number, frame if plan.planes is None else to_screen8(frame, plan.planes, peak=peak)[0]
            observer.advance()

    observer.stage("Embedding patches", count)
    numbers, vectors = embed_changes(images(), plan.grid, plan.encoder, cuts)
    return SegmentEmbeddings(numbers, vectors)


_SAMPLED = 400  # frames that a basis is made from, at most
_USUAL_BPP = 0.02  # of footage in AV1: embeddings take a share of that where there is no target size


@dataclass(frozen=True)
class EmbeddingBasis:
    """What the embeddings of all segments have in common, as it is stored.

    Attributes:
        head: of embeddings from the whole video.
        grid: rows and columns of patches.
    """

    head: Head
    grid: tuple[int, int]

    @classmethod
    def of(cls, embeddings: Sequence[SegmentEmbeddings], grid: tuple[int, int], limit_bytes: float) -> EmbeddingBasis:
        """The basis for all segments of a video.

        Args:
            embeddings: embeddings of each segment.
            grid: rows and columns of patches.
            limit_bytes: of the basis and all codes together, see :func:`principal_head`.
        """
        frames = sum(len(each.numbers) for each in embeddings)
        step = max(1, -(-frames // _SAMPLED))
        sample = np.concatenate([each.reference for each in embeddings])[::step].astype(np.float32)
        return cls(principal_head(sample, grid, limit_bytes / step), grid)

    @property
    def tensors(self) -> Tensors:
        """What is stored once."""
        return {name: tensor for name, tensor in self.head.tensors.items() if name != CODES}

    @property
    def size_bytes(self) -> int:
        """Of those when they are coded."""
        return bitstream.encode(self.tensors).size

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        stream = torch.from_numpy(bitstream.encode(self.head.tensors).copy())
        return {**vars(self.head), "tensors": stream, "grid": list(self.grid)}

    @classmethod
    def from_state_dict(cls, facts: dict[str, Any]) -> EmbeddingBasis:
        """The inverse of :meth:`state_dict`."""
        tensors = bitstream.read(facts["tensors"].numpy())
        rows, columns = facts["grid"]
        return cls(Head(facts["rank"], tensors, facts["cosine"], facts["size_bytes"]), (rows, columns))


def head_of(
    embeddings: SegmentEmbeddings | None, grid: tuple[int, int], limit_bytes: float, basis: EmbeddingBasis | None = None
) -> SegmentHead:
    """The head for the embeddings of a segment.

    Args:
        embeddings: None or empty for no head.
        grid: rows and columns of patches.
        limit_bytes: see :func:`nervcodec.training.pca.principal_head`; without effect in a basis.
        basis: of all segments, in which only codes are stored; None for one of this segment.
    """
    if embeddings is None or not len(embeddings.numbers):
        return SegmentHead()
    reference = embeddings.reference.astype(np.float32)
    if basis is None:
        own = principal_head(reference, grid, limit_bytes)
        rank, tensors, size_bytes = own.rank, own.tensors, own.size_bytes
    else:
        rank, tensors = basis.head.rank, {CODES: project(basis.head, reference, grid)}
        size_bytes = bitstream.encode(tensors).size
    return SegmentHead(
        SemanticConfig(reference.shape[2], rank=rank, code_frames=embeddings.embedded), tensors, size_bytes
    )


def basis_for(plan: Plan, embeddings: Sequence[SegmentEmbeddings], limit_bytes: float | None = None) -> EmbeddingBasis:
    """The basis for a plan's segments.

    Args:
        plan: of the encode.
        embeddings: embeddings of each segment.
        limit_bytes: of all embeddings; None for a share of the target size, or of what footage takes.
    """
    if limit_bytes is None and plan.target_bytes is not None:
        limit_bytes = SEMANTIC_SHARE * plan.target_bytes
    elif limit_bytes is None:
        pixels = plan.info.frame_count * plan.info.height * plan.info.width
        limit_bytes = embedding_budget(_USUAL_BPP / 8 * pixels)
    return EmbeddingBasis.of(embeddings, plan.patch_grid, limit_bytes)
