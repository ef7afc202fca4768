# SPDX-License-Identifier: MIT
"""Networks of open containers, built on first use and kept in a cache of limited size. The import needs no torch."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from nervcodec.device import Hardware
from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
from nervcodec.formats.header import Header
from nervcodec.network.config import NetworkConfig
from nervcodec.network.shapes import SEMANTIC, is_self_contained, parameter_count
from nervcodec.network.stored import StoredNetworks

if TYPE_CHECKING:
    from torch import nn

    from nervcodec.network.field import Field
    from nervcodec.network.heads import SemanticHead

LIMIT_BYTES = 256 << 20  # of weights, in the cache that all open videos share
_BATCH_FRAMES = 4  # at most
_BATCH_PIXELS = {"cpu": 1 << 21, "cuda": 1 << 23}  # on a CPU larger batches are no faster (benchmarks/NOTES.md)
Network = TypeVar("Network", bound="nn.Module")


def batch_size(header: Header, device: str) -> int:
    """Whole frames rendered in one batch; it depends on the frame size and the device only.

    Args:
        header: of the container.
        device: ``cpu`` or ``cuda``.
    """
    return max(1, min(_BATCH_FRAMES, _BATCH_PIXELS[device] // (header.video.width * header.video.height)))


@dataclass(eq=False)
class _Entry:
    """One network: the lock is held while it is built, so that other threads wait instead of building it twice."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    network: nn.Module | None = None
    size: int = 0


class NetworkCache:
    """Thread-safe LRU cache of networks of several files, limited by the size of their weights.

    Args:
        limit_bytes: of the weights; the latest network is kept even if it is larger by itself.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES):
        self.limit_bytes, self._used = limit_bytes, 0
        self._lock = threading.RLock()  # reentrant: the garbage collector may release a file while it is held
        self._entries: OrderedDict[tuple[Hashable, Hashable], _Entry] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        """Size of the cached weights."""
        return self._used

    def get(self, owner: Hashable, name: Hashable, build: Callable[[], Network]) -> Network:
        """A network, built if it is not cached.

        Args:
            owner: the open file it belongs to.
            name: of the network within it.
            build: the network; it may get another one from the cache. If it raises, nothing is cached.
        """
        key = owner, name
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            if entry.network is None:
                try:
                    network = build()
                except BaseException:
                    with self._lock:
                        if self._entries.get(key) is entry:
                            del self._entries[key]
                    raise
                size = sum(p.numel() * p.element_size() for p in network.parameters())
                with self._lock:
                    entry.network, entry.size = network, size
                    if self._entries.get(key) is entry:  # it may have been dropped meanwhile
                        self._used += size
                        self._evict(key)
            return cast(Network, entry.network)

    def _evict(self, latest: tuple[Hashable, Hashable]) -> None:
        for key in list(self._entries):
            if self._used <= self.limit_bytes:
                return
            if key != latest:
                self._used -= self._entries.pop(key).size

    def drop(self, owner: Hashable) -> None:
        """Remove all networks of a file."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == owner]:
                self._used -= self._entries.pop(key).size


SHARED_CACHE = NetworkCache()


class Networks:
    """Networks of a container by segment number.

    Args:
        opened: a container.
        hardware: returns device and precision; called when a network is first built.
        cache: holds them.

    Raises:
        ContainerError: its networks do not fit its video; methods raise it where tensors are damaged or do not fit
            their network.
    """

    def __init__(self, opened: Container, hardware: Callable[[], Hardware], cache: NetworkCache = SHARED_CACHE):
        self.path, self.header, self._cache = opened.path, opened.header, cache
        self._hardware = hardware
        self._open: tuple[Container, StoredNetworks] | None = opened, StoredNetworks(opened)
        self.configs = self._open[1].configs
        self._owner = object()  # of its networks in the cache
        self._release = weakref.finalize(self, cache.drop, self._owner)
        self._checked: set[int] = set()  # segments whose weights were checked, but not decoded

    @property
    def hardware(self) -> Hardware:
        """Device and precision."""
        return self._hardware()

    def field(self, index: int) -> Field:
        """The network of a segment."""
        return self._cache.get(self._owner, index, lambda: self._load(index))

    def check(self, index: int) -> None:
        """Compare the stored weights of a segment with its configuration, once, without decoding values.

        Raises:
            ContainerError: it is damaged or does not fit.
        """
        if index not in self._checked:
            self.require_open()[1].check(index)
            self._checked.add(index)

    def head(self, index: int) -> SemanticHead:
        """The semantic head of a segment; the rest of the network is not decoded if the head does not need it."""
        if not is_self_contained(self.configs[index]):
            head = self.field(index).semantic
            assert head is not None
            return head
        return self._cache.get(self._owner, (SEMANTIC, index), lambda: self._load_head(index))

    @property
    def cached_bytes(self) -> int:
        """The most that the cache holds of their weights: all, or its limit, but at least one network."""
        sizes = [4 * parameter_count(config) for config in self.configs]
        return max(max(sizes), min(sum(sizes), self._cache.limit_bytes))

    def close(self) -> None:
        """Release the file and its networks."""
        if self._open is not None:
            self._open[0].close()
        self._open = None
        self._checked.clear()
        self._release()

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return self._open is None

    @property
    def container(self) -> Container:
        """The open file; see :meth:`require_open`."""
        return self.require_open()[0]

    def require_open(self) -> tuple[Container, StoredNetworks]:
        """The open file and its stored networks.

        Raises:
            ContainerError: it was closed.
        """
        opened = self._open  # another thread may close it meanwhile
        if opened is None:
            raise ContainerError(f"{self.path}: is closed; open it again with nervcodec.open")
        return opened

    def _read(self, index: int, prefix: str = "") -> tuple[NetworkConfig, dict[str, np.ndarray]]:
        return self.require_open()[1].read(index, prefix)

    def _load(self, index: int) -> Field:
        from nervcodec.network.build import from_arrays

        return from_arrays(*self._read(index)).to(self.hardware.device)

    def _load_head(self, index: int) -> SemanticHead:
        from nervcodec.network.build import head_from_arrays

        return head_from_arrays(*self._read(index, SEMANTIC)).to(self.hardware.device)
