# SPDX-License-Identifier: MIT
"""Matroska files: the colours of a track, where its clusters lie, and how large it is shown. Standard library only."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

_SEGMENT, _TRACKS, _TRACK, _VIDEO, _COLOUR = 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x55B0
# Where a colour's chroma lies: 1 with the first luma, 2 between.
ACROSS, DOWN = 0x55B7, 0x55B8
_CLUSTER, _TIME, _BLOCK_ALONE, _BLOCK_GROUP, _BLOCK, _REFERENCE = 0x1F43B675, 0xE7, 0xA3, 0xA0, 0xA1, 0xFB
_KEY = 0x80  # of a SimpleBlock's flags

# Metadata of a stream for which FFmpeg writes three elements, which :func:`set_aspect` replaces.
ROOM_FOR_ASPECT = {"stereo_mode": "left_right"}
_STEREO, _DISPLAY_WIDTH, _DISPLAY_HEIGHT, _UNIT_IS_RATIO = (
    b"\x53\xb8\x81\x01",
    b"\x54\xb0",
    b"\x54\xba",
    b"\x54\xb2\x81\x03",
)


class Cluster(NamedTuple):
    """A run of packets.

    Attributes:
        begin: its first byte in the file.
        time: of its first packet, in ticks of the file.
        is_key: whether that is a key frame.
    """

    begin: int
    time: int
    is_key: bool


def colours(data: bytes | memoryview) -> dict[int, int]:
    """The colours of the first track of a file, by the elements' numbers; only what is said."""
    where = 0, len(data)
    for wanted in (_SEGMENT, _TRACKS, _TRACK, _VIDEO, _COLOUR):
        found = [(begin, end) for number, _, begin, end in _elements(data, *where) if number == wanted]
        if not found:
            return {}
        where = found[0]
    return {number: int.from_bytes(data[begin:end], "big") for number, _, begin, end in _elements(data, *where)}


def clusters(data: bytes | memoryview) -> Iterator[Cluster]:
    """The clusters of a file, in order; those without a packet are left out."""
    for number, _, begin, end in _elements(data, 0, len(data)):
        if number != _SEGMENT:
            continue
        for kind, place, inner, stop in _elements(data, begin, end):
            found = _first_packet(data, inner, stop) if kind == _CLUSTER else None
            if found is not None:
                yield Cluster(place, *found)


def set_aspect(file: Path, width: int, height: int, aspect: Fraction, in_pixels: bool) -> None:
    """Write into a file how wide its frames are shown, in the room that its muxer left: PyAV cannot set it.

    Args:
        file: written with ``ROOM_FOR_ASPECT`` as metadata of its only video stream.
        width, height: of a frame.
        aspect: width : height of a pixel.
        in_pixels: write whole pixels, as WebM has them, not a ratio.
    """
    with open(file, "r+b") as stream:
        head = stream.read(1 << 22)
        begin = head.index(_STEREO + _DISPLAY_WIDTH) + len(_STEREO)
        across = head[begin + 2] & 0x7F  # bytes of the width, then of the height
        down = head[begin + 3 + across + 2] & 0x7F
        if in_pixels:
            shape, across, unit = (max(1, round(width * aspect)), height), across + len(_STEREO), b""
        else:
            ratio, most = aspect * width / height, 256 ** min(across, down) - 1
            shape, unit = ratio.limit_denominator(max(1, int(most / max(1, ratio)))).as_integer_ratio(), _UNIT_IS_RATIO
        stream.seek(begin - len(_STEREO))
        stream.write(_DISPLAY_WIDTH + bytes([0x80 | across]) + shape[0].to_bytes(across, "big"))
        stream.write(_DISPLAY_HEIGHT + bytes([0x80 | down]) + shape[1].to_bytes(down, "big") + unit)


def _first_packet(data: bytes | memoryview, begin: int, end: int) -> tuple[int, bool] | None:
    """(time, whether it is a key frame) of the first packet of a cluster."""
    base = 0
    for number, _, inner, stop in _elements(data, begin, end):
        if number == _TIME:
            base = int.from_bytes(data[inner:stop], "big")
        elif number == _BLOCK_ALONE:
            return base + _offset(data, inner), bool(data[_after_track(data, inner) + 2] & _KEY)
        elif number == _BLOCK_GROUP:
            parts = {kind: place for kind, _, place, _ in _elements(data, inner, stop)}
            if _BLOCK in parts:
                return base + _offset(data, parts[_BLOCK]), _REFERENCE not in parts
    return None


def _after_track(data: bytes | memoryview, block: int) -> int:
    return block + 9 - max(1, data[block].bit_length())


def _offset(data: bytes | memoryview, block: int) -> int:
    """Time of a block, counted from its cluster's."""
    place = _after_track(data, block)
    return int.from_bytes(data[place : place + 2], "big", signed=True)


def _elements(data: bytes | memoryview, position: int, end: int) -> Generator[tuple[int, int, int, int], None, None]:
    """Elements of EBML in a part of a file: number, where it begins, where its content begins, where that ends."""
    while position + 2 <= end and data[position]:
        place = position
        length = 9 - data[position].bit_length()  # of a number, as its leading zeros say
        number = int.from_bytes(data[position : position + length], "big")
        position += length
        if position >= end or not data[position]:
            return
        length = 9 - data[position].bit_length()
        size = int.from_bytes(data[position : position + length], "big") & ((1 << 7 * length) - 1)
        position += length
        unknown = size == (1 << 7 * length) - 1
        stop = end if unknown else min(position + size, end)
        yield number, place, position, stop
        position = stop
