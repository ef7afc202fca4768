# SPDX-License-Identifier: MIT
"""What a request may ask for: numbers and texts from strangers, read and refused before anything is done for them."""

from __future__ import annotations

import re

from nervcodec.device import physical_memory
from nervcodec.errors import NervError

MOST_FILES = 100  # in one answer
MOST_MOMENTS = 100
MOST_POINTS = 2_000  # of a curve over time
MOST_TERMS = 8  # of a query
MOST_LETTERS = 200  # of one term
MOST_QUERY = 16_384  # characters after the question mark
SMALLEST_WIDTH, LARGEST_WIDTH = 16, 4_096
MOST_PIXELS = 1 << 26  # of a frame that is decoded here: twice 8K
MOST_WAITING = 200  # pieces of work of one kind that wait for a thread
ANSWERS_BYTES = 64 << 20  # of pictures and fragments kept for who asks next
_FRAMES_BYTES = 256 << 20, 1 << 30  # of decoded frames kept of base layers, at the least and at the most
_FRAMES_SHARE = 8  # of the machine's memory, a part of which that may be
SOUND_BYTES = 1 << 30  # of a file's sound, beyond which it is not played
THUMBNAILS_BYTES = 128 << 20  # in the user's cache folder
OPEN_FILES = 16

_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)


def frames_bytes() -> int:
    """Bytes of decoded frames that are kept of streams in which a frame hangs on others."""
    least, most = _FRAMES_BYTES
    return min(max(least, (physical_memory() or 0) // _FRAMES_SHARE), most)


class RefusedError(NervError):
    """A request that asks for what cannot be, or for too much."""


class MissingError(NervError):
    """There is no such file, frame or fragment."""


class ReplacedError(NervError):
    """The file is not the one any more that is asked about."""


class BusyError(NervError):
    """Too many others wait for the same."""


def whole(what: str, text: str, least: int, most: int) -> int:
    """A whole number of a request.

    Args:
        what: it is, for the message.
        text: digits.
        least, most: what is taken.

    Raises:
        RefusedError: it is none, or out of range.
    """
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise RefusedError(f"{what} is a whole number from {least} to {most:,}, not {_quoted(text)}")
    return int(text)


def number_of(what: str, text: str) -> int:
    """The number of a frame or fragment in an address, of which there may be fewer.

    Raises:
        RefusedError: no whole number from 0 to 999,999,999.
    """
    return whole(what, text, 0, 999_999_999)


def chosen(what: str, text: str, choices: tuple[str, ...]) -> str:
    """One of some words.

    Raises:
        RefusedError: it is none of them.
    """
    if text not in choices:
        raise RefusedError(f"{what} is one of {', '.join(choices)}, not {_quoted(text)}")
    return text


def words(text: str) -> str:
    """A text of a query.

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
