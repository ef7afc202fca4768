# SPDX-License-Identifier: MIT
"""Settings as dataclass fields, and conversion of values to the types of the fields. Standard library only.

A field has a name, a type and a :class:`Setting` with everything else; checks, the command line and the tables of the
documentation are derived from it. Values may be numbers of numpy and torch, lists, arrays and ranges for tuples, and
paths for strings.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import types
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

from nervcodec.errors import ConfigError

_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", Fraction: "a frame rate"}
_FINEST_RATE = 100_000  # the largest denominator of a rate given as a floating-point number
_KEY = "setting"  # of a field's metadata


@dataclass(frozen=True)
class Setting:
    """Description of a setting besides its name and type.

    Attributes:
        default: None where it depends on other settings or the video; ``unset`` explains how.
        help: a sentence or two, without defaults, choices and bounds.
        section: heading in the help.
        unset: description of the behaviour without a value, in place of the default.
        choices: valid strings, in lower case; case is ignored.
        forms: descriptions of valid strings, for people; ``check`` or the consumer validates them.
        above, least, below, most: bounds of a number, or of each number of a tuple.
        parse: from a string of the command line; raises ``ConfigError``.
        check: raises ``ConfigError`` for an invalid value.
        separator: between several numbers in a string.
        flag: name on the command line if it differs from the field's; empty for a setting without an option.
        metavar: of its value in help.
        network: kind of network it applies to; empty for both.
    """

    default: Any
    help: str
    section: str = ""
    unset: str = ""
    choices: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None
    parse: Callable[[str], Any] | None = None
    check: Callable[[Any], object] | None = None
    separator: str = "_"
    flag: str | None = None
    metavar: str = ""
    network: str = ""

    def option(self, name: str) -> str:
        """Option on the command line, for a field name."""
        return f"--{self.flag or name.replace('_', '-')}"

    def field(self) -> Any:
        """A dataclass's field with this default."""
        return field(default=self.default, metadata={_KEY: self})

    def validated(self, name: str, value: Any) -> Any:
        """A value of the right type, choices in lower case.

        Raises:
            ConfigError: not among the choices, out of bounds, or invalid.
        """
        if value is None and self.default is None:
            return value
        if self.choices:
            if not isinstance(value, str) or value.lower() not in self.choices:
                choices = ", ".join(self.choices)
                raise ConfigError(f"unknown {name.replace('_', ' ')} {value!r:.60}; there are {choices}")
            return value.lower()
        if not all(map(self._within, value if isinstance(value, tuple) else (value,))):
            raise ConfigError(f"{name} must be {self.bounds}, not {value}")
        if self.check is not None:
            self.check(value)
        return value

    def _within(self, number: Any) -> bool:
        """Whether a number is within the bounds; NaN and infinity are within none."""
        return (
            (self.above is None or self.above < number < math.inf)
            and (self.least is None or self.least <= number < math.inf)
            and (self.below is None or number < self.below)
            and (self.most is None or number <= self.most)
        )

    @property
    def bounds(self) -> str:
        """Bounds in words; empty where there are none."""
        words = ("above {:g}", self.above), ("{:g} or more", self.least), ("below {:g}", self.below)
        parts = [text.format(bound) for text, bound in (*words, ("at most {:g}", self.most)) if bound is not None]
        return " and ".join(parts)

    @property
    def default_text(self) -> str:
        """Default in words; empty for none."""
        return self.unset or ("" if self.default is None or self.default is False else self.as_text(self.default))

    def as_text(self, value: Any) -> str:
        """A value as written on the command line."""
        if isinstance(value, tuple):
            return self.separator.join(map(str, value))
        return f"{value:g}" if isinstance(value, float) else str(value)


def join_names(names: Collection[str]) -> str:
    """Names with commas, consecutive numbered ones as a range: ``l1, l2, fusion1 to fusion12``."""
    parts: list[list[str]] = []
    for name in names:
        stem = name.rstrip("0123456789")
        last = parts[-1][-1] if parts else ""
        follows = last.removeprefix(stem).isdecimal() and name == f"{stem}{int(last.removeprefix(stem)) + 1}"
        if follows:
            parts[-1].append(name)
        else:
            parts.append([name])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(run) for run in parts)


