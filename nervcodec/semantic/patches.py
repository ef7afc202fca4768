# SPDX-License-Identifier: MIT
"""Reference embeddings of the patches of frames, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from nervcodec.coordinates import PatchGrid
from nervcodec.semantic import cache
from nervcodec.semantic.changes import ChangedFrame, find_changes
from nervcodec.semantic.encoder import SemanticEncoder

BATCH = 32


def sampled_frames(count: int, frame_rate: float, semantic_fps: float) -> np.ndarray:
    """Numbers of the frames that get embeddings: evenly spaced, ``semantic_fps`` a second at most, at least one.

    Returns:
        ``(n,)`` int64, ascending, from 0.
    """
    step = max(1.0, frame_rate / semantic_fps)
    return np.unique(np.arange(0, count, step).astype(np.int64))


def embed_patches(frames: Iterable[np.ndarray], grid: PatchGrid, encoder: SemanticEncoder) -> np.ndarray:
    """Embed every patch of every frame.

    Args:
        frames: ``(H, W, 3)`` uint8 each.
        grid: the patch grid.
        encoder: the reference.

    Returns:
        ``(n, patches, D)`` float32 unit vectors.
    """
    whole = np.ones(grid.rows * grid.columns, bool)
    return _embed((ChangedFrame(number, frame, whole) for number, frame in enumerate(frames)), grid, encoder)[1]


def embed_changes(
    frames: Iterable[tuple[int, np.ndarray]], grid: PatchGrid, encoder: SemanticEncoder, cuts: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Embed the patches of frames that change, see :func:`nervcodec.semantic.changes.find_changes`.

    Args:
        frames: numbers, ascending, and ``(H, W, 3)`` uint8. A few are in memory at once.
        grid: the patch grid.
        encoder: the reference.
        cuts: first frames of the shots after the first.

    Returns:
        ``(n,)`` int64 numbers of the frames that get embeddings, and ``(n, patches, D)`` float32 unit vectors.
    """
    return _embed(find_changes(frames, grid, cuts), grid, encoder)


def _embed(frames: Iterator[ChangedFrame], grid: PatchGrid, encoder: SemanticEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Embed frames in batches, each of which is cached by its pixels and the name of the encoder."""
    boxes = grid.boxes()
    numbers: list[int] = []
    latest = np.zeros((len(boxes), encoder.dimension), np.float32)
    result: list[np.ndarray] = []
    while batch := list(itertools.islice(frames, max(1, BATCH // len(boxes)))):
        images = [
            frame.image[y : y + height, x : x + width]
            for frame in batch
            for changed, (x, y, width, height) in zip(frame.changed, boxes, strict=True)
            if changed
        ]
        vectors = iter(_cached(images, encoder))
        for number, _, changed in batch:
            for patch in np.flatnonzero(changed):
                latest[patch] = next(vectors)
            numbers.append(number)
            result.append(latest.copy())
    shape = len(result), len(boxes), encoder.dimension
    return np.array(numbers, np.int64), np.array(result, np.float32).reshape(shape)


def _cached(images: list[np.ndarray], encoder: SemanticEncoder) -> np.ndarray:
    """``(n, D)`` vectors of images, from the cache where they are there."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    name = cache.key("patch embeddings 2", digest.digest(), repr([i.shape for i in images]), encoder.name)
    vectors = cache.load("embeddings", name)
    if vectors is None or vectors.shape != (len(images), encoder.dimension) or vectors.dtype != np.float32:
        vectors = encoder.embed_images(images)
        cache.store("embeddings", name, vectors)
    return vectors
