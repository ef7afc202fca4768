# SPDX-License-Identifier: MIT
"""Matroska files: the colour elements of a track, and its display size. Standard library only."""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

_SEGMENT, _TRACKS, _TRACK, _VIDEO, _COLOUR = 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x55B0
# Chroma siting: 1 with the first luma sample, 2 between two.
CHROMA_HORIZONTAL, CHROMA_VERTICAL = 0x55B7, 0x55B8

_NAME, _VOID = 0x536E, 0xEC
# Metadata of a stream that gives its track a name, which :func:`set_aspect` replaces.
ASPECT_PLACEHOLDER = {"title": 24 * " "}


def colours(data: bytes | memoryview) -> dict[int, int]:
    """The stated colour elements of the first track of a file, by their numbers."""
    span = 0, len(data)
    for level in (_SEGMENT, _TRACKS, _TRACK, _VIDEO, _COLOUR):
        matches = [(begin, end) for number, _, begin, end in _elements(data, *span) if number == level]
        if not matches:
            return {}
        span = matches[0]
    return {number: int.from_bytes(data[begin:end], "big") for number, _, begin, end in _elements(data, *span)}


def set_aspect(file: Path, width: int, height: int, aspect: Fraction, in_pixels: bool) -> None:
    """Write the display size into the head of a file: PyAV cannot set it.

    Args:
        file: its first track is a video, written with ``ASPECT_PLACEHOLDER`` as its metadata.
        width, height: of a frame.
        aspect: width : height of a pixel.
        in_pixels: write whole pixels, as WebM has them, not a ratio.
    """
    with open(file, "r+b") as stream:
        head = stream.read(1 << 22)
        span = 0, len(head)
        for level in (_SEGMENT, _TRACKS, _TRACK):
            span = next((begin, end) for number, _, begin, end in _elements(head, *span) if number == level)
        parts = {number: (start, begin, end) for number, start, begin, end in _elements(head, *span)}
        (name, _, after_name), (video, inside, end) = parts[_NAME], parts[_VIDEO]
        ratio = (aspect * width / height).limit_denominator(1 << 16)
        across, down = (max(1, round(width * aspect)), height) if in_pixels else ratio.as_integer_ratio()
        shown = b"\x54\xb0\x84" + across.to_bytes(4, "big") + b"\x54\xba\x84" + down.to_bytes(4, "big")
        shown = head[inside:end] + shown + (b"" if in_pixels else b"\x54\xb2\x81\x03")
        track = head[after_name:video] + bytes([_VIDEO]) + (1 << 14 | len(shown)).to_bytes(2, "big") + shown
        spare = end - name - len(track) - 2
        stream.seek(name)
        stream.write(bytes([_VOID, 0x80 | spare]) + bytes(spare) + track)


def _elements(data: bytes | memoryview, position: int, end: int) -> Generator[tuple[int, int, int, int], None, None]:
    """Elements of EBML in a part of a file: number, where it begins, where its content begins, where that ends."""
    while position + 2 <= end and data[position]:
        start = position
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
        yield number, start, position, stop
        position = stop
