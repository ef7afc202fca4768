# SPDX-License-Identifier: MIT
"""What is said of a setting, once, and values brought to the types that dataclasses state. Standard library only.

A dataclass's field has a name, a type and a :class:`Setting`, which says all the rest; checks, the command line and
the documentation's tables read it there. As for values, numbers of numpy and torch are numbers; lists, arrays and
ranges are tuples; paths are texts.
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
    """All that is said of a setting beside its name and type.

    Attributes:
        default: None where it depends on something; ``unset`` says on what.
        help: a sentence or two, of which defaults, choices and bounds are no part.
        section: the heading it stands under.
        unset: what holds where nothing is given, in words, in place of the default.
        choices: the texts there are, in lower case; any case is taken.
        forms: the kinds of texts there are, for people; ``check`` knows them, or who reads them later.
        above, least, below, most: bounds of a number, or of each of several.
        parse: reads a text, as the command line has it; raises ``ConfigError``.
        check: raises ``ConfigError`` for a value that is none.
        joint: what stands between several numbers in a text.
        flag: name on the command line where it is not the field's; empty for a setting that is not there.
        metavar: of its value in help.
        network: the kind of network that it is for; empty for both.
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
    joint: str = "_"
    flag: str | None = None
    metavar: str = ""
    network: str = ""

    def option(self, name: str) -> str:
        """Its option on the command line, for the field of that name."""
        return f"--{self.flag or name.replace('_', '-')}"

    def field(self) -> Any:
        """A dataclass's field with this default."""
        return field(default=self.default, metadata={_KEY: self})

    def settled(self, name: str, value: Any) -> Any:
        """A value of the right type as it is kept: a choice as it is listed, all else as it is.

        Raises:
            ConfigError: it is not among the choices, out of bounds, or fails its check.
        """
        if value is None and self.default is None:
            return value
        if self.choices:
            if not isinstance(value, str) or value.lower() not in self.choices:
                there_are = ", ".join(self.choices)
                raise ConfigError(f"unknown {name.replace('_', ' ')} {value!r:.60}; there are {there_are}")
            return value.lower()
        if not all(map(self._within, value if isinstance(value, tuple) else (value,))):
            raise ConfigError(f"{name} must be {self.bounds}, not {value}")
        if self.check is not None:
            self.check(value)
        return value

    def _within(self, number: Any) -> bool:
        """Whether a number keeps the bounds; all else does. Not a number and infinity are within none."""
        return (
            (self.above is None or self.above < number < math.inf)
            and (self.least is None or self.least <= number < math.inf)
            and (self.below is None or number < self.below)
            and (self.most is None or number <= self.most)
        )

    @property
    def bounds(self) -> str:
        """In words; empty where there are none."""
        words = ("above {:g}", self.above), ("{:g} or more", self.least), ("below {:g}", self.below)
        parts = [text.format(bound) for text, bound in (*words, ("at most {:g}", self.most)) if bound is not None]
        return " and ".join(parts)

    @property
    def without(self) -> str:
        """What holds where nothing is given, in words; empty for nothing at all."""
        return self.unset or ("" if self.default is None or self.default is False else self.as_text(self.default))

    def as_text(self, value: Any) -> str:
        """A value as the command line has it."""
        if isinstance(value, tuple):
            return self.joint.join(map(str, value))
        return f"{value:g}" if isinstance(value, float) else str(value)


def join_names(names: Collection[str]) -> str:
    """Names with commas, numbered ones as from the first to the last: ``l1, l2, fusion1 to fusion12``."""
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
    """What is said of the fields of a dataclass, by name; fields of which nothing is said are left out."""
    return {part.name: part.metadata[_KEY] for part in fields(kind) if _KEY in part.metadata}


def owners(*groups: type) -> dict[str, type]:
    """The dataclass that each setting belongs to, by its name.

    Raises:
        TypeError: two of them have one of the same name.
    """
    found: dict[str, type] = {}
    for group in groups:
        for name in settings_of(group):
            if name in found:
                raise TypeError(f"{name} is a setting of both {found[name].__name__} and {group.__name__}")
            found[name] = group
    return found


def validate(instance: Any) -> None:
    """Check all settings of a frozen dataclass, for its ``__post_init__``.

    Raises:
        ConfigError: one is none of its choices, out of bounds, or fails its check.
    """
    for name, said in settings_of(type(instance)).items():
        value = getattr(instance, name)
        object.__setattr__(instance, name, said.settled(name, value))


def convert(kind: type, name: str, value: object) -> Any:
    """A value as a setting of a dataclass wants it, which may be given as a text; its bounds are not looked at.

    Raises:
        ConfigError: of another type, or a text that says nothing.
    """
    parse = settings_of(kind)[name].parse
    if isinstance(value, str) and parse is not None:
        try:
            value = parse(value)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
    return check_type(name, typing.get_type_hints(kind)[name], value)


def check_type(name: str, hint: Any, value: object) -> Any:
    """A value as a field of a dataclass wants it.

    Args:
        name: of the setting.
        hint: the field's type: int, float, str, bool, Fraction, a tuple of these, a class, or a union of them.
        value: any.

    Raises:
        ConfigError: of another type; the message names the setting.
    """
    found = _converted(hint, value)
    if found is NotImplemented:
        given = " ".join(repr(value).split())
        raise ConfigError(f"{name} must be {_described(hint)}, not {given:.60}")
    return found


def _converted(hint: Any, value: Any) -> Any:
    """The value as the type asked for; ``NotImplemented`` where it is none."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        tried = (_converted(kind, value) for kind in arguments)
        return next((found for found in tried if found is not NotImplemented), NotImplemented)
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
        return _whole(value)
    if hint is float:
        return _number(value)
    if hint is Fraction:
        return _fraction(value)
    if hint is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    return value if isinstance(value, hint) else NotImplemented


def _whole(value: Any) -> Any:
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
