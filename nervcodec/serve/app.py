# SPDX-License-Identifier: MIT
"""The ASGI application: routes, pages, errors, and the checks that every request passes."""

from __future__ import annotations

import html
import ipaddress
import re
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nervcodec.errors import ConfigError, ContainerError, EncoderError, NervError
from nervcodec.serve import limits
from nervcodec.serve.api import Api
from nervcodec.serve.executor import ClientDisconnectedError
from nervcodec.serve.routes import Media
from nervcodec.serve.state import AppState

_STATIC = Path(__file__).with_name("static")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[\w.-]+)(:\d*)?")
_MEDIA = ("/clip/", "/frame/", "/media/", "/thumbnail/", "/static/")  # requested by scripts and elements of the page
# HTTP status of each kind of error; the first match counts.
_STATUS: tuple[tuple[type[NervError], int], ...] = (
    (limits.RefusedError, 400),
    (limits.MissingError, 404),
    (limits.ReplacedError, 410),
    (limits.BusyError, 503),
    (ClientDisconnectedError, 503),
    (EncoderError, 409),
    (ContainerError, 409),
    (ConfigError, 400),
)
_TEXTS = {404: "there is no such page", 405: "only GET and HEAD are answered"}  # of errors that Starlette raises


class _PathConvertor(Convertor[str]):
    """The path of a container. Unlike Starlette's own convertor it accepts line breaks."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _PathConvertor())


class _Pages:
    """HTML pages and errors.

    Args:
        root_path: prefix of all addresses.
    """

    def __init__(self, root_path: str):
        self._root_path = root_path

    def page(self, name: str, status: int = 200, **texts: str) -> Response:
        """A page whose addresses begin with the root path, with ``{{name}}`` replaced by texts."""
        page = (_STATIC / name).read_text("utf-8").replace('="/', f'="{self._root_path}/')
        for key, text in texts.items():
            page = page.replace(f"{{{{{key}}}}}", html.escape(text))
        return HTMLResponse(page, status)

    def error(self, request: Request, status: int, text: str) -> Response:
        """JSON below ``/api``, a page with the way home in a browser, otherwise one line of text."""
        path = request.scope["path"].removeprefix(self._root_path)
        response: Response
        if path.startswith("/api/"):
            response = JSONResponse({"error": text}, status)
        elif path.startswith(_MEDIA) and "text/html" not in request.headers.get("accept", ""):
            response = PlainTextResponse(text, status)
        else:
            title = "Not found" if status == 404 else "This page cannot be shown"
            response = self.page("error.html", status, title=title, error=f"{text[:1].upper()}{text[1:]}.")
        if status == 503:
            response.headers["Retry-After"] = "1"
        return response


class _Gate:
    """Middleware: checks the Host header, sets the root path, and adds the headers of every response.

    Args:
        app: the application.
        pages: make the refusals.
        hosts: host names that are accepted besides ``*.local`` and addresses in digits.
        root_path: the prefix below which a proxy serves the application; a proxy may strip it or not.
    """

    def __init__(self, app: ASGIApp, pages: _Pages, hosts: Collection[str], root_path: str):
        self._app, self._pages, self._root_path = app, pages, root_path
        self._hosts = {host.lower().rstrip(".") for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        scope["root_path"] = self._root_path
        if not f"{scope['path']}/".startswith(f"{self._root_path}/"):
            scope["path"] = self._root_path + scope["path"]
        elif scope["path"] == self._root_path:
            scope["path"] += "/"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        app = self._app
        host = Headers(scope=scope).get("host", "")
        if not self._is_allowed(host):
            text = f'this server does not answer to the name "{host[:100]}"; start it with --name to allow a name'
            app = self._pages.error(Request(scope), 400, text)
        elif len(scope["query_string"]) > limits.MOST_QUERY:
            text = f"a query string has at most {limits.MOST_QUERY:,} characters"
            app = self._pages.error(Request(scope), 400, text)
        await app(scope, receive, send_with_headers)

    def _is_allowed(self, header: str) -> bool:
        """Whether a Host header is an address in digits or an accepted name.

        DNS rebinding, where a page of another site reaches this server under a name of that site, needs a name.
        """
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        name = match[1].lower().rstrip(".")
        if name in self._hosts or name.endswith(".local"):
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def make_app(
    state: AppState, hosts: Collection[str], note: Callable[[str], None] = lambda _text: None, root_path: str = ""
) -> ASGIApp:
    """The application.

    Args:
        state: files, threads and worker processes.
        hosts: names that the Host header may have; addresses in digits and ``*.local`` are always accepted.
        note: gets one line for each internal error.
        root_path: prefix of all addresses behind a proxy, such as ``/nervcodec``.

    Raises:
        ConfigError: the root path is malformed, or begins like an address of the application.
    """
    root_path = root_path.rstrip("/")
    own = {"api", "watch", *(part.strip("/") for part in _MEDIA)}
    if root_path and (not re.fullmatch(r"(/[\w.~-]+)+", root_path, re.ASCII) or root_path.split("/")[1] in own):
        raise ConfigError(f"--root-path {root_path}: must be like /nervcodec, and none of /{', /'.join(sorted(own))}")

    pages = _Pages(root_path)

    async def library(_request: Request) -> Response:
        if state.store.single is not None:
            return RedirectResponse(f"{root_path}/watch/{quote(state.store.single)}", 307)
        return pages.page("library.html")

    async def watch(request: Request) -> Response:
        state.entry(request)
        return pages.page("watch.html")

    async def known_error(request: Request, error: Exception) -> Response:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        return pages.error(request, status, state.store.redact(str(error)))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return pages.error(request, error.status_code, _TEXTS.get(error.status_code, error.detail))

    async def internal_error(request: Request, error: Exception) -> Response:
        if isinstance(error.__cause__, NervError):  # Starlette wraps what is raised after a response has begun
            note(f"{request.url.path}: {error.__cause__}")
        else:
            note(f"{request.url.path}: internal error: {type(error).__name__}: {error}")
        return pages.error(request, 500, f"internal error: {type(error).__name__}")

    app = Starlette(
        routes=[
            Route("/", library),
            Route("/watch/{path:name}", watch),
            Mount("/static", StaticFiles(directory=_STATIC)),
            *Media(state).routes(),
            *Api(state).routes(),
        ],
        exception_handlers={NervError: known_error, HTTPException: http_error, Exception: internal_error},
        lifespan=state.lifespan,
    )
    app.router.redirect_slashes = False
    return _Gate(app, pages, hosts, root_path)
