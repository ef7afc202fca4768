# SPDX-License-Identifier: MIT
"""The semantic head of a base layer's network: principal directions of the embeddings, rounded. No loop fits it.

Nothing but the embeddings has a part in it, so that the best head of a rank is known in closed form: the principal
directions and each patch's coordinates in them. What is left to choose is how finely both are rounded. One step for all
coordinates is what reverse water-filling asks for (Cover and Thomas, Elements of Information Theory, 10.3.3): weak
directions fall below it and are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import RoundedTensor, round_to_steps

CODES = "semantic.codes"  # the one parameter of a head that is a segment's own
ENOUGH, LEAST = 0.92, 0.88  # mean cosine of centred embeddings: what is aimed at, and where squeezing ends
MOST_DIRECTIONS = 64
_LEAST_GAIN = 0.02  # of a direction, over the strongest
_FINEST, _COARSEST, _FACTOR = 1 / 64, 1.0, 2**0.25  # steps of coordinates, in units of the embeddings' own length
_MEAN_STEP = 1 / 8  # of the video's mean, over the deviation of its numbers


@dataclass(frozen=True)
class Head:
    """A semantic head as it is stored.

    Attributes:
        rank: directions that are left.
        tensors: by the names that parameters have in a network.
        cosine: mean over the patches, of centred embeddings with what they were.
        size_bytes: of the tensors when they are coded.
    """

    rank: int
    tensors: dict[str, RoundedTensor | np.ndarray]
    cosine: float
    size_bytes: int


def principal_head(reference: np.ndarray, grid: tuple[int, int], limit_bytes: float) -> Head:
    """The smallest head that agrees with some embeddings well enough, or better one that fits.

    Args:
        reference: ``(n, patches, D)`` float32 unit vectors of the frames that get codes.
        grid: rows and columns of patches.
        limit_bytes: beyond which agreement gives way, down to :data:`LEAST`.
    """
    centre = reference.mean(axis=(0, 1))
    flat = (reference - centre).reshape(-1, reference.shape[2])
    scale = math.sqrt(max(float(np.square(flat).sum(axis=1).mean()), 1e-6))
    coordinates, strengths, directions = np.linalg.svd(flat / scale, full_matrices=False)
    rank = min(MOST_DIRECTIONS, len(strengths))
    parts = coordinates[:, :rank] * strengths[:rank], directions[:rank]
    best: Head | None = None
    step = _COARSEST
    while step >= _FINEST:
        head = _rounded(*parts, centre, scale, step, (len(reference), *grid))
        if best is not None and best.cosine >= LEAST and head.size_bytes > limit_bytes:
            break
        best = head
        if head.cosine >= ENOUGH:
            break
        step /= _FACTOR
    assert best is not None
    return best


def codes_in(head: Head, reference: np.ndarray, grid: tuple[int, int]) -> RoundedTensor:
    """Codes of other embeddings in the basis of a head, as finely rounded as its own.

    Args:
        head: whose directions, gain and mean are used.
        reference: ``(n, patches, D)`` float32 unit vectors.
        grid: rows and columns of patches.
    """
    values, own = bitstream.values(head.tensors), head.tensors[CODES]
    assert isinstance(own, RoundedTensor)
    basis = values["semantic.directions.weight"] * values["semantic.gain"]  # (D, r), one unit of a code each
    flat = (reference - values["semantic.mean"]).reshape(-1, reference.shape[2])
    coordinates, *_ = np.linalg.lstsq(basis, flat.T, rcond=None)
    codes = coordinates.reshape(head.rank, len(reference), *grid).transpose(1, 0, 2, 3)
    return round_to_steps(np.ascontiguousarray(codes), own.steps)


def _rounded(
    coordinates: np.ndarray,
    directions: np.ndarray,
    centre: np.ndarray,
    scale: float,
    step: float,
    shape: tuple[int, int, int],
) -> Head:
    """A head whose coordinates, ``(n * patches, r)`` in units of ``scale``, are rounded to a step."""
    counts = np.rint(coordinates / step)
    used = np.flatnonzero(np.abs(counts).max(axis=0, initial=0) > 0)
    used = used if len(used) else np.arange(1)
    strength = np.sqrt(np.square(coordinates[:, used]).sum(axis=0))
    small = np.clip(strength / max(strength[0], 1e-6), _LEAST_GAIN, 1.0)
    gain = (1 / small).astype(np.float16).astype(np.float32)  # as it is stored
    frames, rows, columns = shape
    codes = coordinates[:, used].reshape(frames, rows * columns, len(used)).transpose(0, 2, 1)
    # Directions are stored as long as they matter, so that an error of one step in each matters alike; the step is the
    # one at which a bit more for them and a bit more for coordinates help alike.
    own_step = step * scale / max(float(strength[0]), 1e-6)
    tensors: dict[str, RoundedTensor | np.ndarray] = {
        CODES: round_to_steps(codes.reshape(frames, len(used), rows, columns), np.array([step])),
        "semantic.gain": gain,
        "semantic.directions.weight": round_to_steps(directions[used].T * (scale / gain), np.array([own_step])),
        "semantic.mean": round_to_steps(centre, np.array([_MEAN_STEP / math.sqrt(len(centre))])),
    }
    values = bitstream.values(tensors)
    again = values[CODES].reshape(frames, len(used), -1).transpose(0, 2, 1).reshape(-1, len(used))
    found = (again * gain) @ values["semantic.directions.weight"].T / scale
    wanted = coordinates @ directions
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = float(((found * wanted).sum(axis=1) / np.maximum(norms, 1e-9)).mean())
    return Head(len(used), tensors, cosine, bitstream.encode(tensors).size)
