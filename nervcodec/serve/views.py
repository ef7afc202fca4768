# SPDX-License-Identifier: MIT
"""The answers to each address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from nervcodec.serve import limits, pictures
from nervcodec.serve.asked import only, question_of
from nervcodec.serve.desk import Desk, Leave
from nervcodec.serve.facts import described
from nervcodec.serve.fragments import plan, video_fragment
from nervcodec.serve.questions import Questions
from nervcodec.serve.sound import Sounds
from nervcodec.serve.works import Works

STATIC = Path(__file__).with_name("static")
_FRESH = {"Cache-Control": "no-cache"}
View = Callable[[Request], Awaitable[Response]]


class _Name(Convertor[str]):
    """The path of a container, which may have line breaks in it; Starlette's own takes none."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _Name())


class Pages:
    """Pages, and what they are made of."""

    def __init__(self, works: Works):
        self._works = works

    def views(self) -> dict[str, View]:
        """By address."""
        return {"/": self.library, "/watch/{path:name}": self.watch, "/static/{name}": self.static}

    async def library(self, _request: Request) -> Response:
        """All containers; the only one where there is one."""
        if self._works.shelf.single is not None:
            return RedirectResponse(f"/watch/{quote(self._works.shelf.single)}", 307)
        return FileResponse(STATIC / "library.html", headers=_FRESH)

    async def watch(self, request: Request) -> Response:
        """One container; to a browser the page itself says that there is none."""
        status = 200
        try:
            self._works.item(request)
        except limits.MissingError:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            status = 404
        return FileResponse(STATIC / "watch.html", status, headers=_FRESH)

    async def static(self, request: Request) -> Response:
        """What the pages are made of."""
        name = request.path_params["name"]
        if name not in {file.name for file in STATIC.iterdir() if file.is_file()}:
            raise limits.MissingError(f"there is no {name[:100]}")
        return FileResponse(STATIC / name, headers=_FRESH)


class Media:
    """Pictures and fragments."""

    def __init__(self, works: Works):
        self._works, self._sounds = works, Sounds()

    def views(self) -> dict[str, View]:
        """By address."""
        return {
            "/thumbnail/{path:name}": self.thumbnail,
            "/frame/{path:name}/{number}": self.frame,
            "/media/{path:name}/video/{number}": self.video,
            "/media/{path:name}/audio/{number}": self.audio,
        }

    async def thumbnail(self, request: Request) -> Response:
        """A small picture."""

        item = self._works.item(request)

        def made(_leave: Leave) -> bytes:
            return pictures.thumbnail(item.file)

        return await self._works.of_item(self._works.thumbnails, request, item, ("thumbnail",), made, "image/jpeg")

    async def frame(self, request: Request) -> Response:
        """One frame, decoded alone."""
        number = limits.number_of("a frame", request.path_params["number"])
        form = limits.chosen("format", only(request, "format", pictures.JPEG), (pictures.JPEG, pictures.PNG))
        wide = only(request, "width", "")
        width = limits.whole("width", wide, limits.SMALLEST_WIDTH, limits.LARGEST_WIDTH) if wide else None
        what, item = ("frame", number, form, width), self._works.item(request)

        def made(_leave: Leave) -> bytes:
            return pictures.picture(pictures.frame(self._works.shelf.open(item), number), form, width)

        self._works.head_for(item, number)
        response = await self._works.of_item(self._works.frames, request, item, what, made, f"image/{form}")
        self._works.go_ahead(item, number)
        return response

    async def video(self, request: Request) -> Response:
        """A fragment of the picture."""
        number, item = limits.number_of("a fragment", request.path_params["number"]), self._works.item(request)

        def made(leave: Leave) -> bytes:
            return video_fragment(self._works.shelf.open(item), number, leave)

        return await self._works.of_item(self._works.fragments, request, item, ("video", number), made, "video/mp4")

    async def audio(self, request: Request) -> Response:
        """A fragment of the sound."""
        number, item = limits.number_of("a fragment", request.path_params["number"]), self._works.item(request)

        def made(leave: Leave) -> bytes:
            video = self._works.shelf.open(item)
            cut = plan(video)
            pieces = self._sounds.of(item.version, video, leave) if number < cut.count else None
            if pieces is None:
                raise limits.MissingError(f"there is no sound {number:,} in {item.name}")
            return pieces.piece(number * cut.length, (number + 1) * cut.length)

        return await self._works.of_item(self._works.facts, request, item, ("audio", number), made, "audio/mp4")


class Facts:
    """What is known of files, and questions to them."""

    def __init__(self, works: Works):
        self._works, self._questions = works, Questions(works.shelf)

    def views(self) -> dict[str, View]:
        """By address."""
        return {
            "/api/files": self.files,
            "/api/file/{path:name}": self.file,
            "/api/search": self.search,
            "/api/fit/{path:name}": self.fit,
            "/api/patches/{path:name}/{number}": self.patches,
        }

    async def _told(self, desk: Desk, request: Request, key: object, work: Callable[[Leave], dict]) -> Response:
        """What some work finds out, as JSON."""
        return JSONResponse(await self._works.work(desk, request, key, work))

    async def files(self, request: Request) -> Response:
        """Some of the containers."""
        name = only(request, "name", "").casefold()[: limits.MOST_LETTERS]
        offset = limits.whole("offset", only(request, "offset", "0"), 0, 999_999_999)
        limit = limits.whole("limit", only(request, "limit", "60"), 1, limits.MOST_FILES)

        def listed(_leave: Leave) -> dict:
            items = [item for item in self._works.shelf.items() if name in item.path.casefold()]
            shown = [self._works.shelf.facts(item) for item in items[offset : offset + limit]]
            return {"folder": self._works.shelf.name, "total": len(items), "files": shown}

        return await self._told(self._works.facts, request, ("files", name, offset, limit), listed)

    async def file(self, request: Request) -> Response:
        """All that is known of one container."""
        item = self._works.item(request)
        key = "file", item.path, item.version
        return await self._told(self._works.facts, request, key, lambda _: described(self._works.shelf, item))

    async def search(self, request: Request) -> Response:
        """Moments that match."""
        question, limit = question_of(request), only(request, "limit", "24")
        most = limits.whole("limit", limit, 1, limits.MOST_MOMENTS)
        inside = only(request, "in", "") or None

        def found(leave: Leave) -> dict:
            return self._questions.search(question, inside, most, leave)

        return await self._told(self._works.questions, request, ("search", question, inside, most), found)

    async def fit(self, request: Request) -> Response:
        """How well a query fits over time."""
        question, item = question_of(request), self._works.item(request)

        def found(_leave: Leave) -> dict:
            fit = self._questions.fit(question, item)
            return {"times_s": fit.times_s, "scores": fit.scores, "threshold": fit.threshold}

        return await self._told(self._works.questions, request, ("fit", question, item), found)

    async def patches(self, request: Request) -> Response:
        """Where on a frame a query matches."""
        question, item = question_of(request), self._works.item(request)
        number = limits.number_of("a frame", request.path_params["number"])

        def found(_leave: Leave) -> dict:
            return self._questions.patches(question, item, number)

        return await self._told(self._works.questions, request, ("patches", question, item, number), found)
