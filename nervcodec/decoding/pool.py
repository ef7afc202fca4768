# SPDX-License-Identifier: MIT
"""Networks of several files, ready to run, in memory of a fixed size; safe for several threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from torch import nn

LIMIT_BYTES = 256 << 20  # of weights, of the pool that all open videos share
Network = TypeVar("Network", bound="nn.Module")


@dataclass(eq=False)
class _Place:
    """One network: its lock is held while it is made, so that others wait for it instead of making it twice."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    network: nn.Module | None = None
    size: int = 0


class Pool:
    """Keeps the networks that were used last.

    Args:
        limit_bytes: of their weights; the latest network is kept even where it alone takes more.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES):
        self.limit_bytes, self._used = limit_bytes, 0
        self._lock = threading.RLock()  # a file may be let go of, by the garbage collector, while it is held
        self._places: OrderedDict[tuple[Hashable, Hashable], _Place] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        """Of the weights that are kept now."""
        return self._used

    def get(self, owner: Hashable, name: Hashable, make: Callable[[], Network]) -> Network:
        """A network, made if it is not there.

        Args:
            owner: the open file it belongs to.
            name: of the network within it.
            make: the network; it may ask the pool for another one. What it raises is passed on, and nothing is kept.
        """
        key = owner, name
        with self._lock:
            place = self._places.setdefault(key, _Place())
            self._places.move_to_end(key)
        with place.lock:
            if place.network is None:
                network = self._made(key, place, make)
                size = sum(p.numel() * p.element_size() for p in network.parameters())
                with self._lock:
                    place.network, place.size = network, size
                    if self._places.get(key) is place:  # it may have been dropped meanwhile
                        self._used += size
                        self._make_room(key)
            return cast(Network, place.network)

    def _made(self, key: tuple[Hashable, Hashable], place: _Place, make: Callable[[], Network]) -> Network:
        try:
            return make()
        except BaseException:
            with self._lock:
                if self._places.get(key) is place:
                    del self._places[key]
            raise

    def _make_room(self, latest: tuple[Hashable, Hashable]) -> None:
        for key in list(self._places):
            if self._used <= self.limit_bytes:
                return
            if key != latest:
                self._remove(key)

    def _remove(self, key: tuple[Hashable, Hashable]) -> None:
        place = self._places.pop(key, None)
        self._used -= 0 if place is None else place.size

    def drop(self, owner: Hashable) -> None:
        """Let go of everything that belongs to a file."""
        with self._lock:
            for key in [key for key in self._places if key[0] == owner]:
                self._remove(key)


SHARED = Pool()
