# SPDX-License-Identifier: MIT
"""AV1 streams as they are stored: OBUs with their sizes, without temporal delimiters.

Delimiters are redundant: a temporal unit ends with the frame that is shown. Only the syntax needed to find that frame
is parsed (AV1 specification, section 5): one layer, no scalability.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nervcodec.errors import ContainerError
from nervcodec.formats.header import PlaneFormat
from nervcodec.formats.text import count_noun

SEQUENCE, _DELIMITER, FRAME_HEADER, TILE_GROUP, _METADATA, FRAME, REPEATED_HEADER, _PADDING = *range(1, 8), 15
_GOES_ON = (TILE_GROUP, REPEATED_HEADER, _PADDING)
_KNOWN = {SEQUENCE, _DELIMITER, FRAME_HEADER, TILE_GROUP, _METADATA, FRAME, REPEATED_HEADER, _PADDING}
DELIMITER = b"\x12\x00"
KEY_FRAME = 0
_SMALLEST = 64  # pixels of a side that every version of SVT-AV1 accepts
_SRGB = (1, 13, 0)  # primaries, transfer and matrix that stand for planes of RGB


class SequenceHeader(NamedTuple):
    """Contents of a sequence header.

    Attributes:
        is_reduced: one frame, with the short headers of a still picture.
        width, height: of the largest frame.
        depth: bits of a sample.
        chroma: ``420``, ``422``, ``444`` or ``400``.
    """

    is_reduced: bool
    width: int
    height: int
    depth: int
    chroma: str


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


class BitReader:
    """Reads bits in order; reading past the end is an error."""

    def __init__(self, data: memoryview):
        self._data, self._at = data, 0

    def read(self, count: int) -> int:
        """The next ``count`` bits as a number."""
        value = 0
        for _ in range(count):
            byte, bit = divmod(self._at, 8)
            if byte >= len(self._data):
                raise ContainerError("the AV1 stream is damaged: a header is cut short")
            value = value << 1 | self._data[byte] >> 7 - bit & 1
            self._at += 1
        return value

    def number(self) -> int:
        """A number of variable length (uvlc)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros >= 32:
                return (1 << 32) - 1
        return self.read(zeros) + (1 << zeros) - 1


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


def stripped(stream: bytes | memoryview) -> bytes:
    """The stream without its temporal delimiters.

    Raises:
        ContainerError: as :func:`obus`.
    """
    data = memoryview(stream)
    return b"".join(data[unit.begin : unit.end] for unit in obus(data) if unit.kind != _DELIMITER)


def temporal_units(stream: bytes | memoryview) -> list[memoryview]:
    """The temporal units of a stream, each with the one frame that is shown and without a delimiter; not copied.

    After its frame a unit holds tiles and padding only: any other OBU begins the next one. What follows
    the last frame is part of its unit.

    Raises:
        ContainerError: the stream is damaged or empty, or does not begin with a sequence header and a key frame.
    """
    data = memoryview(stream)
    found: list[tuple[int, int]] = []
    begin, shown, tiles = 0, False, True  # of the unit under way; whether a frame header has got its tiles
    sequence: SequenceHeader | None = None
    is_first = True
    for unit in obus(data):
        if unit.kind in _GOES_ON:
            tiles = tiles or unit.kind == TILE_GROUP
            continue
        if not tiles:
            raise ContainerError("the AV1 stream is damaged: a frame has no tiles")
        if shown:
            found.append((begin, unit.begin))
            begin, shown = unit.begin, False
        if unit.kind == _DELIMITER:
            if begin != unit.begin:
                raise ContainerError("the AV1 stream is damaged: a delimiter stands within a frame")
            begin = unit.end
        elif unit.kind == SEQUENCE:
            sequence = sequence_header(data[unit.body : unit.end])
        elif unit.kind in (FRAME, FRAME_HEADER):
            if sequence is None:
                raise ContainerError("the AV1 stream does not begin with a sequence header")
            header = _frame_header(data[unit.body : unit.end], sequence)
            if is_first and header.kind != KEY_FRAME:
                raise ContainerError("the AV1 stream does not begin with a key frame")
            is_first, shown = False, header.is_shown
            tiles = unit.kind == FRAME or header.kind is None
    if not tiles or not shown:
        raise ContainerError(
            "the AV1 stream is damaged: it ends within a frame" if found else "the AV1 stream is empty"
        )
    found.append((begin, len(data)))
    return [data[first:last] for first, last in found]


