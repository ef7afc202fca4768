# SPDX-License-Identifier: MIT
"""``nervcodec serve``."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from nervcodec.cli import options
from nervcodec.cli.output import one_thread_for_numpy, remark, say
from nervcodec.ranges import parse_size


@click.command(epilog="Example: nervcodec serve videos/ --open")
@click.argument("place", metavar="[FILE|FOLDER]", type=click.Path(exists=True), default=".")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes any that is free."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 lets other machines connect."
)
@click.option("--name", "names", metavar="HOST", multiple=True, help="Accept this host name too, as a proxy sends it.")
@click.option("--root-path", metavar="/PREFIX", default="", help="The path below which a proxy serves the page.")
@click.option(
    "--media-cache",
    type=options.Parsed("SIZE", parse_size),
    default="5GB",
    show_default=True,
    help="Disk space for files that were prepared to play.",
)
@click.option("--open", "in_browser", is_flag=True, help="Open the page in the browser.")
@options.debug
def serve(
    place: str, port: int, host: str, names: tuple[str, ...], root_path: str, media_cache: float, in_browser: bool
) -> None:
    """Show .nerv files in a browser: watch, scrub and search them. Needs the extra "serve".

    PLACE is a container, or a folder of which all containers are shown; by default the current one. Only this machine
    can connect unless --host says otherwise.
    """
    one_thread_for_numpy()
    from nervcodec.errors import ConfigError

    try:
        from nervcodec.serve.app import make_app
        from nervcodec.serve.run import Server, addresses, host_names, listening
        from nervcodec.serve.state import AppState
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(f'serve needs {package}; pip install "nervcodec[serve]"') from None
    with listening(host, port) as made:
        state = AppState(Path(place), int(media_cache))
        server = Server(make_app(state, host_names(host, names), remark, root_path), state.stop)
        address, outer = addresses(made, host, root_path)
        say(f"{address} shows {place}; Ctrl-C ends it")
        if outer is not None:
            say(f"{outer} is its address for other machines")
        if in_browser:
            webbrowser.open(address)
        server.run(sockets=[made])
    raise KeyboardInterrupt  # nothing else ends it
