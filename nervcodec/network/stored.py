# SPDX-License-Identifier: MIT
"""Networks of a container as stored: checked configurations, weights by name, and embeddings from codes. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nervcodec.coordinates import at
from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
from nervcodec.formats.header import Header, Segment, SemanticFacts
from nervcodec.formats.weights import StoredWeights
from nervcodec.network.config import HeadOnlyConfig, NetworkConfig, PatchConfig, completed, network_from_json
from nervcodec.network.shapes import SEMANTIC, check_owners, check_shapes, stands_alone


def require_embeddings(path: Path, header: Header) -> SemanticFacts:
    """Encoder and size of a container's embeddings.

    Raises:
        ContainerError: it has none.
    """
    if header.semantic is None:
        raise ContainerError(f"{path}: has no embeddings (it was encoded with --encoder none)")
    return header.semantic


class StoredNetworks:
    """Networks of an open container, by the number of their segment.

    Args:
        opened: a container.

    Attributes:
        path, header: of the container.
        configs: of each segment, without what is said of single frames.

    Raises:
        ContainerError: they do not fit its video.
    """

    def __init__(self, opened: Container):
        self.path, self.header, self._opened = opened.path, opened.header, opened
        self._shared: StoredWeights | None = None  # what all segments share, once it was read
        self._decoded: dict[str, dict[str, np.ndarray]] = {}  # and decoded, by the beginning of names
        self.configs = [self._checked(segment) for segment in self.header.segments]

    def read(self, index: int, beginning: str = "") -> tuple[NetworkConfig, dict[str, np.ndarray]]:
        """The whole configuration of a segment's network, and those of its weights, its own and shared ones, whose
        names begin so: decoded once the shapes of all are known to be right.

        Raises:
            ContainerError: they are damaged, do not fit their network, or the container is closed.
        """
        config, own, shared = self.check(index)
        if shared is not None and beginning not in self._decoded:
            self._decoded[beginning] = shared.decode(beginning)
        return config, own.decode(beginning) | self._decoded.get(beginning, {})

    def check(self, index: int) -> tuple[NetworkConfig, StoredWeights, StoredWeights | None]:
        """The whole configuration of a segment's network, its own weights and shared ones: the shapes of all fit.

        Raises:
            ContainerError: as :meth:`read`; values are not looked at.
        """
        opened, segment, config = self._opened, self.header.segments[index], self.configs[index]
        own, shared = opened.network(segment.prefix), self._shared or opened.shared_weights()
        self._shared = shared
        tables = own.frame_tables(segment.frame_count)
        stored = own.table(), {} if shared is None else shared.table()
        try:
            config = completed(config, tables)
            if shared is not None:
                check_owners(config, *stored)
            check_shapes(config, {name: shape for side in stored for name, (shape, _) in side.items()})
        except ContainerError as error:
            raise ContainerError(f"{self.path}: {error}") from None
        return config, own, shared

    def _checked(self, segment: Segment) -> NetworkConfig:
        """The configuration of a segment's network, once it fits the video."""
        video = self.header.video
        try:
            config = network_from_json(segment.network)
            geometry = config.geometry
            if (geometry.frames, geometry.height, geometry.width) != (segment.frame_count, video.height, video.width):
                raise ContainerError("the network's geometry is not the video's")
            if (geometry.patch_rows, geometry.patch_columns) != self.header.patch_grid:
                raise ContainerError("the network's patch grid is not the video's")
            if isinstance(config, HeadOnlyConfig) != (self.header.base is not None):
                raise ContainerError("the network and the base layer do not go together")
            own, stated = ((None if s is None else s.dimension) for s in (config.semantic, self.header.semantic))
            if own != stated:
                raise ContainerError("the network's semantic head is not what the header says")
            return config
        except ContainerError as error:
            raise ContainerError(f"{self.path}: {error}") from None


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
    """Embeddings of all frames, segment by segment, as :func:`nervcodec.decoding.rendering.parts` gives them.

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
