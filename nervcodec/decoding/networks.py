# SPDX-License-Identifier: MIT
"""The networks of an open container: read and built when they are needed, let go of at the end.

What builds one imports torch, and nothing else does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.decoding.pool import Pool
from nervcodec.device import Hardware
from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
from nervcodec.formats.header import BaseFacts, Segment
from nervcodec.formats.kinds import COPY
from nervcodec.formats.weights import StoredWeights
from nervcodec.network.config import NetworkConfig, RefinerConfig, completed, network_from_json
from nervcodec.network.ownership import check_owners
from nervcodec.network.shapes import SEMANTIC, check_shapes, parameter_count, stands_alone

if TYPE_CHECKING:
    from nervcodec.network.field import Field
    from nervcodec.network.heads import SemanticHead


class Networks:
    """Networks of a container by the number of their segment.

    Args:
        opened: a container.
        hardware: gives device and precision; it is asked when a network is first built.
        pool: keeps them.

    Raises:
        ContainerError: its networks do not fit its video; the functions raise it where tensors are damaged or do not
            fit their network.
    """

    def __init__(self, opened: Container, hardware: Callable[[], Hardware], pool: Pool):
        self.path, self.header, self.pool = opened.path, opened.header, pool
        self._hardware = hardware
        self._container: Container | None = opened
        self._owner = object()  # of its networks in the pool
        self._let_go = weakref.finalize(self, pool.drop, self._owner)
        self._shared: StoredWeights | None = None  # what all segments share, once it was read
        self._decoded: dict[str, dict[str, np.ndarray]] = {}  # and decoded, by the beginning of names
        self._configs = [self._checked(segment) for segment in self.header.segments]
        self._looked_at: set[int] = set()  # segments whose weights were looked at, and not decoded

    @property
    def hardware(self) -> Hardware:
        """Device and precision."""
        return self._hardware()

    def field(self, index: int) -> Field:
        """The network of a segment."""
        return self.pool.get(self._owner, index, lambda: self._load(index))

    @property
    def change_base(self) -> bool:
        """Whether any of them changes the frames of a base layer."""
        return any(isinstance(config, RefinerConfig) and config.changes_base for config in self._configs)

    def changes_base(self, index: int) -> bool:
        """Whether the network of a segment changes the frames of the base layer; where it does not, nothing is built.

        Raises:
            ContainerError: what is stored of it is damaged or does not fit, although no pixel needs it.
        """
        config = self._configs[index]
        if isinstance(config, RefinerConfig) and config.changes_base:
            return True
        if index not in self._looked_at:
            self._stored(index)
            self._looked_at.add(index)
        return False

    def head(self, index: int) -> SemanticHead:
        """The semantic head of a segment; the rest of the network is not decoded where that stands alone."""
        if not stands_alone(self._configs[index]):
            head = self.field(index).semantic
            assert head is not None
            return head
        return self.pool.get(self._owner, (SEMANTIC, index), lambda: self._load_head(index))

    @property
    def kept_bytes(self) -> int:
        """The most that the pool keeps of their weights: all of them, or what it holds, but one in any case."""
        sizes = [4 * parameter_count(config) for config in self._configs]
        return max(max(sizes), min(sum(sizes), self.pool.limit_bytes))

    def close(self) -> None:
        """Let go of the file and of its networks."""
        if self._container is not None:
            self._container.close()
        self._container = None
        self._shared = None
        self._decoded.clear()
        self._looked_at.clear()
        self._let_go()

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
            _check_above(config, self.header.base)
            own, stated = ((None if s is None else s.dimension) for s in (config.semantic, self.header.semantic))
            if own != stated:
                raise ContainerError("the network's semantic head is not what the header says")
            return config
        except ContainerError as error:
            raise ContainerError(f"{self.path}: {error}") from None

    def _stored(self, index: int) -> tuple[NetworkConfig, StoredWeights, StoredWeights | None]:
        """The whole configuration of a segment's network, its own weights and shared ones: the shapes of all fit."""
        opened, segment, config = self.contents(), self.header.segments[index], self._configs[index]
        own, shared = opened.network(segment.prefix), self._shared or opened.shared_weights()
        self._shared = shared
        tables = own.frame_tables(segment.frame_count)
        stored = own.table(), {} if shared is None else shared.table()
        try:
            if opened.has_tables:
                config = completed(config, tables)
            if shared is not None:
                check_owners(config, *stored)
            check_shapes(config, {name: shape for side in stored for name, (shape, _) in side.items()})
        except ContainerError as error:
            raise ContainerError(f"{self.path}: {error}") from None
        return config, own, shared

    def _read(self, index: int, beginning: str = "") -> tuple[NetworkConfig, dict[str, np.ndarray]]:
        """The same with those of its weights, decoded, whose names begin so."""
        config, own, shared = self._stored(index)
        if shared is not None and beginning not in self._decoded:
            self._decoded[beginning] = shared.decode(beginning)
        return config, own.decode(beginning) | self._decoded.get(beginning, {})

    def _load(self, index: int) -> Field:
        from nervcodec.network.build import from_arrays

        return from_arrays(*self._read(index)).to(self.hardware.device)

    def _load_head(self, index: int) -> SemanticHead:
        from nervcodec.network.build import head_from_arrays

        return head_from_arrays(*self._read(index, SEMANTIC)).to(self.hardware.device)


def _check_above(config: NetworkConfig, base: BaseFacts | None) -> None:
    """Refuse a network that does not go with the base layer of its file."""
    if isinstance(config, RefinerConfig) != (base is not None):
        raise ContainerError("the network and the base layer do not go together")
    if isinstance(config, RefinerConfig) and config.changes_base and base is not None and base.kind == COPY:
        raise ContainerError("the network changes the frames of a copied base layer")