def settings_of(kind: type) -> dict[str, Setting]:
    """Settings of a dataclass by field name; other fields are left out."""
    return {part.name: part.metadata[_KEY] for part in fields(kind) if _KEY in part.metadata}


def group_by_setting(*groups: type) -> dict[str, type]:
    """The dataclass of each setting, by name.

    Raises:
        TypeError: two of them have one of the same name.
    """
    group_of: dict[str, type] = {}
    for group in groups:
        for name in settings_of(group):
            if name in group_of:
                raise TypeError(f"{name} is a setting of both {group_of[name].__name__} and {group.__name__}")
            group_of[name] = group
    return group_of


def validate(instance: Any) -> None:
    """Validate all settings of a frozen dataclass, in its ``__post_init__``.

    Raises:
        ConfigError: one is not among its choices, out of bounds, or invalid.
    """
    for name, setting in settings_of(type(instance)).items():
        value = getattr(instance, name)
        object.__setattr__(instance, name, setting.validated(name, value))


def convert(kind: type, name: str, value: object) -> Any:
    """Convert a value, possibly a string, to the type of a setting; bounds are not checked.

    Raises:
        ConfigError: wrong type, or an invalid string.
    """
    parse = settings_of(kind)[name].parse
    if isinstance(value, str) and parse is not None:
        try:
            value = parse(value)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
    return check_type(name, typing.get_type_hints(kind)[name], value)


def check_type(name: str, hint: Any, value: object) -> Any:
    """Convert a value to the type of a dataclass field.

    Args:
        name: of the setting.
        hint: the field's type: int, float, str, bool, Fraction, a tuple of these, a class, or a union of them.
        value: any.

    Raises:
        ConfigError: wrong type; the message names the setting.
    """
    result = _converted(hint, value)
    if result is NotImplemented:
        text = " ".join(repr(value).split())
        raise ConfigError(f"{name} must be {_described(hint)}, not {text:.60}")
    return result


def _converted(hint: Any, value: Any) -> Any:
    """The value converted to a type; ``NotImplemented`` if that is not possible."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        results = (_converted(kind, value) for kind in arguments)
        return next((result for result in results if result is not NotImplemented), NotImplemented)
    if origin is tuple:
        if isinstance(value, (str, bytes)) or not isinstance(value, Collection) or not getattr(value, "ndim", 1):
            return NotImplemented
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        entries = [_converted(kind, entry) for kind, entry in zip(kinds, value, strict=False)]
        fits = len(value) == len(kinds) > 0 and all(entry is not NotImplemented for entry in entries)
        return tuple(entries) if fits else NotImplemented
    if getattr(value, "ndim", None) == 0:
        value = value.item()  # a number of numpy, or an array or tensor of one
    if hint is int:
        return _integer(value)
    if hint is float:
        return _number(value)
    if hint is Fraction:
        return _fraction(value)
    if hint is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    return value if isinstance(value, hint) else NotImplemented


def _integer(value: Any) -> Any:
    try:
        return NotImplemented if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return NotImplemented


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        return NotImplemented
    return value if isinstance(value, (int, float)) else float(value)


def _fraction(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError):
            return NotImplemented
    number = _number(value)
    if number is NotImplemented or isinstance(value, numbers.Rational):
        return number if number is NotImplemented else Fraction(value)
    return Fraction(number).limit_denominator(_FINEST_RATE)


def _described(hint: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_described(kind) for kind in arguments if kind is not type(None))
    if origin is tuple:
        count = "several" if arguments[-1] is Ellipsis else {2: "two", 3: "three"}.get(len(arguments), len(arguments))
        return f"{count} {'whole numbers' if arguments[0] is int else 'numbers'}"
    return _KINDS.get(hint, f"a {getattr(hint, '__name__', hint)}")
