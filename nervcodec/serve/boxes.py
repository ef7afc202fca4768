# SPDX-License-Identifier: MIT
"""Fragmented MP4 as far as it is read and changed here: boxes, and when a fragment begins. Standard library only."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

from nervcodec.errors import VideoError

Data = bytes | bytearray | memoryview | mmap.mmap
_TFDT_64 = b"\x01\x00\x00\x00"


class Box(NamedTuple):
    """A part of a file.

    Attributes:
        kind: four characters.
        begin: its first byte.
        body: the first byte of what it holds.
        end: the byte after its last.
    """

    kind: bytes
    begin: int
    body: int
    end: int


def boxes(data: Data, begin: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes of a file, or within a part of it.

    Raises:
        VideoError: they do not add up.
    """
    end = len(data) if end is None else end
    while begin < end:
        if begin + 8 > end:
            raise VideoError("the fragments that FFmpeg made cannot be read")
        size, kind = struct.unpack_from(">I4s", data, begin)
        body = begin + 8
        if size == 1 and begin + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        if size < body - begin or begin + size > end:
            raise VideoError("the fragments that FFmpeg made cannot be read")
        yield Box(kind, begin, body, begin + size)
        begin += size


def inner(data: Data, outer: Box, *kinds: bytes) -> Box:
    """A box within a box within a box.

    Raises:
        VideoError: there is none.
    """
    for kind in kinds:
        found = next((box for box in boxes(data, outer.body, outer.end) if box.kind == kind), None)
        if found is None:
            raise VideoError(f"the fragments that FFmpeg made have no {kind.decode()}")
        outer = found
    return outer


def beginning(data: Data, moof: Box) -> int:
    """When a fragment begins, in ticks."""
    tfdt = inner(data, moof, b"traf", b"tfdt")
    form = ">Q" if data[tfdt.body] == 1 else ">I"
    return int(struct.unpack_from(form, data, tfdt.body + 4)[0])


def move(data: bytearray, moof: Box, ticks: int) -> None:
    """Have a fragment begin at another time.

    Raises:
        VideoError: it has no room for that.
    """
    tfdt = inner(data, moof, b"traf", b"tfdt")
    if bytes(data[tfdt.body : tfdt.body + 4]) != _TFDT_64:
        raise VideoError("the fragments that FFmpeg made have no room for their times")
    struct.pack_into(">Q", data, tfdt.body + 4, ticks)


def timescale(data: Data) -> int:
    """Ticks a second of the only track of a file."""
    moov = next((box for box in boxes(data) if box.kind == b"moov"), None)
    if moov is None:
        raise VideoError("the fragments that FFmpeg made have no beginning")
    mdhd = inner(data, moov, b"trak", b"mdia", b"mdhd")
    return int(struct.unpack_from(">I", data, mdhd.body + (20 if data[mdhd.body] == 1 else 12))[0])
