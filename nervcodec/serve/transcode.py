# SPDX-License-Identifier: MIT
"""MP4 files for browsers: base layers as they are, and H.264 made of decoded frames in pieces of a second.

Runs in a :class:`nervcodec.worker.Worker`, one call at a time.
"""

from __future__ import annotations

import bisect
import io
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nervcodec.base.export import growing, sound_of, write_base
from nervcodec.base.obu import coded_size
from nervcodec.errors import VideoError, wrap_os_error
from nervcodec.formats.atomic import replacing
from nervcodec.formats.container import Container
from nervcodec.formats.header import AUDIO, AV1, Header
from nervcodec.media import mux
from nervcodec.media.audio import COPIED, Sound, SoundPieces
from nervcodec.media.writer import VideoFormat, fragment
from nervcodec.serve.stills import open_video

BASE, AVC = "base", "avc"
HEAD = "head"  # name of the file of a folder of pieces that all of them begin with
_TICKS_S = 90_000
_SLACK_S = 1.1e-3  # by which the times of a moment may be rounded
_OPTIONS = {"preset": "veryfast", "crf": "16", "tune": "zerolatency", "profile": "high"}
_LONGEST_SIDE = 3_840  # of H.264
_OPEN_FILES = 2
_AAC = "mp4a.40.2"
# Codecs of sound that browsers play in MP4. The profile of AAC that all play is LC.
_SOUNDS = {"aac": _AAC, "opus": "opus", "mp3": "mp4a.6B", "flac": "flac"}


class _Level(NamedTuple):
    """A level of the video codecs.

    Attributes:
        pixels: of a frame at most.
        pixels_s: in a second at most.
        avc, hevc, av1: as each codec numbers it.
    """

    pixels: int
    pixels_s: int
    avc: int
    hevc: int
    av1: int


_LEVELS = (
    _Level(921_600, 27_648_000, 31, 93, 5),
    _Level(2_088_960, 62_668_800, 40, 120, 8),
    _Level(8_847_360, 251_658_240, 51, 153, 13),
    _Level(35_651_584, 1_069_547_520, 62, 180, 18),
)


def avc_size(header: Header) -> tuple[int, int]:
    """(width, height) of the frames of H.264: even, and not larger than browsers play."""
    width, height = header.video.width, header.video.height
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    return max(2, 2 * math.ceil(width * scale / 2)), max(2, 2 * math.ceil(height * scale / 2))


