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
from nervcodec.network.config import NetworkConfig
from nervcodec.network.shapes import SEMANTIC, parameter_count, stands_alone
from nervcodec.network.stored import StoredNetworks

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
        self._stored: StoredNetworks | None = StoredNetworks(opened)
        self._configs = self._stored.configs
        self._checked: set[int] = set()  # segments whose weights were checked and not decoded

    @property
    def hardware(self) -> Hardware:
        """Device and precision."""
        return self._hardware()

    def field(self, index: int) -> Field:
        """The network of a segment."""
        return self.pool.get(self._owner, index, lambda: self._load(index))

    def check(self, index: int) -> None:
        """Compare what is stored of a segment with its configuration, once, without decoding values.

        Raises:
            ContainerError: it is damaged or does not fit.
        """
        if index not in self._checked:
            self.contents()
            assert self._stored is not None
            self._stored.check(index)
            self._checked.add(index)

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
        self._container = self._stored = None
        self._checked.clear()
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

    def _read(self, index: int, beginning: str = "") -> tuple[NetworkConfig, dict[str, np.ndarray]]:
        self.contents()
        assert self._stored is not None
        return self._stored.read(index, beginning)

    def _load(self, index: int) -> Field:
        from nervcodec.network.build import from_arrays

        return from_arrays(*self._read(index)).to(self.hardware.device)

    def _load_head(self, index: int) -> SemanticHead:
        from nervcodec.network.build import head_from_arrays

        return head_from_arrays(*self._read(index, SEMANTIC)).to(self.hardware.device)
