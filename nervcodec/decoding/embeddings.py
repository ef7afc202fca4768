# SPDX-License-Identifier: MIT
"""Patch embeddings of a container, without a pixel being decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from nervcodec.decoding.networks import Networks
from nervcodec.decoding.runs import runs
from nervcodec.network.field import Inputs
from nervcodec.network.stored import EmbeddingParts

BATCH = 32  # frames at once


def embeddings(networks: Networks, numbers: Iterable[int], starts: Sequence[int]) -> Iterator[np.ndarray]:
    """Embeddings of frames, a few at once, ``(n, rows * columns, D)`` float32 unit vectors each.

    Args:
        networks: of the container.
        numbers: of the frames, from 0, in any order.
        starts: first frame of each segment.
    """
    for segment, local in runs(numbers, starts, BATCH):
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
