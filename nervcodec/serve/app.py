# SPDX-License-Identifier: MIT
"""An ASGI application of addresses and their answers, whose errors are JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nervcodec.errors import ConfigError, ContainerError, EncoderError, NervError
from nervcodec.serve import limits
from nervcodec.serve.desk import GoneError
from nervcodec.serve.views import Facts, Media, Pages, View
from nervcodec.serve.works import Works

Note = Callable[[str], None]
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
    (limits.ReplacedError, 410),
    (limits.BusyError, 503),
    (GoneError, 503),
    (EncoderError, 409),
    (ContainerError, 409),
    (ConfigError, 400),
)


def _silent(_text: str) -> None:
    """Nobody wants to know."""


def _answering(answer: View, brief: Callable[[str], str], note: Note) -> View:
    """An endpoint whose errors become JSON."""

    async def endpoint(request: Request) -> Response:
        try:
            if len(request.scope["query_string"]) > limits.MOST_QUERY:
                raise limits.RefusedError(f"a question has at most {limits.MOST_QUERY:,} characters")
            return await answer(request)
        except NervError as error:
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
            return _error(status, brief(str(error)))
        except HTTPException:
            raise
        except Exception as error:  # whatever it is, the server goes on and says so in one line
            note(f"{request.url.path}: internal error: {type(error).__name__}: {error}")
            return _error(500, f"internal error: {type(error).__name__}")

    return endpoint


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


def make_app(works: Works, hosts: Sequence[str], note: Note = _silent) -> Starlette:
    """The application.

    Args:
        works: what it is about.
        hosts: names by which it may be asked, ``*`` for any; others are refused, so that no page of another site can
            ask it through a name that it lets point here.
        note: is told what went wrong that is nobody's fault, a line each.
    """
    views = Pages(works).views() | Media(works).views() | Facts(works).views()
    middleware = [
        Middleware(_WithHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
    ]
    return Starlette(
        routes=[
            Route(address, _answering(view, works.shelf.brief, note), methods=["GET"])
            for address, view in views.items()
        ],
        middleware=middleware,
        exception_handlers={HTTPException: _refused},
        lifespan=works.living,
    )
