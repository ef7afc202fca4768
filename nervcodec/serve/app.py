# SPDX-License-Identifier: MIT
"""Addresses and their answers: an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nervcodec.device import use_threads
from nervcodec.errors import ConfigError, ContainerError, EncoderError, NervError
from nervcodec.serve import limits, pictures
from nervcodec.serve.desk import Desk, GoneError, Leave
from nervcodec.serve.facts import described
from nervcodec.serve.fragments import plan, video_fragment
from nervcodec.serve.questions import Like, Question, Questions
from nervcodec.serve.shelf import Item, Shelf
from nervcodec.serve.sound import Sounds

STATIC = Path(__file__).with_name("static")
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# What stands for an error of ours, the first that fits.
_STATUS: tuple[tuple[type[NervError], int], ...] = (
    (limits.RefusedError, 400),
    (limits.MissingError, 404),
    (limits.BusyError, 503),
    (GoneError, 503),
    (EncoderError, 409),
    (ContainerError, 409),
    (ConfigError, 400),
)
_IDLE_S = 60.0  # after which decoders that stand still are ended
Endpoint = Callable[[Request], Awaitable[Response]]


def _warm() -> None:
    """Import what takes seconds before anybody waits for it. Many frames at once, each by few threads, take least."""
    use_threads(max(1, (os.cpu_count() or 1) // 4))
    import nervcodec.decoding.pixels  # noqa: F401


class Pages:
    """What is served of one folder or file.

    Args:
        place: a folder, or a container.
        note: is told what went wrong that is nobody's fault.
    """

    def __init__(self, place: Path, note: Callable[[str], None] = lambda _: None):
        self.shelf, self._note = Shelf(place), note
        self._questions, self._sounds = Questions(self.shelf), Sounds()
        threads = max(1, min(4, os.cpu_count() or 1))
        # Many frames are there already, and shall not wait for those that a decoder has to walk to.
        self._frames, self._fragments = Desk("frames", 2 * threads), Desk("fragments", threads)
        self._asked, self._small = Desk("questions", threads), Desk("small", 1)
        self._ahead, self._turn = ThreadPoolExecutor(1, "ahead"), 0

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
        """End decoders that nobody has used for a while."""
        while True:
            await asyncio.sleep(_IDLE_S / 2)
            await asyncio.to_thread(self.shelf.rest, _IDLE_S)

    def close(self) -> None:
        """End all work, and all decoders."""
        self._turn += 1
        self._ahead.shutdown(wait=False, cancel_futures=True)
        desks = self._frames, self._fragments, self._asked, self._small
        for desk in desks:
            desk.close()
        self.shelf.close()
        for desk in desks:
            desk.wait()
        self._ahead.shutdown(wait=True)

    def routes(self) -> list[Route]:
        """Addresses, more special ones first."""
        table: dict[str, Endpoint] = {
            "/": self.library,
            "/watch/{path:path}": self.watch,
            "/static/{name}": self.static,
            "/api/files": self.files,
            "/api/file/{path:path}": self.file,
            "/api/search": self.search,
            "/api/fit/{path:path}": self.fit,
            "/api/patches/{path:path}/{number}": self.patches,
            "/thumbnail/{path:path}": self.thumbnail,
            "/frame/{path:path}/{number}": self.frame,
            "/media/{path:path}/video/{number}": self.video,
            "/media/{path:path}/audio/{number}": self.audio,
        }
        return [Route(address, self._answering(answer), methods=["GET"]) for address, answer in table.items()]

    def _answering(self, answer: Endpoint) -> Endpoint:
        """An endpoint whose errors become JSON."""

        async def endpoint(request: Request) -> Response:
            try:
                if len(request.scope["query_string"]) > limits.MOST_QUERY:
                    raise limits.RefusedError(f"a question has at most {limits.MOST_QUERY:,} characters")
                return await answer(request)
            except NervError as error:
                status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
                return _error(status, str(error))
            except HTTPException:
                raise
            except Exception as error:  # whatever it is, the server goes on and says so in one line
                self._note(f"{request.url.path}: internal error: {type(error).__name__}: {error}")
                return _error(500, f"internal error: {type(error).__name__}")

        return endpoint

    async def _work(self, desk: Desk, request: Request, key: object, work: Callable[[Leave], Any]) -> Any:
        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                continue

        return await desk.ask(key, work, gone)

    async def _of_item(
        self, desk: Desk, request: Request, what: tuple, work: Callable[[Item, Leave], bytes], kind: str
    ) -> Response:
        """An answer that is the same as long as the file is."""
        item = self._item(request)
        tag = f'"{item.version}-{"-".join(map(str, what))}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if tag in request.headers.get("if-none-match", "")[:1000]:
            return Response(status_code=304, headers=headers)

        def noted(leave: Leave) -> bytes:
            try:
                return work(item, leave)
            except ContainerError as error:
                self.shelf.note_damage(item, error)
                raise

        data = await self._work(desk, request, (item.path, item.version, *what), noted)
        return Response(data, media_type=kind, headers=headers)

    def _item(self, request: Request) -> Item:
        return self.shelf.item(request.path_params["path"])

    # ------------------------------------------------------------------ pages

    async def library(self, _request: Request) -> Response:
        """All containers; the only one where there is one."""
        if self.shelf.single is not None:
            return RedirectResponse(f"/watch/{quote(self.shelf.single)}", 307)
        return FileResponse(STATIC / "library.html", headers={"Cache-Control": "no-cache"})

    async def watch(self, request: Request) -> Response:
        """One container."""
        self._item(request)
        return FileResponse(STATIC / "watch.html", headers={"Cache-Control": "no-cache"})

    async def static(self, request: Request) -> Response:
        """What the pages are made of."""
        name = request.path_params["name"]
        if name not in {file.name for file in STATIC.iterdir() if file.is_file()}:
            raise limits.MissingError(f"there is no {name[:100]}")
        return FileResponse(STATIC / name, headers={"Cache-Control": "no-cache"})

    # ------------------------------------------------------------------ facts

    async def files(self, request: Request) -> Response:
        """Some of the containers."""
        name = _only(request, "name", "").casefold()[: limits.MOST_LETTERS]
        offset = limits.whole("offset", _only(request, "offset", "0"), 0, 999_999_999)
        limit = limits.whole("limit", _only(request, "limit", "60"), 1, limits.MOST_FILES)

        def listed(_leave: Leave) -> dict:
            items = [item for item in self.shelf.items() if name in item.path.casefold()]
            shown = [self.shelf.facts(item) for item in items[offset : offset + limit]]
            return {"folder": self.shelf.name, "total": len(items), "files": shown}

        return JSONResponse(await self._work(self._asked, request, ("files", name, offset, limit), listed))

    async def file(self, request: Request) -> Response:
        """All that is known of one container."""
        item = self._item(request)
        key = ("file", item.path, item.version)
        return JSONResponse(await self._work(self._asked, request, key, lambda _: described(self.shelf, item)))

    # ------------------------------------------------------------------ pictures

    async def thumbnail(self, request: Request) -> Response:
        """A small picture."""

        def made(item: Item, _leave: Leave) -> bytes:
            return pictures.thumbnail(self.shelf.open(item))

        return await self._of_item(self._small, request, ("thumbnail",), made, "image/jpeg")

    async def frame(self, request: Request) -> Response:
        """One frame, decoded alone."""
        number = limits.number_of("a frame", request.path_params["number"])
        layer = limits.chosen("layer", _only(request, "layer", pictures.WHOLE), (pictures.WHOLE, pictures.BASE))
        form = limits.chosen("format", _only(request, "format", pictures.JPEG), (pictures.JPEG, pictures.PNG))
        wide = _only(request, "width", "")
        width = limits.whole("width", wide, limits.SMALLEST_WIDTH, limits.LARGEST_WIDTH) if wide else None

        def made(item: Item, _leave: Leave) -> bytes:
            return pictures.picture(pictures.frame(self.shelf.open(item), number, layer), form, width)

        what = ("frame", number, layer, form, width)
        self._turn += 1
        response = await self._of_item(self._frames, request, what, made, f"image/{form}")
        self._go_ahead(self._item(request), number)
        return response

    def _go_ahead(self, item: Item, number: int) -> None:
        """Decode what follows in the base layer of a file, until somebody asks for another frame."""
        turn = self._turn

        def decode() -> None:
            with contextlib.suppress(NervError):  # whoever asks for the frame itself is told
                self.shelf.open(item).ahead(number, lambda: self._turn == turn)

        self._ahead.submit(decode)

    async def video(self, request: Request) -> Response:
        """A fragment of the picture."""
        number = limits.number_of("a fragment", request.path_params["number"])

        def made(item: Item, leave: Leave) -> bytes:
            return video_fragment(self.shelf.open(item), number, leave)

        return await self._of_item(self._fragments, request, ("video", number), made, "video/mp4")

    async def audio(self, request: Request) -> Response:
        """A fragment of the sound."""
        number = limits.number_of("a fragment", request.path_params["number"])

        def made(item: Item, _leave: Leave) -> bytes:
            video = self.shelf.open(item)
            cut = plan(video)
            pieces = self._sounds.of(item.version, video) if number < cut.count else None
            if pieces is None:
                raise limits.MissingError(f"there is no sound {number:,} in {item.name}")
            return pieces.piece(number * cut.length, (number + 1) * cut.length)

        return await self._of_item(self._asked, request, ("audio", number), made, "audio/mp4")

    # ------------------------------------------------------------------ questions

    async def search(self, request: Request) -> Response:
        """Moments that match."""
        question, limit = _question(request), _only(request, "limit", "24")
        most = limits.whole("limit", limit, 1, limits.MOST_MOMENTS)
        inside = _only(request, "in", "") or None

        def found(_leave: Leave) -> dict:
            return self._questions.search(question, inside, most)

        return JSONResponse(await self._work(self._asked, request, ("search", question, inside, most), found))

    async def fit(self, request: Request) -> Response:
        """How well a query fits over time."""
        question, item = _question(request), self._item(request)

        def found(_leave: Leave) -> dict:
            fit = self._questions.fit(question, item)
            return {"times_s": fit.times_s, "scores": fit.scores, "threshold": fit.threshold}

        return JSONResponse(await self._work(self._asked, request, ("fit", question, item), found))

    async def patches(self, request: Request) -> Response:
        """Where on a frame a query matches."""
        question, item = _question(request), self._item(request)
        number = limits.number_of("a frame", request.path_params["number"])

        def found(_leave: Leave) -> dict:
            return self._questions.patches(question, item, number)

        return JSONResponse(await self._work(self._asked, request, ("patches", question, item, number), found))


def _only(request: Request, name: str, default: str) -> str:
    """A value that may stand once."""
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise limits.RefusedError(f"{name} stands {len(values)} times")
    return values[0] if values else default


def _question(request: Request) -> Question:
    """What is looked for."""
    given = request.query_params
    add, subtract, like = given.getlist("add"), given.getlist("subtract"), _only(request, "like", "")
    if len(add) + len(subtract) > limits.MOST_TERMS:
        raise limits.RefusedError(f"a query has at most {limits.MOST_TERMS} texts")
    if not add and not like:
        raise limits.RefusedError("the query is empty")
    texts = tuple(map(limits.words, add)), tuple(map(limits.words, subtract))
    return Question(*texts, _like(like) if like else None)


def _like(text: str) -> Like:
    parts = text.rsplit(":", 3)
    if len(parts) != 4:
        raise limits.RefusedError("like is PATH:FRAME:ROW:COLUMN")
    numbers = (
        limits.number_of(what, part) for what, part in zip(("a frame", "a row", "a column"), parts[1:], strict=True)
    )
    return Like(parts[0], *numbers)


def _error(status: int, text: str) -> Response:
    headers = {"Retry-After": "1"} if status == 503 else {}
    return JSONResponse({"error": text}, status, headers)


async def _refused(_request: Request, error: Exception) -> Response:
    """For what Starlette itself refuses: addresses and methods that there are not."""
    assert isinstance(error, HTTPException)
    said = {404: "there is no such page", 405: "only GET and HEAD are answered"}
    return _error(error.status_code, said.get(error.status_code, error.detail))


class _WithHeaders:
    """Adds the headers that every answer has."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, sent)


def make_app(place: Path, hosts: Sequence[str], note: Callable[[str], None] = lambda _: None) -> Starlette:
    """The application.

    Args:
        place: a folder, or a container.
        hosts: names by which it may be asked, ``*`` for any; others are refused, so that no page of another site can
            ask it through a name that it lets point here.
        note: is told what went wrong that is nobody's fault, a line each.
    """
    pages = Pages(place, note)
    middleware = [
        Middleware(_WithHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
    ]
    return Starlette(
        routes=pages.routes(),
        middleware=middleware,
        exception_handlers={HTTPException: _refused},
        lifespan=pages.living,
    )
