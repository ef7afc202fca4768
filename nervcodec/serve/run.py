# SPDX-License-Identifier: MIT
"""A server for the application: where it listens, by which names it is asked, and how it ends."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from nervcodec.errors import ConfigError

_GRACE_S = 1  # for answers under way when it is to end
_BACKLOG = 512
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Args:
        host: a name or address of this machine.
        port: 0 for any that is free.

    Raises:
        ConfigError: there is no such host here, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{host}: is no host here ({error.strerror or error})") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        remedy = "choose another with --port, or 0 for any that is free"
        raise ConfigError(f"port {port} of {host} cannot be had ({error.strerror or error}); {remedy}") from None
    return made


def address_of(made: socket.socket, host: str) -> str:
    """Where a browser on this machine finds it."""
    name = "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host
    return f"http://{f'[{name}]' if ':' in name else name}:{made.getsockname()[1]}/"


def names_of(host: str) -> list[str]:
    """By which names it may be asked: those of this machine, and none that another site could let point here."""
    try:
        place = ipaddress.ip_address(host)
    except ValueError:
        return [host, *_LOCAL]
    own = f"[{host}]" if place.version == 6 else host
    if not place.is_unspecified:
        return [own, *_LOCAL]
    names = {socket.gethostname(), socket.getfqdn()}
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        found = set()
    return [*_LOCAL, *sorted(names), *sorted(f"[{a}]" if ":" in a else a for a in found)]


class Server(uvicorn.Server):
    """Answers until it is interrupted.

    Args:
        app: the application.
        stop: is called before anything else when it is to end.
    """

    def __init__(self, app: ASGIApp, stop: Callable[[], None]):
        self._stop = stop
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",  # refuses a head of more than 64 KB
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer no more."""
        self._stop()
        await super().shutdown(sockets)
