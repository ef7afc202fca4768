# SPDX-License-Identifier: MIT
"""Options that several commands share, and options made of what settings say of themselves."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click

from nervcodec.device import DEVICE, PRECISION
from nervcodec.errors import ConfigError
from nervcodec.settings import Setting, listed, settings_of

F = TypeVar("F", bound=Callable[..., Any])
_FEW = 3  # choices that are shown in place of a name for the value


class Parsed(click.ParamType):
    """A click type around a parser, whose errors become usage errors."""

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


class SettingOption(click.Option):
    """An option with the heading it stands under in help."""

    def __init__(self, declarations: list[str], section: str = "", **attributes: Any):
        super().__init__(declarations, **attributes)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help has its settings under headings, after all other options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of each section together."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "") or "Options", []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def settings(groups: Collection[type], sections: Collection[str]) -> Callable[[F], F]:
    """An option for every setting of some dataclasses, by section; without a default, so that None is not given."""
    said = [(kind, name, one) for kind in groups for name, one in settings_of(kind).items() if one.flag != ""]
    ordered = [(kind, name, one) for section in sections for kind, name, one in said if one.section == section]

    def decorate(command: F) -> F:
        for kind, name, one in reversed(ordered):
            hint = typing.get_type_hints(kind)[name]
            command = click.option(*declarations(name, one), cls=SettingOption, section=one.section,
                                   help=described(one), **_taking(one, hint))(command)  # fmt: skip
        return command

    return decorate


def setting(name: str, said: Setting) -> Callable[[F], F]:
    """One setting of choices as an option that has the setting's default, for a command that is no ``encode``."""
    kind = click.Choice(said.choices, case_sensitive=False)
    flags = declarations(name, said)
    return click.option(*flags, type=kind, default=said.default, show_default=True, help=said.help)


def declarations(name: str, said: Setting) -> list[str]:
    """``--flag`` and the name of its parameter."""
    return [said.option(name), name]


def described(said: Setting) -> str:
    """Help with the network that a setting is for, its choices where they are not shown already, and its default."""
    parts = [f"{said.network}: {said.help[0].lower()}{said.help[1:]}" if said.network else said.help]
    if said.forms:
        parts.append(f"Forms: {', '.join(said.forms)}.")
    if len(said.choices) > _FEW:
        parts.append(f"One of {listed(said.choices)}.")
    if said.without:
        parts.append(f"Default: {said.without}.")
    return " ".join(parts)


def _taking(said: Setting, hint: Any) -> dict[str, Any]:
    """How click reads a setting's value: attributes of an option."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if hint is bool:
        return {"is_flag": True, "default": None}
    if said.choices:
        few = len(said.choices) <= _FEW
        choice = click.Choice(said.choices, case_sensitive=False)
        return {"type": choice, "metavar": None if few else said.metavar}
    least = said.least if said.above is None else said.above
    most = said.most if said.below is None else said.below
    if said.parse is None and hint in (int, float):
        in_range: Any = click.IntRange if hint is int else click.FloatRange
        bounded = in_range(least, most, said.above is not None, said.below is not None)
        return {"type": bounded, "metavar": said.metavar}
    read = said.parse or str
    return {"type": Parsed(said.metavar, lambda text: said.settled("it", read(text))), "metavar": said.metavar}


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
    return setting("device", DEVICE)(setting("precision", PRECISION)(command))


quiet = click.option("-q", "--quiet", is_flag=True, help="No progress; warnings only.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Also report parameters and time of embedding.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
force = click.option("--force", is_flag=True, help="Overwrite an existing output.")
EXISTING = click.Path(exists=True, dir_okay=False)
SOURCE = click.Path(exists=True, allow_dash=True)  # what is no file is refused with the reason, by the library
