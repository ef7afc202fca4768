# SPDX-License-Identifier: MIT
"""AV1 streams as they are stored: OBUs with their sizes, without temporal delimiters.

Delimiters are redundant: a temporal unit ends with the frame that is shown. Only the syntax needed to find that frame
is parsed (AV1 specification, section 5): one layer, no scalability.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nervcodec.errors import ContainerError
from nervcodec.formats.text import count_noun

SEQUENCE, _DELIMITER, FRAME_HEADER, TILE_GROUP, _METADATA, FRAME, REPEATED_HEADER, _PADDING = *range(1, 8), 15
_CONTINUES_UNIT = (TILE_GROUP, REPEATED_HEADER, _PADDING)
_KNOWN = {SEQUENCE, _DELIMITER, FRAME_HEADER, TILE_GROUP, _METADATA, FRAME, REPEATED_HEADER, _PADDING}
DELIMITER = b"\x12\x00"
KEY_FRAME = 0
_SMALLEST = 64  # pixels of a side that every version of SVT-AV1 accepts


class Obu(NamedTuple):
    """One unit of a stream.

    Attributes:
        kind: obu_type.
        begin, body, end: where it begins, its content begins and it ends.
    """

    kind: int
    begin: int
    body: int
    end: int


def obus(stream: bytes | memoryview) -> Iterator[Obu]:
    """The units of a stream, one after the other.

    Raises:
        ContainerError: it is damaged, or holds layers.
    """
    data, at = memoryview(stream), 0
    while at < len(data):
        head = data[at]
        kind, extended, sized = head >> 3 & 15, head >> 2 & 1, head >> 1 & 1
        if head & 0x81 or not sized or kind not in _KNOWN:
            raise ContainerError(f"the AV1 stream is damaged: no unit begins at byte {at:,}")
        body = at + 1 + extended
        if extended and body <= len(data) and data[at + 1] >> 3 & 3:
            raise ContainerError("the AV1 stream holds spatial layers; one layer is read")
        size = 0
        for count in range(8):
            if body >= len(data):
                raise ContainerError("the AV1 stream is damaged: it ends within a unit")
            byte = data[body]
            size |= (byte & 127) << 7 * count
            body += 1
            if not byte & 128:
                break
        else:
            raise ContainerError(f"the AV1 stream is damaged: the size at byte {at:,} does not end")
        if body + size > len(data):
            raise ContainerError("the AV1 stream is damaged: it ends within a unit")
        yield Obu(kind, at, body, body + size)
        at = body + size


def without_delimiters(stream: bytes | memoryview) -> bytes:
    """The stream without its temporal delimiters.

    Raises:
        ContainerError: as :func:`obus`.
    """
    data = memoryview(stream)
    return b"".join(data[unit.begin : unit.end] for unit in obus(data) if unit.kind != _DELIMITER)


def temporal_units(stream: bytes | memoryview) -> list[memoryview]:
    """The temporal units of a stream, each with the one frame that is shown and without a delimiter; not copied.

    After its frame a unit has tiles and padding only; any other OBU begins the next one. What follows the last frame is
    part of its unit.

    Raises:
        ContainerError: the stream is damaged or empty, or does not begin with a sequence header and a key frame.
    """
    data = memoryview(stream)
    bounds: list[tuple[int, int]] = []
    begin, is_shown, has_tiles = 0, False, True  # of the current unit and its last frame header
    is_reduced: bool | None = None
    is_first = True
    for unit in obus(data):
        if unit.kind in _CONTINUES_UNIT:
            has_tiles = has_tiles or unit.kind == TILE_GROUP
            continue
        if not has_tiles:
            raise ContainerError("the AV1 stream is damaged: a frame has no tiles")
        if is_shown:
            bounds.append((begin, unit.begin))
            begin, is_shown = unit.begin, False
        if unit.kind == _DELIMITER:
            if begin != unit.begin:
                raise ContainerError("the AV1 stream is damaged: a delimiter stands within a frame")
            begin = unit.end
        elif unit.kind == SEQUENCE:
            is_reduced = _has_reduced_headers(data[unit.body : unit.end])
        elif unit.kind in (FRAME, FRAME_HEADER):
            if is_reduced is None:
                raise ContainerError("the AV1 stream does not begin with a sequence header")
            header = _frame_header(data[unit.body : unit.end], is_reduced)
            if is_first and header.kind != KEY_FRAME:
                raise ContainerError("the AV1 stream does not begin with a key frame")
            is_first, is_shown = False, header.is_shown
            has_tiles = unit.kind == FRAME or header.kind is None
    if not has_tiles or not is_shown:
        raise ContainerError(
            "the AV1 stream is damaged: it ends within a frame" if bounds else "the AV1 stream is empty"
        )
    bounds.append((begin, len(data)))
    return [data[first:last] for first, last in bounds]


def key_frames(units: Sequence[bytes | memoryview]) -> list[int]:
    """Numbers of the temporal units that decoding may begin with: a sequence header, then a key frame that is shown.

    Args:
        units: result of :func:`temporal_units`.

    Raises:
        ContainerError: a unit is damaged.
    """
    keys = []
    for number, unit in enumerate(units):
        data = memoryview(unit)
        first = next(obus(data))
        if first.kind != SEQUENCE:
            continue
        is_reduced = _has_reduced_headers(data[first.body : first.end])
        frame = next(each for each in obus(data) if each.kind in (FRAME, FRAME_HEADER))
        header = _frame_header(data[frame.body : frame.end], is_reduced)
        if header.kind == KEY_FRAME and header.is_shown:
            keys.append(number)
    return keys


class _FrameHeader(NamedTuple):
    kind: int | None  # frame_type; None where a frame that was decoded before is shown
    is_shown: bool


def _first_byte(body: memoryview) -> int:
    if not len(body):
        raise ContainerError("the AV1 stream is damaged: a header is cut short")
    return body[0]


def _has_reduced_headers(sequence_header: memoryview) -> bool:
    """reduced_still_picture_header of a sequence header (5.5.1): one frame, whose header is shorter."""
    return bool(_first_byte(sequence_header) >> 3 & 1)


def _frame_header(body: memoryview, is_reduced: bool) -> _FrameHeader:
    """The beginning of a frame header (5.9.2): show_existing_frame, frame_type and show_frame."""
    if is_reduced:
        return _FrameHeader(KEY_FRAME, True)
    bits = _first_byte(body)
    return _FrameHeader(None, True) if bits >> 7 else _FrameHeader(bits >> 5 & 3, bool(bits >> 4 & 1))


def coded_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the frames in the stream: even, and at least 64."""
    return max(_SMALLEST, width + width % 2), max(_SMALLEST, height + height % 2)


def checked_units(stream: bytes | memoryview, frames: int) -> list[memoryview]:
    """The temporal units of an AV1 stream of ``frames`` frames, see :func:`temporal_units`; no pixel is decoded.

    Raises:
        ContainerError: the stream is damaged, or has another number of frames.
    """
    units = temporal_units(stream)
    if len(units) != frames:
        count = count_noun(len(units), "frame")
        raise ContainerError(f"the AV1 stream is damaged: it holds {count} and {frames:,} are expected")
    return units
