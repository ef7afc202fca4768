# SPDX-License-Identifier: MIT
"""Iteration in the background: a thread runs an iterator ahead of its consumer. Numbers of cores and threads."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

codec_threads = 0  # of each encoder and decoder in this process; 0 for as many as there are cores
_JOIN_S = 1.0  # time that a thread gets to end
_Item = TypeVar("_Item")


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class StalledError(Exception):
    """An iterator yielded no item within the timeout."""


def read_ahead(items: Iterator[_Item], count: int, timeout_s: float | None = None) -> Generator[_Item, None, None]:
    """Take items from an iterator that runs in a background thread.

    Closing the generator stops the thread at its next item. A thread that is blocked is left behind after a second.

    Args:
        items: the iterator; nobody else may use it.
        count: how many items may wait.
        timeout_s: the longest time without an item; None for no limit.

    Raises:
        StalledError: no item came for ``timeout_s`` seconds.
        Exception: whatever the iterator raised.
    """
    reader = _Reader(items, count)
    reader.start()
    try:
        while True:
            try:
                item, error = reader.queue.get(timeout=timeout_s)
            except queue.Empty:
                raise StalledError from None
            if error is not None:
                raise error
            if item is None:
                return
            yield item[0]
    finally:
        reader.stop()


def abandoned_readers() -> int:
    """Threads of closed iterators that are still blocked, such as one in a decoder that does not return."""
    return sum(isinstance(thread, _Reader) and thread.is_stopped for thread in threading.enumerate())


class _Reader(threading.Thread, Generic[_Item]):
    """Puts ``((item,), None)`` into its queue for each item, then ``(None, error or None)``."""

    def __init__(self, items: Iterator[_Item], count: int):
        super().__init__(daemon=True)
        self._items, self._stopped = items, threading.Event()
        self.queue: queue.Queue[tuple[tuple[_Item] | None, BaseException | None]] = queue.Queue(count)

    @property
    def is_stopped(self) -> bool:
        """Whether nobody takes its items any more."""
        return self._stopped.is_set()

    def run(self) -> None:
        error = None
        try:
            for item in self._items:
                self.queue.put(((item,), None))
                if self._stopped.is_set():
                    break
        except BaseException as raised:  # raised again in the consumer
            error = raised
        if not self._stopped.is_set():
            self.queue.put((None, error))
        elif isinstance(self._items, Generator):
            self._items.close()

    def stop(self) -> None:
        """Have the thread end at its next item."""
        self._stopped.set()
        with contextlib.suppress(queue.Empty):
            while True:  # unblocks a thread that waits in put
                self.queue.get_nowait()
        self.join(_JOIN_S)
