# SPDX-License-Identifier: MIT
"""Small pictures in a terminal: by kitty's or iTerm2's protocol where it says it knows one, else in blocks."""

from __future__ import annotations

import base64
import io
import os
import sys
from typing import TYPE_CHECKING

from nervcodec.cli.output import can_write

if TYPE_CHECKING:
    from PIL.Image import Image

_CHUNK = 4096  # bytes of base64 that kitty takes at a time
_COLUMNS = 36


def show(image: Image) -> None:
    """Print an image on stdout, 36 columns wide."""
    out = sys.stdout
    if os.environ.get("KITTY_WINDOW_ID") or os.environ.get("TERM_PROGRAM") in ("ghostty", "WezTerm"):
        out.write(_kitty(image))
    elif os.environ.get("TERM_PROGRAM") == "iTerm.app" or os.environ.get("LC_TERMINAL") == "iTerm2":
        data = base64.b64encode(_png(image)).decode()
        out.write(f"\x1b]1337;File=inline=1;width={_COLUMNS};preserveAspectRatio=1:{data}\x07\n")
    else:
        out.write(_blocks(image))
    out.flush()


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _kitty(image: Image) -> str:
    """https://sw.kovidgoyal.net/kitty/graphics-protocol/: PNG, shown at once, in chunks."""
    data = base64.b64encode(_png(image)).decode()
    chunks = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        head = f"f=100,a=T,q=2,c={_COLUMNS}," if number == 0 else ""
        parts.append(f"\x1b_G{head}m={int(number < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(parts) + "\n"


def _blocks(image: Image) -> str:
    """Two pixels a character, the upper one as the colour of an upper half block, the lower one as its ground."""
    rows = max(1, round(image.height * _COLUMNS / image.width / 2))
    pixels = image.resize((_COLUMNS, 2 * rows)).convert("RGB").tobytes()
    half = "▀" if can_write("▀") else " "
    lines = []
    for row in range(rows):
        cells = []
        for column in range(_COLUMNS):
            upper, lower = (pixels[3 * (y * _COLUMNS + column) :][:3] for y in (2 * row, 2 * row + 1))
            cells.append("\x1b[38;2;{};{};{};48;2;{};{};{}m{}".format(*upper, *lower, half))
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)
