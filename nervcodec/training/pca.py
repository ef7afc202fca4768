# SPDX-License-Identifier: MIT
"""The semantic head of a base layer: quantized principal components of the embeddings, without training.

The optimal head of a rank has a closed form: the principal directions and each patch's coordinates in them. The
quantization of both is searched. One step for all coordinates is optimal by reverse water-filling (Cover and Thomas,
Elements of Information Theory, 10.3.3): weak directions fall below it and are dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import QuantizedTensor, quantize_tensor

CODES = "semantic.codes"  # the only per-segment parameter of a head
TARGET_COSINE, MIN_COSINE = 0.92, 0.88  # mean cosine of centred embeddings
MAX_DIRECTIONS = 64
_MIN_GAIN = 0.02  # of a direction, over the strongest
_FINEST, _COARSEST, _FACTOR = 1 / 64, 1.0, 2**0.25  # steps of coordinates, in units of the embeddings' own length
_MEAN_STEP = 1 / 8  # of the video's mean, over the deviation of its numbers


@dataclass(frozen=True)
class Head:
    """A semantic head as it is stored.

    Attributes:
        rank: number of directions.
        tensors: by parameter name in a network.
        cosine: mean over the patches, of centred embeddings before and after quantization.
        size_bytes: of the coded tensors.
    """

    rank: int
    tensors: dict[str, QuantizedTensor | np.ndarray]
    cosine: float
    size_bytes: int


def principal_head(reference: np.ndarray, grid: tuple[int, int], limit_bytes: float) -> Head:
    """The smallest head that reaches the target cosine, or a less accurate one within a size limit.

    Args:
        reference: ``(n, patches, D)`` float32 unit vectors of the frames that get codes.
        grid: rows and columns of patches.
        limit_bytes: size limit; accuracy is reduced for it down to :data:`MIN_COSINE`.
    """
    centre = reference.mean(axis=(0, 1))
    flat = (reference - centre).reshape(-1, reference.shape[2])
    scale = math.sqrt(max(float(np.square(flat).sum(axis=1).mean()), 1e-6))
    coordinates, strengths, directions = np.linalg.svd(flat / scale, full_matrices=False)
    rank = min(MAX_DIRECTIONS, len(strengths))
    components = coordinates[:, :rank] * strengths[:rank], directions[:rank]
    best: Head | None = None
    step = _COARSEST
    while step >= _FINEST:
        head = _quantized(*components, centre, scale, step, (len(reference), *grid))
        if best is not None and best.cosine >= MIN_COSINE and head.size_bytes > limit_bytes:
            break
        best = head
        if head.cosine >= TARGET_COSINE:
            break
        step /= _FACTOR
    assert best is not None
    return best


def project(head: Head, reference: np.ndarray, grid: tuple[int, int]) -> QuantizedTensor:
    """Codes of other embeddings in the basis of a head, quantized with its step.

    Args:
        head: with directions, gain and mean.
        reference: ``(n, patches, D)`` float32 unit vectors.
        grid: rows and columns of patches.
    """
    values, own = bitstream.values(head.tensors), head.tensors[CODES]
    assert isinstance(own, QuantizedTensor)
    basis = values["semantic.directions.weight"] * values["semantic.gain"]  # (D, r), one unit of a code each
    flat = (reference - values["semantic.mean"]).reshape(-1, reference.shape[2])
    coordinates, *_ = np.linalg.lstsq(basis, flat.T, rcond=None)
    codes = coordinates.reshape(head.rank, len(reference), *grid).transpose(1, 0, 2, 3)
    return quantize_tensor(np.ascontiguousarray(codes), own.steps)


def _quantized(
    coordinates: np.ndarray,
    directions: np.ndarray,
    centre: np.ndarray,
    scale: float,
    step: float,
    shape: tuple[int, int, int],
) -> Head:
    """A head whose coordinates, ``(n * patches, r)`` in units of ``scale``, are quantized with a step."""
    counts = np.rint(coordinates / step)
    used = np.flatnonzero(np.abs(counts).max(axis=0, initial=0) > 0)
    used = used if len(used) else np.arange(1)
    strength = np.sqrt(np.square(coordinates[:, used]).sum(axis=0))
    small = np.clip(strength / max(strength[0], 1e-6), _MIN_GAIN, 1.0)
    gain = (1 / small).astype(np.float16).astype(np.float32)  # as it is stored
    frames, rows, columns = shape
    codes = coordinates[:, used].reshape(frames, rows * columns, len(used)).transpose(0, 2, 1)
    # Directions are stored scaled by their strength, so that one step suits all; it balances the gain of a bit more for
    # directions with that of a bit more for coordinates.
    direction_step = step * scale / max(float(strength[0]), 1e-6)
    tensors: dict[str, QuantizedTensor | np.ndarray] = {
        CODES: quantize_tensor(codes.reshape(frames, len(used), rows, columns), np.array([step])),
        "semantic.gain": gain,
        "semantic.directions.weight": quantize_tensor(directions[used].T * (scale / gain), np.array([direction_step])),
        "semantic.mean": quantize_tensor(centre, np.array([_MEAN_STEP / math.sqrt(len(centre))])),
    }
    values = bitstream.values(tensors)
    again = values[CODES].reshape(frames, len(used), -1).transpose(0, 2, 1).reshape(-1, len(used))
    decoded = (again * gain) @ values["semantic.directions.weight"].T / scale
    original = coordinates @ directions
    norms = np.linalg.norm(decoded, axis=1) * np.linalg.norm(original, axis=1)
    cosine = float(((decoded * original).sum(axis=1) / np.maximum(norms, 1e-9)).mean())
    return Head(len(used), tensors, cosine, bitstream.encode(tensors).size)
