# SPDX-License-Identifier: MIT
"""Patch embeddings of a container, without a pixel being decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nervcodec.decoding.networks import Networks
from nervcodec.network.inputs import Inputs

BATCH = 32  # frames at once


class EmbeddingParts(NamedTuple):
    """Embeddings of a segment: coefficients x basis + mean, interpolated in time and then brought to length 1.

    Attributes:
        coefficients: ``(e, rows * columns, r)`` float32 of the entries that were stored.
        basis, mean: ``(r, D)`` and ``(D,)`` float32.
        before, after: ``(n,)`` int64, the entries on both sides of each frame.
        weight: ``(n,)`` float32, of the entry after it.
    """

    coefficients: np.ndarray
    basis: np.ndarray
    mean: np.ndarray
    before: np.ndarray
    after: np.ndarray
    weight: np.ndarray


def embeddings(networks: Networks, runs: Iterable[tuple[int, list[int]]]) -> Iterator[np.ndarray]:
    """Embeddings of runs of frames, ``(n, rows * columns, D)`` float32 unit vectors each.

    Args:
        networks: of the container.
        runs: segment, and frames counted from its first.
    """
    for segment, local in runs:
        head = networks.head(segment)
        with torch.inference_mode(), networks.hardware.autocast():
            centred = head.directions(_coefficients(networks, segment, torch.tensor(local)))
            yield head.embeddings(centred).float().cpu().numpy()


def parts(networks: Networks) -> Iterator[EmbeddingParts]:
    """Embeddings of all frames, segment by segment, before they are put together."""
    for index, segment in enumerate(networks.header.segments):
        head = networks.head(index)
        with torch.inference_mode(), networks.hardware.autocast():
            if head.code_timeline is not None:
                coefficients, places = head.entries(), head.code_timeline.places
            else:
                frames = torch.arange(segment.frame_count)
                batches = [_coefficients(networks, index, local).float() for local in frames.split(BATCH)]
                coefficients, places = torch.cat(batches), (frames, frames, torch.zeros(len(frames)))
            tensors = (coefficients, head.directions.weight.T, head.mean)
            arrays = [tensor.float().cpu().numpy() for tensor in tensors]
        yield EmbeddingParts(*arrays, *(place.numpy() for place in places))


def _coefficients(networks: Networks, segment: int, frames: Tensor) -> Tensor:
    """Coordinates in the semantic head's basis, ``(n, patches, rank)``."""
    head = networks.head(segment)
    if head.needs_features:
        return networks.field(segment).coefficients(Inputs(frames))
    return head.coefficients(None, frames.to(networks.hardware.device))
