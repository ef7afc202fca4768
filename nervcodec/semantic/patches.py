# SPDX-License-Identifier: MIT
"""Reference embeddings of the patches of frames, cached on disk.

Where the camera stands still, most patches of most frames look as before. So a patch is embedded only when a cell of it
has changed; until then its last embedding holds.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nervcodec.coordinates import PatchGrid
from nervcodec.semantic import cache
from nervcodec.semantic.encoder import SemanticEncoder

BATCH = 32  # patches
_CELLS = 8  # across and down a patch, whose mean colours are compared
_MAX_CHANGED = 0.75  # of the patches of a frame: if more have changed, all are embedded
CHANGE_THRESHOLD = 5.0  # of 255: a patch has changed if the mean of a cell differs by more (benchmarks/NOTES.md)


def sampled_frames(count: int, frame_rate: float, semantic_fps: float) -> np.ndarray:
    """Numbers of the frames to embed: evenly spaced, at most ``semantic_fps`` per second, at least one.

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
    all_patches = np.ones(grid.rows * grid.columns, bool)
    return _embed((ChangedFrame(number, frame, all_patches) for number, frame in enumerate(frames)), grid, encoder)[1]


def embed_changes(
    frames: Iterable[tuple[int, np.ndarray]], grid: PatchGrid, encoder: SemanticEncoder, cuts: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Embed the patches that change, see :func:`find_changes`.

    Args:
        frames: numbers, ascending, and ``(H, W, 3)`` uint8. A few are in memory at once.
        grid: the patch grid.
        encoder: the reference.
        cuts: first frames of the shots after the first.

    Returns:
        ``(n,)`` int64 numbers of the embedded frames, and ``(n, patches, D)`` float32 unit vectors.
    """
    return _embed(find_changes(frames, grid, cuts), grid, encoder)


def _embed(frames: Iterator[ChangedFrame], grid: PatchGrid, encoder: SemanticEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Embed frames in batches, which are cached by their pixels and the name of the encoder."""
    boxes = grid.boxes()
    numbers: list[int] = []
    latest = np.zeros((len(boxes), encoder.dimension), np.float32)
    embeddings: list[np.ndarray] = []
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
            embeddings.append(latest.copy())
    shape = len(embeddings), len(boxes), encoder.dimension
    return np.array(numbers, np.int64), np.array(embeddings, np.float32).reshape(shape)


def _cached(images: list[np.ndarray], encoder: SemanticEncoder) -> np.ndarray:
    """``(n, D)`` vectors of images, from the cache if it has them."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    name = cache.key("patch embeddings 2", digest.digest(), repr([i.shape for i in images]), encoder.name)
    vectors = cache.load("embeddings", name)
    if vectors is None or vectors.shape != (len(images), encoder.dimension) or vectors.dtype != np.float32:
        vectors = encoder.embed_images(images)
        cache.store("embeddings", name, vectors)
    return vectors


class ChangedFrame(NamedTuple):
    """A frame that is embedded.

    Attributes:
        number: of the frame.
        image: ``(H, W, 3)`` uint8.
        changed: ``(patches,)`` bool; the other patches keep the previous embedding.
    """

    number: int
    image: np.ndarray
    changed: np.ndarray


def find_changes(
    frames: Iterable[tuple[int, np.ndarray]], grid: PatchGrid, cuts: Sequence[int] = ()
) -> Iterator[ChangedFrame]:
    """The frames with a patch that has changed since it was embedded. Two images are in memory.

    Embeddings are interpolated between embedded frames. So the last frame before a change within a shot is yielded as
    well; else the embedding would begin to change long before the picture does.

    Args:
        frames: ascending numbers and ``(H, W, 3)`` uint8 of the frames that would be embedded if all had changed.
        grid: the patch grid.
        cuts: first frames of the shots after the first, ascending.
    """
    embedded = np.full((grid.rows * grid.columns, _CELLS * _CELLS * 3), np.inf, np.float32)
    unchanged: tuple[int, np.ndarray] | None = None
    for number, image in frames:
        colours = _cell_means(image, grid)
        changed = np.abs(colours - embedded).max(axis=1) > CHANGE_THRESHOLD
        if not changed.any():
            unchanged = number, image
            continue
        if unchanged is not None and not any(unchanged[0] < cut <= number for cut in cuts):
            yield ChangedFrame(*unchanged, np.zeros(len(embedded), bool))
        unchanged = None
        changed |= changed.mean() > _MAX_CHANGED
        embedded[changed] = colours[changed]
        yield ChangedFrame(number, image, changed)


def _cell_means(frame: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Mean colours of the cells of each patch, ``(patches, cells * 3)`` float32."""
    means = np.zeros((len(grid.boxes()), _CELLS * _CELLS * 3), np.float32)
    for row, (x, y, width, height) in zip(means, grid.boxes(), strict=True):
        down, across = min(_CELLS, height), min(_CELLS, width)
        # Cells have equal sizes; a remainder of a few pixels on the right and below is ignored.
        patch = frame[y : y + height // down * down, x : x + width // across * across]
        cells = patch.reshape(down, height // down, across, width // across, 3).mean(axis=(1, 3), dtype=np.float32)
        row[: cells.size] = cells.ravel()
    return means
