# SPDX-License-Identifier: MIT
"""Results on stdout, as JSON or tables, and messages on stderr; names are escaped so that each is one line."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
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


def print_json(value: object) -> None:
    """Print a JSON document; in ASCII where stdout cannot encode it or a terminal would obey it."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not can_write(text) or any(escape(line) != line for line in text.split("\n")):
        text = json.dumps(value, indent=2)
    print(text, flush=True)


def print_pairs(title: str, pairs: Iterable[tuple[str, str]]) -> None:
    """A table of two columns; see :func:`print_table`."""
    print_table(title, ("", ""), pairs)


def print_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table: rich in a terminal, tab-separated lines without a head elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(map(escape, row)))
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    caption = Text(shorten(title))
    table = Table(title=caption, title_justify="left", show_header=any(head), box=None, padding=(0, 2, 0, 0))
    for name in head:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(escape(cell)) for cell in row))
    Console().print(table)


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


class _Stream(io.TextIOWrapper):
    """A text stream with a handler of write errors."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._handle(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._handle(error)

    def _handle(self, error: OSError) -> None:
        raise NotImplementedError


class _Results(_Stream):
    """Stdout: errors become :class:`OutputError`, but for a reader that has ended."""

    def _handle(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise error
        raise OutputError(f"standard output: cannot be written ({error.strerror or error})") from None


class _Remarks(_Stream):
    """Stderr: an error discards this and all later messages, and the work continues."""

    def _handle(self, error: OSError) -> None:
        discard(self)