def _level(size: tuple[int, int], rate: Fraction) -> _Level:
    blocks = 256 * -(-size[0] // 16) * -(-size[1] // 16)
    fits = (level for level in _LEVELS if blocks <= level.pixels and blocks * rate <= level.pixels_s)
    return next(fits, _LEVELS[-1])


def formats(file: Path) -> list[dict]:
    """The forms in which a container can be played, the best first.

    Each has ``codec``, ``type`` as ``canPlayType`` takes it, ``width`` and ``height`` of the coded frames, and ``hdr``.

    Raises:
        ContainerError: the file is damaged.
        VideoError: its sound cannot be read.
    """
    with Container.open(file) as opened:
        header, found, sound = opened.header, [], sound_of(opened)
    base, rate = header.base, Fraction(*header.video.frame_rate)
    if base is not None:
        width, height = header.video.width, header.video.height
        size = coded_size(width, height) if base.kind == AV1 else (width, height)
        codec = _base_codec(base.codec, base.planes.depth, base.planes.chroma, _level(size, rate))
        if codec is not None:
            copied = sound is not None and playable(sound, _SOUNDS).encoder == COPIED
            heard = None if sound is None else _SOUNDS[sound.codec] if copied else _AAC
            found.append((BASE, codec, heard, size))
    size = avc_size(header)
    found.append((AVC, f"avc1.6400{_level(size, rate).avc:02x}", None if sound is None else _AAC, size))
    return [
        {
            "codec": name,
            "type": f'video/mp4; codecs="{", ".join(filter(None, (picture, heard)))}"',
            "width": size[0],
            "height": size[1],
            "hdr": name == BASE and base is not None and base.planes.is_hdr,
        }
        for name, picture, heard, size in found
    ]


def _base_codec(name: str, depth: int, chroma: str, level: _Level) -> str | None:
    """A codec as RFC 6381 writes it, by what the header states; None where MP4 in a browser does not hold it."""
    common = chroma in ("420", "400")
    if name == "av1":
        profile = 2 if depth == 12 or chroma == "422" else 0 if common else 1
        return f"av01.{profile}.{level.av1:02}M.{depth:02}"
    if name == "h264":
        profile = 0xF4 if chroma == "444" else 0x7A if chroma == "422" else 0x6E if depth > 8 else 0x64
        return f"avc1.{profile:02X}00{level.avc:02X}"
    if name == "hevc":
        profile, flags = (1, 6) if depth == 8 and common else (2, 4) if depth == 10 and common else (4, 10)
        return f"hvc1.{profile}.{flags}.L{level.hevc}.B0"
    if name == "vp9":
        return f"vp09.{(2 if depth > 8 else 0) + (0 if common else 1):02}.{level.avc:02}.{depth:02}"
    return None


def playable(sound: Sound, codecs: dict[str, str]) -> Sound:
    """Sound for a browser: its packets where their codec is among ``codecs``, else AAC."""
    if sound.codec in codecs and (sound.codec != "aac" or sound.profile == "LC"):
        return replace(sound, is_whole=False)
    return replace(sound, is_whole=False, encoder="aac", layouts="stereo")


def copy_base(file: Path, target: Path) -> None:
    """Write the base layer as MP4, its packets as they are.

    Raises:
        ContainerError: there is none, or it is damaged.
        VideoError: MP4 does not hold it, or the file cannot be written.
    """
    with Container.open(file) as opened:
        sound = sound_of(opened)
        write_base(opened, target, None if sound is None else playable(sound, _SOUNDS))


def piece_frames(header: Header) -> int:
    """Frames of a piece: about a second."""
    return max(1, round(Fraction(*header.video.frame_rate)))


def pieces(header: Header) -> range:
    """First frames of all pieces."""
    return range(0, header.video.frame_count, piece_frames(header))


def piece_end(header: Header, first: int) -> int:
    """The frame after the last of a piece, which begins with any frame and ends where the next of all pieces begins."""
    each = piece_frames(header)
    return min((first // each + 1) * each, header.video.frame_count)


class _Session:
    """An open container, and its decoder, which continues from one piece to the next."""

    def __init__(self, file: Path):
        self.video = open_video(file)
        header = self.video.header
        times = np.append(self.video.frame_times_s, header.video.duration_s)
        self.ticks = growing(np.rint(times * _TICKS_S).astype(np.int64)).tolist()
        self._next = -1
        self._frames: Iterator[np.ndarray] = iter(())
        self._sound: SoundPieces | None = None
        self._begins_s = 0.0  # of the sound

    def piece(self, first: int) -> tuple[bytes, bytes]:
        """The head of all pieces, and the one that begins with a frame; see :func:`nervcodec.media.writer.fragment`."""
        video, header = self.video, self.video.header
        end = piece_end(header, first)
        if first != self._next:
            self._begin(first)
        size, rate = avc_size(header), video.frame_rate
        form = VideoFormat(*size, rate, Fraction(*header.video.sample_aspect_ratio))
        options = {**_OPTIONS, "level": f"{_level(size, rate).avc / 10:.1f}"}
        frames = (_even(frame) for frame in itertools.islice(self._frames, end - first))
        ticks, sound, packets = self.ticks[first : end + 1], None, []
        if self._sound is not None:
            sound, shift = self._sound.stream, round(self._begins_s * self._sound.stream.rate)
            for packet in self._sound.until(self.ticks[end] / _TICKS_S - self._begins_s):
                packet.pts = packet.dts = (packet.pts or 0) + shift
                packets.append(packet)
        self._next = end
        return fragment(frames, form, ticks, _TICKS_S, options, sound, packets)

    def pieces_at(self, start_s: float, stop_s: float) -> list[int]:
        """First frames of the pieces of a moment; the first of them begins with the frame on show at its start."""
        start, stop = (bisect.bisect_right(self.ticks, (at + _SLACK_S) * _TICKS_S) - 1 for at in (start_s, stop_s))
        first = min(max(0, start), len(self.video) - 1)
        return [first, *(each for each in pieces(self.video.header) if first < each <= stop)]

    def _begin(self, first: int) -> None:
        self._frames = self.video.frames(range(first, len(self.video)), tone_map=True)
        self._begins_s = self.ticks[first] / _TICKS_S
        if AUDIO in self.video.header.tensors:
            sound = self.video.sound(self._begins_s, self.ticks[-1] / _TICKS_S - self._begins_s)
            assert sound is not None
            self._sound = SoundPieces(sound)


def _even(frame: np.ndarray) -> np.ndarray:
    """A frame with even sides, the last row and column repeated."""
    more = [(0, side % 2) for side in frame.shape[:2]]
    return np.pad(frame, [*more, (0, 0)], "edge") if any(odd for _, odd in more) else frame


_sessions: OrderedDict[tuple[Path, str], _Session] = OrderedDict()


def _session(file: Path, version: str) -> _Session:
    key = file, version
    session = _sessions.pop(key, None) or _Session(file)
    _sessions[key] = session
    while len(_sessions) > _OPEN_FILES:
        _sessions.popitem(last=False)[1].video.close()
    return session


def code_clip(file: Path, version: str, target: Path, start_s: float, stop_s: float) -> None:
    """Write a moment as MP4, as H.264 and sound.

    Raises:
        ContainerError, VideoError: as :func:`code_piece`.
    """
    session = _session(file, version)
    coded = [session.piece(first) for first in session.pieces_at(start_s, stop_s)]
    mux.cut(io.BytesIO(b"".join((coded[0][0], *(piece for _, piece in coded)))), target, start_s, stop_s)


def code_piece(file: Path, version: str, first: int, folder: Path) -> None:
    """Write a piece of H.264 and sound to ``folder``, named by the number of its first frame; and ``HEAD``.

    ``HEAD`` followed by consecutive pieces is a fragmented MP4 file, whose times are those of the whole video.

    Raises:
        ContainerError: the file is damaged.
        VideoError: it cannot be encoded, or the folder cannot be written.
    """
    head, piece = _session(file, version).piece(first)
    with wrap_os_error(f"{folder}: cannot be written", VideoError):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in ((HEAD, head), (str(first), piece)):
            if not (folder / name).exists():
                with replacing(folder / name) as temporary:
                    temporary.write_bytes(data)


def join_pieces(file: Path, folder: Path, target: Path) -> None:
    """Write all pieces as one seekable MP4 file, with the sound of the container.

    Raises:
        ContainerError, VideoError: as :func:`copy_base`.
    """
    with Container.open(file) as opened:
        header, sound = opened.header, sound_of(opened)

    def parts() -> Iterator[bytes]:
        return ((folder / str(name)).read_bytes() for name in (HEAD, *pieces(header)))

    mux.write_copy(target, parts, 0, None if sound is None else playable(sound, {"aac": _AAC}), "mp4")
