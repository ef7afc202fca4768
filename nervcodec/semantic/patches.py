# SPDX-License-Identifier: MIT
"""Reference embeddings of the patches of frames, computed once and kept on disk."""

from __future__ import annotations

import hashlib

import numpy as np

from nervcodec.coordinates import PatchGrid
from nervcodec.events import Observer
from nervcodec.semantic import cache
from nervcodec.semantic.encoder import SemanticEncoder

BATCH = 32


def sampled_frames(count: int, frame_rate: float, semantic_fps: float) -> np.ndarray:
    """Numbers of the frames that get embeddings: evenly spaced, ``semantic_fps`` a second at most, at least one.

    Returns:
        ``(n,)`` int64, ascending, from 0.
    """
    step = max(1.0, frame_rate / semantic_fps)
    return np.unique(np.arange(0, count, step).astype(np.int64))


def embed_patches(
    frames: np.ndarray,
    grid: PatchGrid,
    encoder: SemanticEncoder,
    observer: Observer,
    anew: np.ndarray | None = None,
) -> np.ndarray:
    """Embed every patch of every frame, or those that changed.

    The result is cached by the pixels themselves, the patch grid and the encoder's name.

    Args:
        frames: ``(n, H, W, 3)`` uint8.
        grid: the patch grid.
        encoder: the reference.
        observer: told of each patch.
        anew: ``(n, rows * columns)`` bool, of the first frame all: other patches have the embedding that they have in
            the frame before; None for all.

    Returns:
        ``(n, rows * columns, D)`` float32 unit vectors.
    """
    boxes = grid.boxes()
    shape = (len(frames), len(boxes), encoder.dimension)
    pixels = hashlib.sha256(np.ascontiguousarray(frames).data).digest()
    wanted = np.ones(shape[:2], bool) if anew is None else anew
    chosen = b"" if wanted.all() else np.packbits(wanted).tobytes()
    name = cache.key(
        "patch embeddings 1", pixels, repr((frames.shape, grid)), encoder.name, *([chosen] if chosen else [])
    )
    observer.stage("Embedding patches", int(wanted.sum()))
    cached = cache.load("embeddings", name)
    if cached is not None and cached.shape == shape and cached.dtype == np.float32:
        observer.advance(int(wanted.sum()))
        return cached
    result = np.empty(shape, np.float32)
    places = np.argwhere(wanted)
    for start in range(0, len(places), BATCH):
        batch = places[start : start + BATCH]
        images = []
        for frame, patch in batch:
            x, y, width, height = boxes[patch]
            images.append(frames[frame, y : y + height, x : x + width])
        result[batch[:, 0], batch[:, 1]] = encoder.embed_images(images)
        observer.advance(len(batch))
    for frame in range(1, len(frames)):
        result[frame, ~wanted[frame]] = result[frame - 1, ~wanted[frame]]
    cache.store("embeddings", name, result)
    return result
