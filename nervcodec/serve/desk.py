# SPDX-License-Identifier: MIT
"""Work in threads: so much at once, the same work once however many ask, and none for those who went away."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from nervcodec.errors import NervError
from nervcodec.serve.limits import ANSWERS_BYTES, MOST_WAITING, BusyError


class GoneError(NervError):
    """Whoever asked went away, or the server ends."""


class Leave:
    """Tells work under way that nobody waits for it any more."""

    def __init__(self) -> None:
        self._gone = threading.Event()

    def take(self) -> None:
        """Nobody waits."""
        self._gone.set()

    def check(self) -> None:
        """To be called now and then by work that takes long.

        Raises:
            GoneError: nobody waits.
        """
        if self._gone.is_set():
            raise GoneError("nobody waits for this any more")


Work = Callable[[Leave], Any]


@dataclass
class _Job:
    """Work that some wait for."""

    future: asyncio.Future
    leave: Leave = field(default_factory=Leave)
    waiting: int = 0


class Answers:
    """Bytes that were answered last, so that who asks the same is not answered by the same work again."""

    def __init__(self, limit_bytes: int = ANSWERS_BYTES):
        self.limit_bytes, self._used = limit_bytes, 0
        self._kept: OrderedDict[object, bytes] = OrderedDict()

    def get(self, key: object) -> bytes | None:
        """What was answered, or None."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: object, answer: object) -> None:
        """Keep an answer, where it is bytes."""
        if not isinstance(answer, bytes) or len(answer) > self.limit_bytes // 4 or key in self._kept:
            return
        self._kept[key] = answer
        self._used += len(answer)
        while self._used > self.limit_bytes:
            self._used -= len(self._kept.popitem(last=False)[1])


class Desk:
    """One kind of work. To be used in one event loop.

    Args:
        name: of its threads.
        threads: of them.
    """

    def __init__(self, name: str, threads: int):
        self._threads = ThreadPoolExecutor(threads, name)
        self._jobs: dict[object, _Job] = {}
        self._answers = Answers()
        self._is_closed = False

    async def ask(self, key: object, work: Work, gone: Callable[[], Awaitable[None]]) -> Any:
        """The result of some work.

        Args:
            key: the same for the same result.
            work: is done in a thread.
            gone: comes back once whoever asks went away.

        Raises:
            BusyError: too much waits already.
            GoneError: whoever asks went away.
        """
        if (answer := self._answers.get(key)) is not None:
            return answer
        job = self._jobs.get(key)
        if job is None:
            if len(self._jobs) >= MOST_WAITING:
                raise BusyError("too much is asked at once; try again in a moment")
            job = self._start(key, work)
        job.waiting += 1
        leaving = asyncio.ensure_future(gone())
        try:
            await asyncio.wait((job.future, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not job.future.done() or job.future.cancelled():
                raise GoneError("nobody waits for this any more")
            return job.future.result()
        finally:
            leaving.cancel()
            job.waiting -= 1
            if not job.waiting and not job.future.done():
                self._forget(key, job)
                job.leave.take()
                job.future.cancel()

    def _start(self, key: object, work: Work) -> _Job:
        leave = Leave()
        if self._is_closed:
            raise GoneError("the server ends")
        job = _Job(asyncio.get_running_loop().run_in_executor(self._threads, work, leave), leave)
        self._jobs[key] = job

        def finished(future: asyncio.Future) -> None:
            self._forget(key, job)
            if not future.cancelled() and future.exception() is None:
                self._answers.put(key, future.result())

        job.future.add_done_callback(finished)
        return job

    def _forget(self, key: object, job: _Job) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]

    def close(self) -> None:
        """Begin nothing more; what is under way is told that nobody waits."""
        self._is_closed = True
        for job in list(self._jobs.values()):
            job.leave.take()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def wait(self) -> None:
        """Wait for the end of what is under way."""
        self._threads.shutdown(wait=True)
