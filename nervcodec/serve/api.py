# SPDX-License-Identifier: MIT
"""JSON endpoints: the list of files, the details of one, and searches."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nervcodec.formats.container import Container
from nervcodec.network.summary import Summary
from nervcodec.serve import limits, transcode
from nervcodec.serve.answers import Like, Question
from nervcodec.serve.executor import CancellationToken, SingleFlightExecutor
from nervcodec.serve.limits import integer, query_text, single_param
from nervcodec.serve.questions import Questions
from nervcodec.serve.state import AppState
from nervcodec.serve.store import ContainerStore, FileEntry

_SORTS = ("date", "name", "length")


class Api:
    """Endpoints below ``/api``."""

    def __init__(self, state: AppState):
        self._state, self._questions = state, Questions(state.store)

    def routes(self) -> list[Route]:
        """The routes of all endpoints."""
        return [
            Route("/api/files", self.files),
            Route("/api/file/{path:name}", self.file),
            Route("/api/search", self.search),
            Route("/api/fit/{path:name}", self.fit),
            Route("/api/patches/{path:name}/{number}", self.patches),
        ]

    async def _json(
        self, executor: SingleFlightExecutor, request: Request, key: object, work: Callable[[CancellationToken], dict]
    ) -> Response:
        return JSONResponse(await self._state.run(executor, request, key, work))

    async def files(self, request: Request) -> Response:
        """One page of the list of containers."""
        name = fold(single_param(request, "name", "")[: limits.MOST_LETTERS])
        folder = single_param(request, "folder", "")
        sort = limits.choice("sort", single_param(request, "sort", "date"), _SORTS)
        offset = integer("offset", single_param(request, "offset", "0"))
        limit = integer("limit", single_param(request, "limit", "60"), 1, limits.MOST_FILES)

        def list_files(_token: CancellationToken) -> dict:
            return _list_files(self._state.store, name, folder, sort, offset, limit)

        return await self._json(self._state.facts, request, ("files", name, folder, sort, offset, limit), list_files)

    async def file(self, request: Request) -> Response:
        """The details of one container."""
        item = self._state.entry(request)
        if self._state.store.require_showable(item).base is None:
            self._state.media.prepare()
        key = "file", item.path, item.version
        return await self._json(self._state.facts, request, key, lambda _: file_details(self._state, item))

    async def search(self, request: Request) -> Response:
        """Moments that match a query."""
        question = query_params(request)
        limit = integer("limit", single_param(request, "limit", "24"), 1, limits.MOST_MOMENTS)
        path, folder = single_param(request, "in", "") or None, single_param(request, "folder", "")

        def find(token: CancellationToken) -> dict:
            return self._questions.search(question, path, folder, limit, token)

        return await self._json(self._state.questions, request, ("search", question, path, folder, limit), find)

    async def fit(self, request: Request) -> Response:
        """Scores of a query over the time of one container."""
        question, item = query_params(request), self._state.entry(request)

        def compute(_token: CancellationToken) -> dict:
            fit = self._questions.fit(question, item)
            return {"times_s": fit.times_s, "scores": fit.scores, "threshold": fit.threshold}

        return await self._json(self._state.questions, request, ("fit", question, item), compute)

    async def patches(self, request: Request) -> Response:
        """Scores of a query for each patch of one frame."""
        question, item = query_params(request), self._state.entry(request)
        number = integer("a frame", request.path_params["number"])

        def compute(_token: CancellationToken) -> dict:
            return self._questions.patches(question, item, number)

        return await self._json(self._state.questions, request, ("patches", question, item, number), compute)


def query_params(request: Request) -> Question:
    """The query of a request: ``add`` and ``subtract`` (texts, several) and ``like`` (``PATH:FRAME:ROW:COLUMN``).

    Raises:
        RefusedError: it is empty, malformed or too long.
    """
    params = request.query_params
    add, subtract, like = params.getlist("add"), params.getlist("subtract"), single_param(request, "like", "")
    if len(add) + len(subtract) > limits.MOST_TERMS:
        raise limits.RefusedError(f"a query has at most {limits.MOST_TERMS} texts")
    if not add and not like:
        raise limits.RefusedError("the query is empty")
    texts = tuple(map(query_text, add)), tuple(map(query_text, subtract))
    return Question(*texts, _like(like) if like else None)


def _like(text: str) -> Like:
    parts = text.rsplit(":", 3)
    if len(parts) != 4:
        raise limits.RefusedError("like is PATH:FRAME:ROW:COLUMN")
    return Like(parts[0], *map(integer, ("a frame", "a row", "a column"), parts[1:]))


def fold(text: str) -> str:
    """A name for comparison: composed characters (macOS stores names decomposed) and no difference of case."""
    composed = unicodedata.normalize("NFC", text).casefold()
    return unicodedata.normalize("NFC", composed.replace("i\u0307", "i"))  # casefold() of the Turkish dotted capital I


def _list_files(store: ContainerStore, name: str, folder: str, sort: str, offset: int, limit: int) -> dict:
    """Containers below ``folder`` whose path contains ``name``, and the folders directly in ``folder``."""
    inside = store.entries(folder)
    start = len(folder) + 1 if folder else 0
    folders: dict[str, int] = {}
    for item in inside:
        first, slash, _ = item.path[start:].partition("/")
        if slash:
            folders[first] = folders.get(first, 0) + 1
    items = [item for item in inside if name in fold(item.path[start:])]
    if sort == "name":
        items.sort(key=lambda item: (fold(item.name), item.path))
    elif sort == "length":
        items.sort(key=lambda item: -(store.facts(item)["duration_s"] or 0))
    return {
        "folder": store.name,
        "folders": [{"name": name, "files": folders[name]} for name in sorted(folders, key=fold)],
        "total": len(items),
        "newest": max((item.modified_ns for item in items), default=0) / 1e9,
        "files": [store.facts(item) for item in items[offset : offset + limit]],
    }


def file_details(state: AppState, item: FileEntry) -> dict:
    """Everything that the page shows of one container; no network is built.

    Raises:
        ContainerError: it is damaged.
    """
    header = state.store.require_showable(item)
    with Container.open(item.file) as opened:
        summary = Summary.of(opened)
        times = opened.frame_times().tolist() if header.video.variable_frame_rate else None
    media = state.base_worker.call(transcode.formats, item.file)
    for form in media:
        form["is_whole"] = form["codec"] == transcode.BASE or state.media.target(item, form["codec"]).exists()
    rows, columns = header.patch_grid
    return {
        **state.store.facts(item),
        "version": item.version,
        "frame_times_s": times,
        "grid": {"rows": rows, "cols": columns},
        "parts": [{"name": name, "bytes": count} for name, count in summary.bytes_by_part.items()],
        "facts": [{"name": name, "value": value} for name, value in summary.rows()],
        "psnr_over_time": None,  # no file holds it
        "has_base": header.base is not None,
        "media": media,
    }
