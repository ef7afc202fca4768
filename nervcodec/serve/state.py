# SPDX-License-Identifier: MIT
"""What the server holds between requests: the files, threads and worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from nervcodec.errors import ContainerError
from nervcodec.serve.executor import CancellationToken, SingleFlightExecutor
from nervcodec.serve.limits import MEDIA_BYTES, ReplacedError, single_param
from nervcodec.serve.media_cache import MediaCache
from nervcodec.serve.store import ContainerStore, FileEntry
from nervcodec.worker import Worker

_EVICTION_S = 30.0
_MOST_THREADS = 4
_LONGEST_TAGS = 1_000  # characters of If-None-Match that are read


class AppState:
    """The files of one folder, and what answers requests for them.

    Args:
        place: a folder, or a container.
        media_bytes: limit of the cache of MP4 files.

    Attributes:
        store: the files.
        media: MP4 files to play.
        base_worker: decodes single frames of base layers. Those of networks are rendered by ``media.worker``, between
            the pieces of video that it codes, so that only one process imports torch.
        stills, thumbnails, facts, questions: threads, by the kind of work.

    Raises:
        ConfigError: the place is neither.
    """

    def __init__(self, place: Path, media_bytes: int = MEDIA_BYTES):
        self.store = ContainerStore(place)
        self.media, self.base_worker = MediaCache(media_bytes), Worker()
        threads = max(1, min(_MOST_THREADS, os.cpu_count() or 1))
        self.stills, self.thumbnails = SingleFlightExecutor("stills", 2), SingleFlightExecutor("thumbnails", 2)
        self.facts, self.questions = SingleFlightExecutor("facts", threads), SingleFlightExecutor("questions", threads)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """While the server runs."""
        evicting = asyncio.ensure_future(self._evict())
        try:
            yield
        finally:
            evicting.cancel()
            self.stop()
            for executor in self._executors:
                executor.wait()

    async def _evict(self) -> None:
        while True:
            await asyncio.sleep(_EVICTION_S)
            self.media.evict()

    @property
    def _executors(self) -> tuple[SingleFlightExecutor, ...]:
        return self.stills, self.thumbnails, self.facts, self.questions

    def stop(self) -> None:
        """Start nothing more, and end what runs as soon as possible."""
        for executor in self._executors:
            executor.close()
        self.media.close()
        self.base_worker.close()

    def entry(self, request: Request) -> FileEntry:
        """The file of an address.

        Raises:
            MissingError: there is none.
            ReplacedError: it is not of the version that the address names.
        """
        entry = self.store.entry(request.path_params["path"])
        if single_param(request, "version", entry.version) != entry.version:
            raise ReplacedError(f"{entry.name} was replaced by another file")
        return entry

    async def run(
        self, executor: SingleFlightExecutor, request: Request, key: object, work: Callable[[CancellationToken], Any]
    ) -> Any:
        """The result of some work, see :meth:`SingleFlightExecutor.run`; it ends when the browser disconnects."""

        async def disconnected() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                continue

        return await executor.run(key, work, disconnected)

    async def picture(
        self, executor: SingleFlightExecutor, request: Request, entry: FileEntry, kind: str, *call: Any
    ) -> Response:
        """A picture that stays the same as long as the file does.

        Args:
            executor: waits for the worker.
            request: what came in.
            entry: the file.
            kind: its media type.
            call: function that the worker calls, and its arguments.
        """
        tag = f'"{entry.version}-{"-".join(str(argument) for argument in call[2:])}-{kind[6:]}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if tag in request.headers.get("if-none-match", "")[:_LONGEST_TAGS]:
            return Response(status_code=304, headers=headers)

        def work(_token: CancellationToken) -> bytes:
            header = self.store.status(entry).header
            worker = self.media.worker if header is not None and header.base is None else self.base_worker
            try:
                return worker.call(*call)
            except ContainerError as error:
                self.store.note_damage(entry, error)
                raise

        data = await self.run(executor, request, (entry.path, entry.version, *call), work)
        return Response(data, media_type=kind, headers=headers)
