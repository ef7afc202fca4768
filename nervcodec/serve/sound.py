# SPDX-License-Identifier: MIT
"""The sound of a container in pieces that a browser plays one after the other.

All of it is put into one fragmented MP4 once, each packet a fragment of its own: the packets as they are stored where
they are AAC, else coded anew. A piece is the packets that begin within its second, so that pieces follow each other
without a gap and without a packet twice. The file lies in the system's folder for temporary files.
"""

from __future__ import annotations

import mmap
import tempfile
import threading
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import numpy as np

from nervcodec.decoding import OpenVideo
from nervcodec.errors import VideoError
from nervcodec.formats.header import AUDIO
from nervcodec.serve import boxes
from nervcodec.serve.desk import Leave
from nervcodec.serve.limits import OPEN_FILES, SOUND_BYTES
from nervcodec.video import ffmpeg
from nervcodec.video.sound import COPIED, Sound

TYPE = 'audio/mp4; codecs="mp4a.40.2"'
_CODEC, _ANEW = "aac", ["-c:a", "aac", "-b:a", "160k", "-ar", "48000", "-ac", "2"]
_PIECE = 1 << 18  # bytes read at once
_PACKET = 1024  # samples of AAC
_ROUNDED_S = 0.005  # how far times in Matroska, which are whole milliseconds, may be from what packets take
_LOW_COMPLEXITY = 2  # the kind of AAC that every browser plays
_SPECIFIC_INFO = 5  # tag of what says the kind


class SoundPieces:
    """The sound of one file. Several threads may ask.

    Args:
        sound: of the container, whose ``start_s`` is where its first frame shows.
        leave: tells whether somebody still waits.

    Raises:
        VideoError: it cannot be read.
        GoneError: nobody waits.
    """

    def __init__(self, sound: Sound, leave: Leave):
        with tempfile.TemporaryDirectory() as folder:
            stored, made = Path(folder) / "sound.mka", Path(folder) / "sound.mp4"
            stored.write_bytes(sound.data)
            coding = ["-c", COPIED] if sound.codec == _CODEC else _ANEW
            self._data = _remuxed(stored, made, coding, leave)
            if coding is not _ANEW and _kind(self._data) != _LOW_COMPLEXITY:
                coding = _ANEW
                self._data = _remuxed(stored, made, coding, leave)
            first_s = _first_s(stored, coding)
        self._rate = boxes.timescale(self._data)
        top = list(boxes.boxes(self._data))
        self._moofs = [box for box in top if box.kind == b"moof"]
        self._head = bytes(self._data[: self._moofs[0].begin]) if self._moofs else bytes(self._data)
        ends = [moof.begin for moof in self._moofs[1:]] + [top[-1].end]
        self._places = [(moof.begin, end) for moof, end in zip(self._moofs, ends, strict=False)]
        starts = np.array([boxes.beginning(self._data, moof) for moof in self._moofs], np.int64)
        offset = round((first_s - sound.start_s) * self._rate) - (int(starts[0]) if len(starts) else 0)
        self._starts, self._packet = _evened(starts + offset, self._rate)

    def piece(self, begin: Fraction, end: Fraction) -> bytes:
        """The packets that begin within a time; the beginning alone where there are none.

        Args:
            begin, end: seconds from the first frame.
        """
        first, stop = np.searchsorted(self._starts, [float(begin * self._rate), float(end * self._rate)])
        parts = [self._head]
        for number in range(first, stop):
            packet = bytearray(self._data[slice(*self._places[number])])
            moof = next(boxes.boxes(packet))
            boxes.move(packet, moof, int(self._starts[number]))
            if self._packet:
                boxes.set_duration(packet, moof, self._packet)
            parts.append(bytes(packet))
        return b"".join(parts)


def _remuxed(stored: Path, made: Path, coding: list[str], leave: Leave) -> mmap.mmap:
    """All of the sound as a fragmented MP4, mapped into memory."""
    flags = ["-movflags", "+empty_moov+default_base_moof+frag_every_frame+skip_trailer", "-f", "mp4", "pipe:1"]
    with ffmpeg.Process([*_reading(stored, coding), *flags], read=True) as process, open(made, "w+b") as file:
        while data := process.read(_PIECE):
            leave.check()
            file.write(data)
        if process.wait() or not file.tell():
            raise VideoError(f"the sound cannot be made playable ({process.complaint()})")
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _reading(stored: Path, coding: list[str]) -> list[str]:
    return ["-copyts", "-i", f"file:{stored}", "-map", "0:a:0", *coding]


def _first_s(stored: Path, coding: list[str]) -> float:
    """When the first packet begins, in the time of the stored packets."""
    listing = [*_reading(stored, coding), "-frames:a", "1", "-f", "framecrc", "pipe:1"]
    base = Fraction(1)
    for line in ffmpeg.run(listing, "the sound cannot be read").decode("ascii", "replace").splitlines():
        if line.startswith("#tb 0:"):
            base = Fraction(line.partition(":")[2].strip())
        elif not line.startswith("#"):
            return float(int(line.split(",")[2]) * base)
    return 0.0


def _kind(data: mmap.mmap) -> int:
    """The kind of AAC, an AudioObjectType of ISO/IEC 14496-3; 0 where it is not said."""
    place = data.find(b"esds")
    place = data.find(bytes([_SPECIFIC_INFO]), data.find(b"\x40\x15", place)) if place >= 0 else -1
    if place < 0:
        return 0
    place += 1
    while data[place] & 0x80:  # a length in several bytes
        place += 1
    return data[place + 1] >> 3


def _evened(starts: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Times of packets without the rounding to milliseconds, and what each takes, or 0 where that is not known.

    A browser may fill a gap of a few samples with silence, which would be heard.
    """
    if len(starts) < 2:
        return starts, 0
    packet = _PACKET * max(1, round(float(np.median(np.diff(starts))) / _PACKET))
    evened, now = np.empty_like(starts), int(starts[0])
    for number, start in enumerate(starts.tolist()):
        if abs(start - now) > _ROUNDED_S * rate:  # a gap there is
            now = start
        evened[number] = now
        now += packet
    return evened, packet


class Sounds:
    """The sound of the files that were asked last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, SoundPieces] = OrderedDict()

    def of(self, version: str, video: OpenVideo, leave: Leave) -> SoundPieces | None:
        """That of a file; None where it has none.

        Raises:
            VideoError: it cannot be read, or is too large.
            GoneError: nobody waits.
            ContainerError: it is damaged.
        """
        with self._lock:
            if version not in self._kept:
                sound = _taken(video)
                if sound is None:
                    return None
                self._kept[version] = SoundPieces(sound, leave)
            self._kept.move_to_end(version)
            while len(self._kept) > OPEN_FILES:
                self._kept.popitem(last=False)
            return self._kept[version]


def _taken(video: OpenVideo) -> Sound | None:
    if AUDIO not in video.header.tensors:
        return None
    sound = video.sound()
    if sound is not None and len(sound.data) > SOUND_BYTES:
        raise VideoError(f"{video.path}: its sound is too large to be played here")
    return sound
