# SPDX-License-Identifier: MIT
"""The HTTP server: its socket, its addresses and names, and its end."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection

import uvicorn
from starlette.types import ASGIApp

from nervcodec.errors import ConfigError

_GRACE_S = 1  # for responses in progress at the end
_BACKLOG = 512
_UNSPECIFIED = ("0.0.0.0", "::")  # listen at all addresses of this machine


def listening(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: a name or address of this machine.
        port: 0 for any that is free.

    Raises:
        ConfigError: this machine has no such address, or the port is taken.
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


def addresses(made: socket.socket, host: str, root_path: str = "") -> tuple[str, str | None]:
    """Where a browser of this machine finds the page, and one of another machine (None where none can)."""
    port, root = made.getsockname()[1], f"{root_path.rstrip('/')}/"
    if host not in _UNSPECIFIED:
        return _url(host, port, root), None
    own = _url("127.0.0.1" if host == "0.0.0.0" else "::1", port, root)
    outer = _outer_address(made.family)
    return own, None if outer is None else _url(outer, port, root)


def _url(host: str, port: int, root: str) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{root}"


def _outer_address(family: int) -> str | None:
    """The address of this machine in its network; a UDP socket is connected for that, no packet is sent."""
    target = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"  # documentation addresses
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            address = str(probe.getsockname()[0])
    except OSError:  # no network
        return None
    return None if ipaddress.ip_address(address).is_loopback else address


def host_names(host: str, more: Collection[str] = ()) -> set[str]:
    """Names that the Host header may have: those of this machine, ``--host``, and ``--name``."""
    own = {socket.getfqdn()} if host in _UNSPECIFIED else {host}
    return {"localhost", socket.gethostname(), *own, *more}


class Server(uvicorn.Server):
    """Serves until it is interrupted.

    Args:
        app: the application.
        stop: is called first when the server ends.
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
        """Stop work in threads, then close all connections."""
        self._stop()
        await super().shutdown(sockets)
