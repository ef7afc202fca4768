# SPDX-License-Identifier: MIT
"""Options that several commands share, and click types for ranges, pairs and times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from nervcodec.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


class Parsed(click.ParamType):
    """A click type around a parser of ``nervcodec.ranges``, whose errors become usage errors."""

    def __init__(self, name: str, parse: Callable[[str], Any]):
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text; values that are parsed already pass."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _lazy(function: str, *arguments: Any) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        from nervcodec import ranges

        return getattr(ranges, function)(text, *arguments)

    return parse


DURATION = Parsed("TIME", _lazy("parse_duration"))
SIZE = Parsed("SIZE", _lazy("parse_size"))
SCALE = Parsed("SCALE", _lazy("parse_scale"))
PATCHES = Parsed("RxC", _lazy("parse_pair", "x"))
PAIR = Parsed("H_W", _lazy("parse_pair", "x_"))


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().ensure_object(dict)["debug"] = True


def debug(command: F) -> F:
    """``--debug``: tracebacks."""
    option = click.option(
        "--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show a traceback when something fails."
    )
    return option(command)


def hardware(command: F) -> F:
    """``--device`` and ``--precision``."""
    command = click.option(
        "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True
    )(command)
    return click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True)(
        command
    )


quiet = click.option("-q", "--quiet", is_flag=True, help="No progress; warnings only.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Also report parameters and time of embedding.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
force = click.option("--force", is_flag=True, help="Overwrite an existing output.")
EXISTING = click.Path(exists=True, dir_okay=False)
SOURCE = click.Path(exists=True, allow_dash=True)  # what is no file is refused with the reason, by the library
