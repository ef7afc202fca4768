# SPDX-License-Identifier: MIT
"""Standard output for results and standard error for messages; names are escaped so that each is one line."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from typing import Any, TextIO

from nervcodec.errors import NervError
from nervcodec.formats.text import escape, escape_character, shorten

# Exit statuses; BROKEN_PIPE is how a shell reports a process that SIGPIPE ended.
FAILED, WRONG_USAGE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141
_LONGEST, _QUOTED = 500, 120  # characters of a message, and of a quotation in it


class OutputError(NervError):
    """Standard output cannot be written."""


def say(text: str) -> None:
    """A line on stdout."""
    print(escape(text), flush=True)


def remark(text: str) -> None:
    """A line on stderr that begins with the program's name."""
    print(f"nervcodec: {one_line(text)}", file=sys.stderr, flush=True)


def one_thread_for_numpy() -> None:
    """Limit OpenBLAS to one thread; call it before numpy is imported.

    For small matrices a second thread gains nothing, and its busy waiting cost seconds on a loaded machine.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def one_line(text: str) -> str:
    """A message, escaped and shortened in the middle where it or a quotation in it is too long."""
    cut = re.sub(rf"'[^']{{{_QUOTED},}}'", lambda quoted: f"'{shorten(quoted[0][1:-1], _QUOTED)}'", text.strip())
    return shorten(cut, _LONGEST)


def can_write(text: str) -> bool:
    """Whether stdout's encoding has every character of a text."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def prepare() -> None:
    """Make stdout and stderr accept every name, and turn errors of writing to them into :class:`OutputError`."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # reopen closed streams: otherwise the next file that is opened would take their descriptor
    os.close(spare)
    codecs.register_error("escaped", _escaped)
    sys.stdout = _Results(**_like(sys.stdout, 1))
    sys.stderr = _Remarks(**_like(sys.stderr, 2))


def discard(stream: TextIO) -> None:
    """Discard buffered output: Python would try to write it again at exit, and report an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Error handler for characters that an encoding lacks; see ``codecs.register_error``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(escape_character, error.object[error.start : error.end])), error.end


def _like(stream: Any, number: int) -> dict[str, Any]:
    """Arguments for a new stream over the same buffer; ``stream`` is None where it was closed at start-up."""
    if stream is None:
        return {"buffer": open(number, "wb", closefd=False), "encoding": "utf-8", "errors": "escaped"}
    kept = {name: getattr(stream, name) for name in ("encoding", "line_buffering", "write_through")}
    return {"buffer": stream.detach(), "errors": "escaped", **kept}


class _Results(io.TextIOWrapper):
    """Stdout."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise self._named(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._named(error) from None

    def _named(self, error: OSError) -> Exception:
        if isinstance(error, BrokenPipeError):
            return error
        return OutputError(f"standard output: cannot be written ({error.strerror or error})")


class _Remarks(io.TextIOWrapper):
    """Stderr; errors of writing to it are ignored, so that work goes on."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            discard(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            discard(self)
