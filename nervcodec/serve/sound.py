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
from dataclasses import replace
from fractions import Fraction

import numpy as np

from nervcodec.decoding import NervVideo
from nervcodec.errors import VideoError
from nervcodec.formats.header import AUDIO
from nervcodec.media.audio import Sound
from nervcodec.serve import boxes
from nervcodec.serve.desk import Leave
from nervcodec.serve.limits import OPEN_FILES, SOUND_BYTES

TYPE = 'audio/mp4; codecs="mp4a.40.2"'
_CODEC, _LOW_COMPLEXITY = "aac", "LC"  # the profile of AAC that every browser plays


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
        if (sound.codec, sound.profile) != (_CODEC, _LOW_COMPLEXITY):
            sound = replace(sound, encoder=_CODEC, layouts="stereo")
        with tempfile.TemporaryFile() as file:
            starts = sound.write_fragments(file, leave.check)
            file.flush()
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rate, self._starts = boxes.timescale(self._data), np.array(starts, np.int64)
        moofs = [box.begin for box in boxes.boxes(self._data) if box.kind == b"moof"]
        self._edges = [*moofs, len(self._data)]

    def piece(self, begin: Fraction, end: Fraction) -> bytes:
        """The packets that begin within a time; the beginning alone where there are none.

        Args:
            begin, end: seconds from the first frame.
        """
        first, stop = np.searchsorted(self._starts, [float(begin * self._rate), float(end * self._rate)])
        parts = [self._data[: self._edges[0]]]
        for number in range(first, stop):
            packet = bytearray(self._data[self._edges[number] : self._edges[number + 1]])
            boxes.move(packet, next(boxes.boxes(packet)), int(self._starts[number]))
            parts.append(bytes(packet))
        return b"".join(parts)


class Sounds:
    """The sound of the files that were asked last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, SoundPieces] = OrderedDict()

    def of(self, version: str, video: NervVideo, leave: Leave) -> SoundPieces | None:
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


def _taken(video: NervVideo) -> Sound | None:
    if AUDIO not in video.header.tensors:
        return None
    sound = video.sound()
    if sound is not None and len(sound.data) > SOUND_BYTES:
        raise VideoError(f"{video.path}: its sound is too large to be played here")
    return sound
