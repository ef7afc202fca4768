# SPDX-License-Identifier: MIT
"""Networks of a container as stored: checked configurations, weights by name, and embeddings from codes. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nervcodec.coordinates import interpolation_weights
from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
from nervcodec.formats.header import Header, Segment, SemanticHeader
from nervcodec.formats.weights import StoredWeights
from nervcodec.network.config import HeadOnlyConfig, NetworkConfig, PatchConfig, network_from_json, with_frame_tables
from nervcodec.network.shapes import SEMANTIC, check_shapes, check_sharing, is_self_contained


def require_embeddings(path: Path, header: Header) -> SemanticHeader:
    """Encoder and size of a container's embeddings.

    Raises:
        ContainerError: it has none.
    """
    if header.semantic is None:
        raise ContainerError(f"{path}: has no embeddings (it was encoded with --encoder none)")
    return header.semantic


class StoredNetworks:
    """Stored networks of an open container, by segment number.

    Args:
        opened: a container.

    Attributes:
        path, header: of the container.
        configs: of each segment, without frame tables.

    Raises:
        ContainerError: they do not fit its video.
    """

    def __init__(self, opened: Container):
        self.path, self.header, self._opened = opened.path, opened.header, opened
        self._shared: StoredWeights | None = None  # once read
        self._shared_arrays: dict[str, dict[str, np.ndarray]] = {}  # shared weights, by prefix of their names
        self.configs = [self._checked(segment) for segment in self.header.segments]

    def read(self, index: int, prefix: str = "") -> tuple[NetworkConfig, dict[str, np.ndarray]]:
        """The complete configuration of a segment's network, and its weights whose names begin with ``prefix``, shared
        ones included. Decoded only after the shapes of all weights were checked.

        Raises:
            ContainerError: they are damaged, do not fit their network, or the container is closed.
        """
        config, own, shared = self.check(index)
        if shared is not None and prefix not in self._shared_arrays:
            self._shared_arrays[prefix] = shared.decode(prefix)
        return config, own.decode(prefix) | self._shared_arrays.get(prefix, {})

    def check(self, index: int) -> tuple[NetworkConfig, StoredWeights, StoredWeights | None]:
        """The complete configuration of a segment's network, its own weights and shared ones, with checked shapes.

        Raises:
            ContainerError: as :meth:`read`; values are not decoded.
        """
        opened, segment, config = self._opened, self.header.segments[index], self.configs[index]
        own, shared = opened.network(segment.prefix), self._shared or opened.shared_weights()
        self._shared = shared
        tables = own.frame_tables(segment.frame_count)
        shapes = own.table(), {} if shared is None else shared.table()
        try:
            config = with_frame_tables(config, tables)
            if shared is not None:
                check_sharing(config, *shapes)
            check_shapes(config, {name: shape for table in shapes for name, (shape, _) in table.items()})
        except ContainerError as error:
            raise ContainerError(f"{self.path}: {error}") from None
        return config, own, shared

    def _checked(self, segment: Segment) -> NetworkConfig:
        """The configuration of a segment's network, checked against the video."""
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
    """Embeddings of a segment: coefficients x basis + mean, interpolated in time, then normalized.

    Attributes:
        coefficients: ``(e, rows * columns, r)`` float32 of the stored entries.
        basis, mean: ``(r, D)`` and ``(D,)`` float32.
        before, after: ``(n,)`` int64, entries before and after each frame.
        weight: ``(n,)`` float32, of the later entry.
        cuts: first frames of the shots after the first.
    """

    coefficients: np.ndarray
    basis: np.ndarray
    mean: np.ndarray
    before: np.ndarray
    after: np.ndarray
    weight: np.ndarray
    cuts: tuple[int, ...] = ()


def all_have_codes(networks: StoredNetworks) -> bool:
    """Whether :func:`code_parts` applies: embeddings of every segment depend on its semantic head only."""
    return all(map(is_self_contained, networks.configs))


def code_parts(networks: StoredNetworks) -> Iterator[EmbeddingParts]:
    """Embeddings of all frames, segment by segment, without running a network.

    Raises:
        ContainerError: a head is damaged or does not fit its network.
    """
    for index in range(len(networks.configs)):
        config, arrays = networks.read(index, SEMANTIC)
        assert not isinstance(config, PatchConfig)
        assert config.semantic is not None
        codes, gain, mean = (arrays[f"{SEMANTIC}{name}"] for name in ("codes", "gain", "mean"))
        coefficients = codes.reshape(*codes.shape[:2], -1).swapaxes(1, 2) * gain
        weights = interpolation_weights(config.semantic.code_frames, config.geometry.frames, config.cuts)
        yield EmbeddingParts(coefficients, arrays[f"{SEMANTIC}directions.weight"].T, mean, *weights, config.cuts)
