# SPDX-License-Identifier: MIT
"""JSON objects <-> frozen dataclasses, rejecting unknown keys, missing keys and wrong types."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, TypeVar

from nervcodec.errors import ContainerError

T = TypeVar("T")


class Row:
    """A dataclass all of whose fields are required: stored as the list of their values, in order."""


def to_json(value: Any, compact: bool = False) -> Any:
    """Turn a dataclass (nested, with tuples and dicts) into plain JSON types; fields that are None are left out.

    Args:
        value: to turn.
        compact: as stored in files: without fields that are 0, false or empty by default.
    """
    if dataclasses.is_dataclass(value):
        fields = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        if isinstance(value, Row):
            return [to_json(v, compact) for _, v in fields]
        shown = [(f.name, v) for f, v in fields if v is not None and (v or not compact or f.default != v)]
        return {name: to_json(v, compact) for name, v in shown}
    if isinstance(value, (list, tuple)):
        return [to_json(v, compact) for v in value]
    if isinstance(value, dict):
        return {str(k): to_json(v, compact) for k, v in value.items()}
    return value


def from_json(kind: type[T], data: Any, where: str = "header") -> T:
    """Build a dataclass from JSON, checking every key and type; the dataclass's own checks run as well.

    Raises:
        ContainerError: with the path of the first wrong value, such as ``header.video.width``.
    """
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    if issubclass(kind, Row):
        if not isinstance(data, list) or len(data) != len(fields):
            raise ContainerError(f"{where} must be a list of {len(fields)} entries")
        data = dict(zip(fields, data, strict=True))
    if not isinstance(data, dict):
        raise ContainerError(f"{where} must be an object")
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ContainerError(f"{where} has unknown entries: {', '.join(repr(k)[:40] for k in unknown[:3])}")
    hints = _hints(typing.cast(Any, kind))
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ContainerError(f"{where}.{name} is missing")
    try:
        return kind(**values)
    except ValueError as error:
        raise ContainerError(f"{where}: {error}") from None


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = [a for a in arguments if a is not type(None)]
        return _convert(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ContainerError(f"{where} must be a list")
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(arguments):
            raise ContainerError(f"{where} must have {len(arguments)} entries")
        return tuple(_convert(a, v, where) for a, v in zip(arguments, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise ContainerError(f"{where} must be an object")
        return {k: _convert(arguments[1], v, f"{where}.{k[:40]}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type, hint), value, where)
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ContainerError(f"{where} is out of range") from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ContainerError(f"{where} must be of type {hint.__name__}")
    return value
