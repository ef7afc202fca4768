# SPDX-License-Identifier: MIT
"""Endpoints of pictures, thumbnails and files to play."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nervcodec.formats.header import Header
from nervcodec.serve import limits, stills, transcode
from nervcodec.serve.limits import single_param
from nervcodec.serve.media_cache import MediaCache
from nervcodec.serve.state import AppState
from nervcodec.serve.store import FileEntry


class Media:
    """Endpoints of single frames, and of files to play."""

    def __init__(self, state: AppState):
        self._state = state

    def routes(self) -> list[Route]:
        """The routes of all media."""
        return [
            Route("/thumbnail/{path:name}", self.thumbnail),
            Route("/frame/{path:name}/{number}", self.frame),
            Route("/media/{path:name}.mp4", self.media),
            Route("/clip/{path:name}.mp4", self.clip),
            Route("/api/media/{path:name}", self.progress),
        ]

    async def thumbnail(self, request: Request) -> Response:
        """A small picture."""
        item = self._state.entry(request)
        return await self._state.picture(
            self._state.thumbnails, request, item, "image/jpeg", stills.thumbnail, item.file
        )

    async def frame(self, request: Request) -> Response:
        """One frame."""
        number = limits.integer("a frame", request.path_params["number"])
        form = limits.choice("format", single_param(request, "format", stills.JPEG), (stills.JPEG, stills.PNG))
        wide = single_param(request, "width", "")
        width = limits.integer("width", wide, limits.SMALLEST_WIDTH, limits.LARGEST_WIDTH) if wide else None
        item = self._state.entry(request)
        call = stills.still, item.file, item.version, number, form, width
        self._state.store.require_showable(item)
        return await self._state.picture(self._state.stills, request, item, f"image/{form}", *call)

    async def media(self, request: Request) -> Response:
        """The container as MP4: a whole file; with ``from``, a stream from that frame on while it is being coded."""
        item, codec, header = self._playable(request)
        start = single_param(request, "from", "")
        if start and codec != transcode.AVC:
            raise limits.RefusedError(f"from goes with codec={transcode.AVC}")
        frame = limits.integer("from", start, 0, header.video.frame_count - 1) if start else 0
        if start:
            if self._state.media.target(item, codec).exists():
                raise limits.RefusedError("there is a whole file; leave out from")
            made = self._state.media.coding(item, header)
            made.start(again=True)
            return StreamingResponse(await _begun(made.stream(frame)), media_type="video/mp4")
        return self._file(item, await self._state.media.file(item, header, codec))

    async def clip(self, request: Request) -> Response:
        """A moment as MP4, to be saved."""
        item, codec, header = self._playable(request)
        end_s = header.video.duration_s
        start_s = limits.seconds("start", single_param(request, "start", "0"), 0, end_s)
        most_s = min(end_s, start_s + limits.MOST_CLIP_S)
        stop_s = limits.seconds("stop", single_param(request, "stop", ""), start_s, most_s + 1e-3)
        path = await self._state.media.clip(item, header, codec, start_s, stop_s)
        name = f"{item.name.rpartition('.')[0]} {start_s:.1f}-{stop_s:.1f}.mp4"
        return self._file(item, path, filename=name)

    def _file(self, item: FileEntry, path: Path, **options: Any) -> Response:
        tags = {"etag": f'"{path.stem}"', "last-modified": formatdate(item.modified_ns / 1e9, usegmt=True)}
        return _MediaResponse(self._state.media, path, media_type="video/mp4", headers=tags, **options)

    async def progress(self, request: Request) -> Response:
        """How much of the H.264 of a container is coded; coding continues as long as this is requested."""
        item, codec, header = self._playable(request)
        if self._state.media.target(item, codec).exists() or codec == transcode.BASE:
            return JSONResponse({"is_whole": True, "frames": [[0, header.video.frame_count]], "error": None})
        made = self._state.media.coding(item, header)
        made.start()
        error = None if made.error is None else self._state.store.redact(str(made.error))
        return JSONResponse({"is_whole": False, "frames": made.frames, "error": error})

    def _playable(self, request: Request) -> tuple[FileEntry, str, Header]:
        item = self._state.entry(request)
        header = self._state.store.require_showable(item)
        codecs = (transcode.AVC,) if header.base is None else (transcode.BASE, transcode.AVC)
        return item, limits.choice("codec", single_param(request, "codec", codecs[0]), codecs), header


class _MediaResponse(FileResponse):
    """A file of the media cache, which is not deleted while it is sent."""

    def __init__(self, media: MediaCache, path: Path, **options: Any):
        super().__init__(path, **options)
        self._media = media

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._media.reading(Path(self.path)):
            await super().__call__(scope, receive, send)


async def _begun(stream: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """A stream whose first part is there; what goes wrong before that has a status of its own."""
    first = await anext(stream)

    async def whole() -> AsyncIterator[bytes]:
        async with contextlib.aclosing(stream):
            yield first
            async for part in stream:
                yield part

    return whole()