def key_frames(units: Sequence[bytes | memoryview]) -> list[int]:
    """Numbers of the temporal units that decoding may begin with: a sequence header, then a key frame that is shown.

    Args:
        units: result of :func:`temporal_units`.

    Raises:
        ContainerError: a unit is damaged.
    """
    found = []
    for number, unit in enumerate(units):
        data = memoryview(unit)
        first = next(obus(data))
        if first.kind != SEQUENCE:
            continue
        sequence = sequence_header(data[first.body : first.end])
        frame = next(each for each in obus(data) if each.kind in (FRAME, FRAME_HEADER))
        header = _frame_header(data[frame.body : frame.end], sequence)
        if header.kind == KEY_FRAME and header.is_shown:
            found.append(number)
    return found


class _FrameHeader(NamedTuple):
    kind: int | None  # frame_type; None where a frame that was decoded before is shown
    is_shown: bool


def _frame_header(body: memoryview, sequence: SequenceHeader) -> _FrameHeader:
    """The beginning of a frame header (5.9.2)."""
    if sequence.is_reduced:
        return _FrameHeader(KEY_FRAME, True)
    bits = BitReader(body)
    if bits.read(1):
        return _FrameHeader(None, True)
    return _FrameHeader(bits.read(2), bool(bits.read(1)))


def sequence_header(body: memoryview) -> SequenceHeader:
    """Read a sequence header (5.5.1).

    Args:
        body: of its OBU.

    Raises:
        ContainerError: it is cut short, or is of a stream in layers.
    """
    bits = BitReader(body)
    profile = bits.read(3)
    if profile > 2:
        raise ContainerError("the AV1 stream is damaged: its profile is unknown")
    bits.read(1)
    reduced = bool(bits.read(1))
    if reduced:
        bits.read(5)
    else:
        _skip_operating_points(bits)
    lengths = bits.read(4) + 1, bits.read(4) + 1
    width, height = bits.read(lengths[0]) + 1, bits.read(lengths[1]) + 1
    if not reduced and bits.read(1):
        bits.read(7)
    bits.read(3)
    if not reduced:
        _skip_tools(bits)
    bits.read(3)
    return SequenceHeader(reduced, width, height, *_samples(bits, profile))


def _skip_operating_points(bits: BitReader) -> None:
    """Skip timing and operating points of a sequence header."""
    delay_bits = 0
    if bits.read(1):
        bits.read(64)
        if bits.read(1):
            bits.number()
        if bits.read(1):
            delay_bits = bits.read(5) + 1
            bits.read(32 + 5 + 5)
    has_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        layers = bits.read(12) >> 8
        if layers & (layers - 1):
            raise ContainerError("the AV1 stream holds spatial layers; one layer is read")
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_delay and bits.read(1):
            bits.read(4)


def _skip_tools(bits: BitReader) -> None:
    """Skip the coding tools of a sequence header."""
    bits.read(4)
    has_order = bits.read(1)
    bits.read(2 * has_order)
    uses_screen_content = bits.read(1) or bits.read(1)
    if uses_screen_content and not bits.read(1):
        bits.read(1)
    if has_order:
        bits.read(3)


def _samples(bits: BitReader, profile: int) -> tuple[int, str]:
    """The beginning of color_config (5.5.2): depth and chroma."""
    depth = 10 if bits.read(1) else 8
    if profile == 2 and depth == 10 and bits.read(1):
        depth = 12
    grey = profile != 1 and bits.read(1)
    colours = (bits.read(8), bits.read(8), bits.read(8)) if bits.read(1) else (2, 2, 2)
    if grey:
        return depth, "400"
    if colours == _SRGB:
        return depth, "444"
    bits.read(1)
    chroma = ("420", "444", "422")[profile]
    if profile == 2 and depth == 12:
        chroma = ("420" if bits.read(1) else "422") if bits.read(1) else "444"
    return depth, chroma


def coded_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the frames in the stream: even, and at least 64."""
    return max(_SMALLEST, width + width % 2), max(_SMALLEST, height + height % 2)


def checked_units(
    stream: bytes | memoryview, form: PlaneFormat, width: int, height: int, frames: int
) -> list[memoryview]:
    """The temporal units of an AV1 stream, whose headers are compared with what is expected; no pixel is decoded.

    Args:
        stream: OBUs without temporal delimiters.
        form: of its samples.
        width, height: of a frame, which the stream holds in ``coded_size``.
        frames: how many there are.

    Raises:
        ContainerError: the stream is damaged, or another.
    """
    found = temporal_units(stream)
    if len(found) != frames:
        held = count_noun(len(found), "frame")
        raise ContainerError(f"the AV1 stream is damaged: it holds {held} and {frames:,} are expected")
    size = coded_size(width, height)
    expected = f"{size[0]}x{size[1]} of {form.chroma} with {form.depth}"
    for unit in obus(stream):
        if unit.kind == SEQUENCE:
            header = sequence_header(memoryview(stream)[unit.body : unit.end])
            actual = f"{header.width}x{header.height} of {header.chroma} with {header.depth}"
            if actual != expected:
                raise ContainerError(f"the AV1 stream is damaged: its frames are {actual} bits, not {expected}")
    return found
