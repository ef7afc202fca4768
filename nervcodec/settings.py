# SPDX-License-Identifier: MIT
"""Values of settings as Python callers have them, brought to the types that dataclasses state. Standard library only.

Numbers of numpy and torch are numbers; lists, arrays and ranges are tuples; paths are texts.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import types
import typing
from collections.abc import Collection
from fractions import Fraction
from typing import Any

from nervcodec.errors import ConfigError

_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", Fraction: "a frame rate"}
_FINEST_RATE = 100_000  # the largest denominator of a rate given as a floating-point number


def typed(name: str, hint: Any, value: object) -> Any:
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
