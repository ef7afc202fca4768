# SPDX-License-Identifier: MIT
"""Results as JSON or tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from nervcodec.cli.output import can_write
from nervcodec.formats.text import escape, shorten


def print_json(value: object) -> None:
    """Print a JSON document; in ASCII where stdout cannot encode it or a terminal would obey it."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not can_write(text) or any(escape(line) != line for line in text.split("\n")):
        text = json.dumps(value, indent=2)
    print(text, flush=True)


def print_pairs(title: str, pairs: Iterable[tuple[str, str]]) -> None:
    """A two-column table: rich in a terminal, tab-separated lines elsewhere."""
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
