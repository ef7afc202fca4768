# SPDX-License-Identifier: MIT
"""A thread pool with request coalescing, a bounded queue, and cancellation when all clients have disconnected."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from nervcodec.errors import NervError
from nervcodec.serve.limits import MOST_WAITING, BusyError


class ClientDisconnectedError(NervError):
    """All clients that waited for a result have disconnected, or the server is shutting down."""


class CancellationToken:
    """Tells running work that nobody waits for its result any more."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Make all later checks fail."""
        self._cancelled.set()

    def check(self) -> None:
        """To be called now and then by work that takes long.

        Raises:
            ClientDisconnectedError: nobody waits.
        """
        if self._cancelled.is_set():
            raise ClientDisconnectedError("the client has disconnected")


Work = Callable[[CancellationToken], Any]


@dataclass
class _Job:
    """Work that clients wait for."""

    future: asyncio.Future
    token: CancellationToken = field(default_factory=CancellationToken)
    waiting: int = 0


class SingleFlightExecutor:
    """Runs work in threads; equal requests share one run. To be used in one event loop.

    Args:
        name: of its threads.
        threads: number of them.
    """

    def __init__(self, name: str, threads: int):
        self._threads = ThreadPoolExecutor(threads, name)
        self._jobs: dict[object, _Job] = {}
        self._is_closed = False

    async def run(self, key: object, work: Work, disconnected: Callable[[], Awaitable[None]]) -> Any:
        """The result of some work.

        Args:
            key: equal for equal results.
            work: is run in a thread.
            disconnected: returns once the client has disconnected.

        Raises:
            BusyError: the queue is full.
            ClientDisconnectedError: the client has disconnected.
        """
        job = self._jobs.get(key)
        if job is None:
            if len(self._jobs) >= MOST_WAITING:
                raise BusyError("too many requests at once; try again in a moment")
            job = self._start(key, work)
        job.waiting += 1
        leaving = asyncio.ensure_future(disconnected())
        try:
            await asyncio.wait((job.future, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not job.future.done() or job.future.cancelled():
                raise ClientDisconnectedError("the client has disconnected")
            return job.future.result()
        finally:
            leaving.cancel()
            job.waiting -= 1
            if not job.waiting and not job.future.done():
                self._forget(key, job)
                job.token.cancel()
                job.future.cancel()

    def _start(self, key: object, work: Work) -> _Job:
        token = CancellationToken()
        if self._is_closed:
            raise ClientDisconnectedError("the server is shutting down")
        job = _Job(asyncio.get_running_loop().run_in_executor(self._threads, work, token), token)
        self._jobs[key] = job
        job.future.add_done_callback(lambda _: self._forget(key, job))
        return job

    def _forget(self, key: object, job: _Job) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]

    def close(self) -> None:
        """Start nothing more, and cancel what runs."""
        self._is_closed = True
        for job in list(self._jobs.values()):
            job.token.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def wait(self) -> None:
        """Wait for the end of what runs."""
        self._threads.shutdown(wait=True)
