# SPDX-License-Identifier: MIT
"""Limits of requests: parameters are parsed and checked before any work starts."""

from __future__ import annotations

import re

from starlette.requests import Request

from nervcodec.errors import NervError

MOST_FILES = 100  # in one answer
MOST_MOMENTS = 100
MOST_POINTS = 2_000  # of a curve over time
MOST_TERMS = 8  # of a query
MOST_LETTERS = 200  # of one term
MOST_QUERY = 16_384  # characters after the question mark
SMALLEST_WIDTH, LARGEST_WIDTH = 16, 4_096
MOST_CLIP_S = 120.0  # of a moment that is saved
MOST_PIXELS = 1 << 26  # of a decoded frame: twice 8K
MOST_WAITING = 200  # queued jobs of one kind
MEDIA_BYTES = 5_000_000_000  # cached files to play
THUMBNAILS_BYTES = 128 << 20  # in the user's cache folder

_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)


class RefusedError(NervError):
    """The request is malformed or exceeds a limit."""


class MissingError(NervError):
    """No such file, frame or fragment."""


class ReplacedError(NervError):
    """The file changed since the version that the request names."""


class BusyError(NervError):
    """Too many queued jobs of this kind."""


def single_param(request: Request, name: str, default: str) -> str:
    """A query parameter that may occur once.

    Raises:
        RefusedError: it occurs several times.
    """
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise RefusedError(f"{name} occurs {len(values)} times")
    return values[0] if values else default


def integer(what: str, text: str, least: int = 0, most: int = 999_999_999) -> int:
    """An integer parameter.

    Args:
        what: its name in the message.
        text: digits.
        least, most: the allowed range.

    Raises:
        RefusedError: not an integer, or out of range.
    """
    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
        raise RefusedError(f"{what} is a whole number from {least} to {most:,}, not {_quoted(text)}")
    return int(text)


def seconds(what: str, text: str, least: float, most: float) -> float:
    """A parameter in seconds.

    Raises:
        RefusedError: not a decimal number, or out of range.
    """
    if not _DECIMAL.fullmatch(text) or not least <= float(text) <= most:
        raise RefusedError(f"{what} is from {least:g} to {most:g} seconds, not {_quoted(text)}")
    return float(text)


def choice(what: str, text: str, choices: tuple[str, ...]) -> str:
    """One of several words.

    Raises:
        RefusedError: it is none of them.
    """
    if text not in choices:
        raise RefusedError(f"{what} is one of {', '.join(choices)}, not {_quoted(text)}")
    return text


def query_text(text: str) -> str:
    """One text of a query.

    Raises:
        RefusedError: it is empty or too long.
    """
    if not text.strip():
        raise RefusedError("the query is empty")
    if len(text) > MOST_LETTERS:
        raise RefusedError(f"a text of a query has at most {MOST_LETTERS} characters, not {len(text):,}")
    return text


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 20 else f"{text[:20]}...")
