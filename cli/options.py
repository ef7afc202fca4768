# SPDX-License-Identifier: MIT
"""Options that several commands share, and click options generated from settings."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click

from nervcodec.device import DEVICE, PRECISION
from nervcodec.errors import ConfigError
from nervcodec.settings import Setting, join_names, settings_of

F = TypeVar("F", bound=Callable[..., Any])
_SHORT_CHOICES = 3  # up to this many, help shows the choices in place of a metavar


class Parsed(click.ParamType):
    """A click type made of a parser; its ``ConfigError`` becomes a usage error."""

    def __init__(self, name: str, parse: Callable[[str], Any]):
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text; other values pass unchanged."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class FiniteRange(click.FloatRange):
    """A number in a range; click's own type takes NaN and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text; other values pass unchanged."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class SettingOption(click.Option):
    """An option with the section of the help it is listed in."""

    def __init__(self, declarations: list[str], section: str = "", **attributes: Any):
        super().__init__(declarations, **attributes)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help lists settings by section, after all other options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "") or "Options", []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def settings(groups: Collection[type], sections: Collection[str]) -> Callable[[F], F]:
    """An option for each setting of some dataclasses, by section. The default is None: the option was not used."""
    entries = [(kind, name, setting) for kind in groups for name, setting in settings_of(kind).items()]
    shown = [entry for entry in entries if entry[2].flag != ""]
    ordered = [entry for section in sections for entry in shown if entry[2].section == section]

    def decorate(command: F) -> F:
        for kind, name, setting in reversed(ordered):
            hint = typing.get_type_hints(kind)[name]
            command = click.option(*declarations(name, setting), cls=SettingOption, section=setting.section,
                                   help=help_text(setting), **_click_attributes(setting, hint))(command)  # fmt: skip
        return command

    return decorate


def choice(name: str, setting: Setting) -> Callable[[F], F]:
    """A setting with choices as an option with its default, for commands other than ``encode``."""
    kind = click.Choice(setting.choices, case_sensitive=False)
    flags = declarations(name, setting)
    return click.option(*flags, type=kind, default=setting.default, show_default=True, help=setting.help)


def declarations(name: str, setting: Setting) -> list[str]:
    """``--flag`` and the name of its parameter."""
    return [setting.option(name), name]


def help_text(setting: Setting) -> str:
    """A setting's help with the kind of network it is for, its choices and its default."""
    text = setting.help
    parts = [f"{setting.network}: {text[0].lower()}{text[1:]}" if setting.network else text]
    if setting.forms:
        parts.append(f"Forms: {', '.join(setting.forms)}.")
    if len(setting.choices) > _SHORT_CHOICES:
        parts.append(f"One of {join_names(setting.choices)}.")
    if setting.default_text:
        parts.append(f"Default: {setting.default_text}.")
    return " ".join(parts)


def _click_attributes(setting: Setting, hint: Any) -> dict[str, Any]:
    """Attributes of the click option that reads a setting's value."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if hint is bool:
        return {"is_flag": True, "default": None}
    if setting.choices:
        kind = click.Choice(setting.choices, case_sensitive=False)
        return {"type": kind, "metavar": None if len(setting.choices) <= _SHORT_CHOICES else setting.metavar}
    least = setting.least if setting.above is None else setting.above
    most = setting.most if setting.below is None else setting.below
    if setting.parse is None and hint in (int, float):
        in_range: Any = click.IntRange if hint is int else FiniteRange
        bounded = in_range(least, most, setting.above is not None, setting.below is not None)
        return {"type": bounded, "metavar": setting.metavar}
    read = setting.parse or str
    parsed = Parsed(setting.metavar, lambda text: setting.validated("it", read(text)))
    return {"type": parsed, "metavar": setting.metavar}


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
    return choice("device", DEVICE)(choice("precision", PRECISION)(command))


quiet = click.option("-q", "--quiet", is_flag=True, help="No progress; warnings only.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Also report parameters and time of embedding.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
force = click.option("--force", is_flag=True, help="Overwrite an existing output.")
EXISTING = click.Path(exists=True, dir_okay=False)
SOURCE = click.Path(exists=True, allow_dash=True)  # the library refuses everything but files and folders
