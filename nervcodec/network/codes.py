# SPDX-License-Identifier: MIT
"""Embeddings of semantic heads that have codes, from their stored numbers alone: no network runs, and no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nervcodec.network.config import PatchConfig
from nervcodec.network.places import at
from nervcodec.network.shapes import SEMANTIC, stands_alone
from nervcodec.network.stored import StoredNetworks


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


def all_have_codes(networks: StoredNetworks) -> bool:
    """Whether :func:`code_parts` can be asked: no segment's embeddings depend on more than its head."""
    return all(map(stands_alone, networks.configs))


def code_parts(networks: StoredNetworks) -> Iterator[EmbeddingParts]:
    """Embeddings of all frames, segment by segment, as :func:`nervcodec.decoding.embeddings.parts` gives them.

    Raises:
        ContainerError: a head is damaged or does not fit its network.
    """
    for index in range(len(networks.configs)):
        config, arrays = networks.read(index, SEMANTIC)
        assert not isinstance(config, PatchConfig)
        assert config.semantic is not None
        codes, gain, mean = (arrays[f"{SEMANTIC}{name}"] for name in ("codes", "gain", "mean"))
        coefficients = codes.reshape(*codes.shape[:2], -1).swapaxes(1, 2) * gain
        places = at(config.semantic.code_frames, config.geometry.frames, config.cuts)
        yield EmbeddingParts(coefficients, arrays[f"{SEMANTIC}directions.weight"].T, mean, *places)
