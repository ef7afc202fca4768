# SPDX-License-Identifier: MIT
"""The networks of an open container: read and built when they are needed, let go of at the end."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nervcodec.device import Hardware
from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
from nervcodec.formats.header import Segment
from nervcodec.network.build import SEMANTIC, check_shapes, from_arrays, head_from_arrays, stands_alone
from nervcodec.network.config import network_from_json
from nervcodec.network.field import Field
from nervcodec.network.heads import SemanticHead

OPEN_SEGMENTS = 2  # networks kept ready


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


class Networks:
    """Networks of a container by the number of their segment.

    Args:
        opened: a container.
        hardware: device and precision.

    Attributes:
        field: a function from a segment's number to its network.
        head: ... to its semantic head; the rest of the network is not decoded where that stands alone.

    Raises:
        ContainerError: its networks do not fit its video; the functions raise it where tensors are damaged or do not
            fit their network.
    """

    def __init__(self, opened: Container, hardware: Hardware):
        self.path, self.header, self.hardware = opened.path, opened.header, hardware
        self._container: Container | None = opened
        self.field = lru_cache(maxsize=OPEN_SEGMENTS)(self._load)
        self.head = lru_cache(maxsize=OPEN_SEGMENTS)(self._load_head)
        for segment in self.header.segments:
            self._check(segment)

    def close(self) -> None:
        """Let go of the file and of what was made of it."""
        if self._container is not None:
            self._container.close()
        self._container = None
        self.field.cache_clear()
        self.head.cache_clear()

    @property
    def closed(self) -> bool:
        """Whether nothing is left."""
        return self._container is None

    def contents(self) -> Container:
        """The open file.

        Raises:
            ContainerError: it was let go of.
        """
        if self._container is None:
            raise ContainerError(f"{self.path}: is closed; open it again with nervcodec.open")
        return self._container

    def _check(self, segment: Segment) -> None:
        video = self.header.video
        try:
            config = network_from_json(segment.network)
            geometry = config.geometry
            if (geometry.frames, geometry.height, geometry.width) != (segment.frame_count, video.height, video.width):
                raise ContainerError("the network's geometry is not the video's")
            if (geometry.patch_rows, geometry.patch_columns) != self.header.patch_grid:
                raise ContainerError("the network's patch grid is not the video's")
            own, stated = ((None if s is None else s.dimension) for s in (config.semantic, self.header.semantic))
            if own != stated:
                raise ContainerError("the network's semantic head is not what the header says")
        except ContainerError as error:
            raise ContainerError(f"{self.path}: {error}") from None

    def _weights(self, segment: Segment, beginning: str = "") -> dict[str, np.ndarray]:
        """A segment's weights, decoded once their shapes are known to be those of its network."""
        stored = self.contents().network(segment.prefix)
        shapes = {name: shape for name, (shape, _) in stored.table().items()}
        try:
            check_shapes(network_from_json(segment.network), shapes)
        except ContainerError as error:
            raise ContainerError(f"{self.path}: {error}") from None
        return stored.decode(beginning)

    def _load(self, index: int) -> Field:
        segment = self.header.segments[index]
        return from_arrays(network_from_json(segment.network), self._weights(segment)).to(self.hardware.device)

    def _load_head(self, index: int) -> SemanticHead:
        segment = self.header.segments[index]
        config = network_from_json(segment.network)
        if not stands_alone(config):
            head = self.field(index).semantic
            assert head is not None
            return head
        return head_from_arrays(config, self._weights(segment, SEMANTIC)).to(self.hardware.device)
