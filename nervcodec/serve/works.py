# SPDX-License-Identifier: MIT
"""What goes on behind the addresses: the open files, the threads, and what they do while nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from nervcodec.device import set_threads, trim_memory, tune_allocator
from nervcodec.errors import ContainerError, NervError
from nervcodec.serve.desk import Desk, Leave
from nervcodec.serve.limits import ReplacedError, single_param
from nervcodec.serve.store import ContainerStore, FileEntry

_IDLE_S = 60.0  # after which decoders that stand still are ended, and frames let go of
_MOST_THREADS, _ARENAS = 4, 2  # an arena for every thread would keep twice the memory
_BEFORE_S = 0.1  # for who jumps about, nothing is decoded ahead
_LONGEST_TAGS = 1_000  # characters of If-None-Match that are looked at


def _warm() -> None:
    """Import what takes seconds before anybody waits for it. Many frames at once, each by few threads, take least."""
    set_threads(max(1, (os.cpu_count() or 1) // 4))
    import nervcodec.decoding.rendering  # noqa: F401


class Works:
    """The files of one folder, and threads for each kind of work on them.

    Args:
        place: a folder, or a container.

    Attributes:
        store: the files.
        frames, fragments, facts, questions, thumbnails: desks, one for each kind of work; sound is among the facts.

    Raises:
        ConfigError: the place is neither.
    """

    def __init__(self, place: Path):
        tune_allocator(_ARENAS)
        self.store = ContainerStore(place)
        threads = max(1, min(_MOST_THREADS, os.cpu_count() or 1))
        # Many frames are there already, and shall not wait for those that a decoder has to walk to.
        self.frames, self.fragments = Desk("frames", 2 * threads), Desk("fragments", threads)
        self.facts, self.questions = Desk("facts", threads), Desk("questions", threads)
        self.thumbnails = Desk("thumbnails", threads)
        self._ahead, self._turn = ThreadPoolExecutor(1, "ahead"), 0
        self._going: Future[None] = Future()  # what is decoded ahead, and where
        self._going_place: tuple[str, int] | None = None

    @contextlib.asynccontextmanager
    async def living(self, _app: Starlette) -> AsyncIterator[None]:
        """While the server runs."""
        resting = asyncio.ensure_future(self._rest())
        self._ahead.submit(_warm)
        try:
            yield
        finally:
            resting.cancel()
            self.close()

    async def _rest(self) -> None:
        """Let go of what nobody has used for a while."""
        while True:
            await asyncio.sleep(_IDLE_S / 2)
            if await asyncio.to_thread(self.store.rest, _IDLE_S):
                await asyncio.to_thread(trim_memory)

    @property
    def _desks(self) -> tuple[Desk, ...]:
        return self.frames, self.fragments, self.facts, self.questions, self.thumbnails

    def stop(self) -> None:
        """Begin nothing more; what is under way ends as soon as it can."""
        self._turn += 1
        self._ahead.shutdown(wait=False, cancel_futures=True)
        for desk in self._desks:
            desk.close()

    def close(self) -> None:
        """End all work, and all decoders."""
        self.stop()
        self.store.close()
        for desk in self._desks:
            desk.wait()
        self._ahead.shutdown(wait=True)

    def item(self, request: Request) -> FileEntry:
        """The file of an address.

        Raises:
            MissingError: there is none.
            ReplacedError: it is not of the version that the address names.
        """
        item = self.store.entry(request.path_params["path"])
        if single_param(request, "version", item.version) != item.version:
            raise ReplacedError(f"{item.name} is another file by now")
        return item

    async def work(self, desk: Desk, request: Request, key: object, work: Callable[[Leave], Any]) -> Any:
        """The result of some work, see :meth:`Desk.ask`; none where the browser hangs up."""

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                continue

        return await desk.ask(key, work, gone)

    async def of_item(
        self, desk: Desk, request: Request, item: FileEntry, what: tuple, work: Callable[[Leave], bytes], kind: str
    ) -> Response:
        """An answer that is the same as long as the file is.

        Args:
            desk: where it is made.
            request: what came in.
            item: the file.
            what: is asked of it.
            work: makes it.
            kind: its media type.
        """
        tag = f'"{item.version}-{"-".join(map(str, what))}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if tag in request.headers.get("if-none-match", "")[:_LONGEST_TAGS]:
            return Response(status_code=304, headers=headers)

        def noted(leave: Leave) -> bytes:
            try:
                return work(leave)
            except ContainerError as error:
                self.store.note_damage(item, error)
                raise

        data = await self.work(desk, request, (item.path, item.version, *what), noted)
        return Response(data, media_type=kind, headers=headers)

    def head_for(self, item: FileEntry, number: int) -> None:
        """Somebody asks for a frame: what is decoded ahead elsewhere stops."""
        if self._going_place is not None and self._going_place != self._place_of(item, number):
            self._turn, self._going_place = self._turn + 1, None

    def go_ahead(self, item: FileEntry, number: int) -> None:
        """Decode what is around a frame in the base layer of a file, until somebody asks for one elsewhere."""
        place = self._place_of(item, number)
        if place is None or (place == self._going_place and not self._going.done()):
            return
        self._turn += 1
        turn, self._going_place = self._turn, place

        def decode() -> None:
            if self._turn == turn:
                time.sleep(_BEFORE_S)
                with contextlib.suppress(NervError):  # whoever asks for the frame itself is told
                    self.store.open(item).ahead(number, lambda: self._turn == turn)

        with contextlib.suppress(RuntimeError):  # the server ends
            self._going = self._ahead.submit(decode)

    def _place_of(self, item: FileEntry, number: int) -> tuple[str, int] | None:
        """The run of a base layer that a frame is in, where the file is open."""
        video = self.store.opened(item)
        run = None if video is None else video.run_of(number)
        return None if run is None else (item.version, run)
