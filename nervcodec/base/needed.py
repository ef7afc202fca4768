# SPDX-License-Identifier: MIT
"""Which frames of an AV1 stream one frame hangs on, so that the rest need not be decoded for it.

Encoders code frames in a pyramid: half of them no other frame refers to. A frame that is left out leaves its place
among the eight references (AV1 specification, 7.20) to an older one; what is decoded refers to neither, so nothing
changes for it. Headers are read as far as the references they name (5.9.2).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from nervcodec.base import obu
from nervcodec.errors import ContainerError

_KEY, _INTER, _INTRA_ONLY, _SWITCH = 0, 1, 2, 3  # frame_type
_ALL = 255  # of the places for references
_PLACES, _REFERENCES = 8, 7


class UnreadError(ContainerError):
    """A stream uses what is not read here, though nothing is wrong with it."""


class _Frame(NamedTuple):
    """What a frame header says: the places it refers to and those it is stored in; whether it is shown."""

    shown: bool
    refers: tuple[int, ...]
    stored: int


@dataclass
class _Part:
    """An OBU of a temporal unit and its kind; the frame that it is of or shows again; whether it has that shown."""

    kind: int
    data: memoryview
    frame: int | None = None
    repeats: bool = False
    shows: bool = False


@dataclass
class Needed:
    """The frames of a closed stream.

    Args:
        stream: OBUs without delimiters that begin with a key frame.

    Raises:
        UnreadError: it uses what is not read here.
        ContainerError: it is damaged.
    """

    stream: bytes | memoryview
    _units: list[list[_Part]] = field(init=False, default_factory=list)
    _refers: list[frozenset[int]] = field(init=False, default_factory=list)
    _shown: list[int] = field(init=False, default_factory=list)  # the frame that each unit shows

    def __post_init__(self) -> None:
        tools: obu.Tools | None = None
        places: list[int | None] = [None] * _PLACES
        for unit in obu.units(self.stream):
            parts = []
            for one in obu.obus(unit):
                part, body = _Part(one.kind, unit[one.begin : one.end]), unit[one.body : one.end]
                if one.kind == obu.SEQUENCE:
                    tools = _tools(obu.sequence_header(body))
                elif one.kind in (obu.FRAME_HEADER, obu.FRAME):
                    if tools is None:
                        raise ContainerError("the AV1 stream does not begin with a sequence header")
                    before = len(self._shown)
                    part.frame, part.repeats = self._read(body, tools, places)
                    part.shows = len(self._shown) > before
                elif one.kind in (obu.TILE_GROUP, obu.REPEATED_HEADER):
                    raise UnreadError("frames in several parts are not read")
                parts.append(part)
            self._units.append(parts)

    def _read(self, body: memoryview, tools: obu.Tools, places: list[int | None]) -> tuple[int, bool]:
        """Number of the frame that a header is of or, where the second is True, that it shows again."""
        bits = obu.Bits(body)
        if bits.read(1):
            again = places[bits.read(3)]
            if again is None or not self._refers[again]:  # a key frame that is shown again fills all places
                raise UnreadError("a key frame is shown again")
            self._shown.append(again)
            return again, True
        number, header = len(self._refers), _frame(bits, tools)
        named = [places[place] for place in header.refers]
        if None in named:
            raise ContainerError("the AV1 stream is damaged: a frame refers to none")
        self._refers.append(frozenset(frame for frame in named if frame is not None))
        places[:] = [number if header.stored >> place & 1 else frame for place, frame in enumerate(places)]
        if header.shown:
            self._shown.append(number)
        return number, False

    def only(self, wanted: Collection[int]) -> tuple[list[bytes], list[int]]:
        """The stream with no more than some frames hang on.

        Args:
            wanted: numbers of frames as they are shown.

        Returns:
            Temporal units without delimiters, and which of the frames that a decoder gives of them are wanted.
        """
        needed, waiting = set[int](), [self._shown[number] for number in wanted]
        while waiting:
            frame = waiting.pop()
            if frame not in needed:
                needed.add(frame)
                waiting += self._refers[frame]
        units, given, places = [], 0, []
        for number, parts in enumerate(self._units[: max(wanted) + 1]):
            kept = [p for p in parts if (number in wanted if p.repeats else p.frame is None or p.frame in needed)]
            if not any(part.frame is not None for part in kept):
                kept = [part for part in kept if part.kind == obu.SEQUENCE]
            if kept:
                units.append(b"".join(part.data for part in kept))
            if any(part.shows for part in kept):
                places += [given] if number in wanted else []
                given += 1
        return units, places


def _tools(sequence: obu.Sequence) -> obu.Tools:
    """What frame headers depend on, of a sequence of which they are read here."""
    if sequence.is_reduced or sequence.is_timed:
        raise UnreadError("still pictures and streams with times of their own are not read")
    if sequence.is_numbered:
        raise UnreadError("streams with numbered frames are not read")
    return sequence.tools


def _frame(bits: obu.Bits, tools: obu.Tools) -> _Frame:
    """The beginning of the header of a frame that is not shown again (5.9.2)."""
    kind, shown = bits.read(2), bool(bits.read(1))
    if not shown:
        bits.read(1)
    anew = kind == _SWITCH or (kind == _KEY and shown)
    resilient = True if anew else bool(bits.read(1))
    bits.read(1)
    screen = bits.read(1) if tools.screen == obu.SELECT else tools.screen
    if screen and tools.whole_vectors == obu.SELECT:
        bits.read(1)
    if kind != _SWITCH:
        bits.read(1)
    bits.read(tools.order_bits)
    intra = kind in (_KEY, _INTRA_ONLY)
    if not (intra or resilient):
        bits.read(3)
    stored = _ALL if anew else bits.read(8)
    if intra:
        return _Frame(shown, (), stored)
    if resilient:
        bits.read(_PLACES * tools.order_bits)
    if tools.order_bits and bits.read(1):
        raise UnreadError("references that are named in short are not read")
    return _Frame(shown, tuple(bits.read(3) for _ in range(_REFERENCES)), stored)
