# SPDX-License-Identifier: MIT
"""Media read with PyAV: files, their streams, and decoded frames with their times."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from nervcodec import threads
from nervcodec.errors import VideoError
from nervcodec.media import matroska, truncation
from nervcodec.threads import StalledError, read_ahead

if TYPE_CHECKING:
    from nervcodec.media.probe import Input

# Flags of a demuxer, as libavformat numbers them.
NO_TIMESTAMPS, _DISCONTINUOUS, _SEEKS_TO_PTS = 0x80, 0x200, 0x4000000
_GENERATE_PTS = 0x1  # of libavformat's context
JUMP_S, STEP_BACK_S = 10.0, 0.1  # a larger step between packets means another clock, not a gap
STALL_TIMEOUT_S = 30.0  # without a frame before decoding fails
_UNRELIABLE_CORRUPT_FLAG = {"mpegts", "ogg"}  # demuxers whose packets may be marked within a whole file
# A gap of 1.5 packet durations, within 4 packets after one marked as corrupt, means lost packets.
_GAP_DURATIONS, _GAP_WITHIN_PACKETS = 1.5, 4
_ONE_FRAME_PER_PACKET = {"hevc", "av1"}  # codecs of which every packet gives a frame
_MAX_REORDERED = 16  # packets that such a decoder takes before it returns the first frame
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_REORDERED_S = Fraction(3, 23)  # how far an index of decoding times may point past a frame


@dataclass
class ClockPart:
    """A stretch of a transport stream within which its clock does not jump.

    Attributes:
        position: of its first packet of video in the file, in bytes.
        begins_s, ends_s: of its video, in seconds of the file's clock from the container's start.
        shift_s: added to times of the file's clock, so that each part follows the previous one.
    """

    position: int
    begins_s: float
    ends_s: float
    shift_s: float


@dataclass
class Damage:
    """Errors found while frames were decoded.

    Attributes:
        near: number of frames decoded before each packet that is damaged, missing or concealed.
        lost: missing frames: packets without a frame, and packets that are missing in the file.
        reasons: errors of FFmpeg, each once.
        is_cut_off: the file ends before the end that its structure states.
        unknown: packets without a frame and without an error.
        read_s: seconds from the first packet to the end of the last.
    """

    near: list[int] = field(default_factory=list)
    lost: int = 0
    reasons: dict[str, None] = field(default_factory=dict)
    is_cut_off: bool = False
    unknown: int = 0
    read_s: float = 0.0


@contextmanager
def opened(path: Path, frame_rate: Fraction | None = None) -> Iterator[InputContainer]:
    """Open a file for reading.

    Args:
        path: the file.
        frame_rate: for a stream that states none; formats with time stamps ignore it.

    Raises:
        VideoError: FFmpeg cannot open it.
    """
    options = {} if frame_rate is None else {"framerate": str(frame_rate)}
    try:
        container = av.open(f"file:{path}", "r", container_options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        reason = error.strerror
        if isinstance(error, av.InvalidDataError) and truncation.lacks_index(path):
            reason = "its index (moov) is missing: the file breaks off, or its recording was not finished"
        raise VideoError(f"{path}: no frame could be read ({reason})") from None
    with container:
        yield container


def videos(container: InputContainer) -> list[VideoStream]:
    """Its video streams that are no attached pictures."""
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def stated_duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Stated duration of a stream in seconds; None where it states none, or FFmpeg only estimates it."""
    if match := _CLOCK.fullmatch(stream.metadata.get("DURATION", "")):  # of Matroska
        return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
    if container.format.flags & (NO_TIMESTAMPS | _DISCONTINUOUS) or not stream.duration or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


def codec_name(stream: Stream) -> str:
    """FFmpeg's name of a codec."""
    return "unknown" if stream.codec_context is None else stream.codec_context.codec.canonical_name


def has_alpha(stream: VideoStream) -> bool:
    """Whether a stream of VP8 or VP9 states a second picture, of transparency, which FFmpeg's decoders leave out."""
    return "alpha_mode" in stream.metadata or "ALPHA_MODE" in stream.metadata


class Decoder:
    """Frames of a range of a source, in the order of showing.

    Args:
        source: which stream of which file, or which images.
        start_s, duration_s: the range, in seconds.

    Attributes:
        path: of the source.
        aspect: of a pixel as it is stored, of a folder's first image; 1 where it is not stated.
        damage: errors so far.
        clock: the parts of a transport stream's clock so far; empty for formats whose clock does not jump.
    """

    def __init__(self, source: Input, start_s: float = 0.0, duration_s: float | None = None):
        self._source, self._start_s, self._duration_s = source, start_s, duration_s
        self.path, self.aspect, self.damage, self._frame_count = source.path, Fraction(1), Damage(), 0
        self.clock: list[ClockPart] = []

    def frames(self) -> Generator[tuple[av.VideoFrame, int], None, None]:
        """Decode, in a background thread that is a few frames ahead.

        Yields:
            A frame, and the tick of the stream's time base at which it shows, from the start of the range; of a
            folder, its number.

        Raises:
            VideoError: the source cannot be opened, its codec is unknown, or no frame comes for 30 s.
        """
        with contextlib.closing(read_ahead(self._frames_and_ticks(), 4, STALL_TIMEOUT_S)) as frames:
            try:
                yield from frames
            except StalledError:
                raise VideoError(f"{self.path}: gave no frame for {STALL_TIMEOUT_S:g} s") from None

    def _frames_and_ticks(self) -> Iterator[tuple[av.VideoFrame, int]]:
        decode = self._images if self._source.images else self._animation if self._source.animated else self._range
        for frame, tick in decode():
            if frame.is_corrupt:
                self.damage.near.append(self._frame_count)
            yield frame, tick
            self._frame_count += 1

    def _images(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """Images are decoded one by one: a photograph may have further pictures behind the first."""
        number = 0
        for image in self._source.images:
            codec = av.CodecContext.create(self._source.image_codec, "r")
            assert isinstance(codec, av.VideoCodecContext)
            try:
                frames = [*codec.decode(make_packet(image.read_bytes())), *codec.decode(None)]
            except av.FFmpegError as error:
                self._note(error)
                continue
            except OSError as error:
                raise VideoError(f"{image}: cannot be read ({error.strerror})") from None
            if not number:
                self.aspect = codec.sample_aspect_ratio or Fraction(1)
            for frame in frames[:1]:
                yield frame, number
                number += 1

    def _animation(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """The pictures of an animated WebP file; a tick is a millisecond."""
        from PIL import Image

        begins = round(self._start_s * 1000)
        ends = math.inf if self._duration_s is None else begins + round(self._duration_s * 1000)
        shows = 0
        with Image.open(self._source.path) as pictures:
            for number in range(getattr(pictures, "n_frames", 1)):
                pictures.seek(number)
                frame = av.VideoFrame.from_ndarray(np.asarray(pictures.convert("RGB")), "rgb24")
                frame.duration = pictures.info["duration"]
                if begins <= shows < ends:
                    yield frame, shows - begins
                shows += frame.duration

    def _range(self) -> Iterator[tuple[av.VideoFrame, int]]:
        source = self._source
        with opened(source.path, source.frame_rate) as container:
            stream = videos(container)[source.number]
            if stream.codec_context is None:
                raise VideoError(f"{source.path}: no frame could be read (its codec is unknown)")
            self.aspect = stream.sample_aspect_ratio or Fraction(1)
            origin, start = container.start_time or 0, round(self._start_s * av.time_base)
            assert stream.time_base is not None
            begins: Fraction | int = _ticks(origin, stream) + Fraction(start, av.time_base) / stream.time_base
            earliest = _ticks(origin, stream) + _ticks(start, stream) if start else -math.inf
            if start and source.seeks:
                begins = earliest = _ticks(origin + start, stream)
                _seek(container, stream, origin + start)
            limit = math.inf if self._duration_s is None else _ticks(round(self._duration_s * av.time_base), stream)
            first = None
            for frame, stamp in self._decoded(container, stream):
                if stamp < earliest:
                    continue
                tick = math.floor(stamp - begins + Fraction(1, 2))
                if first is None:
                    first = tick if source.seeks else 0
                if tick - first >= limit:
                    return
                yield frame, tick

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[av.VideoFrame, int]]:
        """All frames with their stamps; damaged packets are skipped, or concealed by FFmpeg."""
        container.flags &= ~_GENERATE_PTS
        # Frames decoded side by side are concealed differently from run to run.
        stream.codec_context.thread_count = threads.codec_threads
        stream.thread_type = "AUTO" if self._source.threads else "NONE"
        stamps = _Timestamps(stream, bool(container.format.flags & NO_TIMESTAMPS))
        clock = _clock_of(container, stream)
        self.clock = [] if clock is None else clock.parts
        sent = received = errors = 0
        one_per_packet = codec_name(stream) in _ONE_FRAME_PER_PACKET and not self._source.threads
        for packet in self._packets(container, stream, clock):
            sent += packet is not None and not packet.is_discard  # of an edit list: decoded, not shown
            if one_per_packet and sent - received - errors > _MAX_REORDERED:
                one_per_packet = False
                self.damage.near.append(self._frame_count)
            try:
                frames = stream.decode(packet)
            except av.FFmpegError as error:
                self._note(error)
                errors += 1
                continue
            for frame in frames:
                received += 1
                yield frame, stamps.of(frame)
        self.damage.unknown = max(0, sent - received - errors)
        if self.damage.near and codec_name(stream) in _ONE_FRAME_PER_PACKET:
            self.damage.lost += self.damage.unknown

    def _packets(
        self, container: InputContainer, stream: VideoStream, clock: _Clock | None
    ) -> Iterator[av.Packet | None]:
        """The packets of a stream, then None: a truncated file is read up to its end."""
        is_partial, end = False, None  # whether the last packet is, and the byte after it
        packets_since_corrupt, previous = _GAP_WITHIN_PACKETS + 1, None
        span: list[int] = []  # when the first packet begins and the last ends
        try:
            for packet in packets(container, stream, clock):
                is_partial = packet.is_corrupt
                end = None if packet.pos is None else packet.pos + packet.size
                packets_since_corrupt = 0 if is_partial else packets_since_corrupt + 1
                if previous is not None and packet.dts is not None and packets_since_corrupt <= _GAP_WITHIN_PACKETS:
                    gap = (packet.dts - (previous.dts or 0)) / (previous.duration or math.inf)
                    if gap > _GAP_DURATIONS:
                        self.damage.near.append(self._frame_count)
                        self.damage.lost += round(gap) - 1
                previous = None if packet.dts is None else packet
                if packet.pts is not None:
                    span = [min([packet.pts, *span]), max([packet.pts + (packet.duration or 0), *span])]
                    self.damage.read_s = float((span[1] - span[0]) * packet.time_base)
                yield packet
        except av.FFmpegError:
            self.damage.is_cut_off = True
            self.damage.near.append(self._frame_count)
        self.damage.is_cut_off |= is_partial and container.format.name not in _UNRELIABLE_CORRUPT_FLAG
        self.damage.is_cut_off |= truncation.is_cut_off(self._source.path, container.format.name, end)
        yield None

    def _note(self, error: av.FFmpegError) -> None:
        self.damage.near.append(self._frame_count)
        self.damage.lost += 1
        self.damage.reasons[error.strerror or "unknown error"] = None


def packets(container: InputContainer, stream: VideoStream, clock: _Clock | None = None) -> Iterator[av.Packet]:
    """The packets of a stream, whose times run on where the clock of an MPEG transport stream jumps.

    Args:
        container, stream: to read.
        clock: to use; None for a new one where the format needs one.

    Raises:
        av.FFmpegError: the file breaks off.
    """
    clock = clock or _clock_of(container, stream)
    for packet in container.demux(stream):
        if packet.size:
            if clock is not None:
                clock.correct(packet)
            yield packet


def _clock_of(container: InputContainer, stream: VideoStream) -> _Clock | None:
    return _Clock(container, stream) if container.format.flags & _DISCONTINUOUS else None


def make_packet(data: bytes | memoryview) -> av.Packet:
    """A packet with its own copy of the bytes.

    ``av.Packet(data)`` would share Python's memory: a decoder thread that frees it waits for the interpreter lock,
    which the thread that closes the decoder holds.
    """
    packet = av.Packet(len(data))
    memoryview(packet)[:] = data
    return packet


def _ticks(microseconds: int, stream: VideoStream) -> int:
    """Ticks of a stream's time base, the nearest, and halves away from zero, as libavutil rescales."""
    assert stream.time_base is not None
    exact = Fraction(microseconds, av.time_base) / stream.time_base
    return math.floor(exact + Fraction(1, 2)) if exact >= 0 else math.ceil(exact - Fraction(1, 2))


def _seek(container: InputContainer, stream: VideoStream, position_us: int) -> None:
    """Seek to the last key frame at or before a position; a file without an index stays where it is."""
    if not container.format.flags & _SEEKS_TO_PTS and stream.codec_context.has_b_frames:
        position_us -= int(_REORDERED_S * av.time_base)
    try:
        container.seek(position_us)
    except av.FFmpegError:
        return


class _Timestamps:
    """Presentation times of decoded frames; missing ones are extrapolated."""

    def __init__(self, stream: VideoStream, has_none: bool):
        rate, self._has_none = stream.guessed_rate, has_none
        assert stream.time_base is not None
        self._nominal = max(1, round(1 / (rate * stream.time_base))) if rate else 1
        self._last: int | None = None
        self._step = self._nominal
        self._faulty, self._latest = [0, 0], [-math.inf, -math.inf]

    def of(self, frame: av.VideoFrame) -> int:
        """Ticks of the stream's time base."""
        stamp = None if self._has_none else self._best(frame.pts, frame.dts)
        if stamp is None:
            stamp = 0 if self._last is None else self._last + self._step
        gap = 0 if self._last is None else stamp - self._last
        self._step = frame.duration or max(gap, 0) or self._nominal
        self._last = stamp
        return stamp

    def _best(self, span: int | None, decoded: int | None) -> int | None:
        """Presentation or decoding times, whichever step back less often, as in libavcodec."""
        for kind, (own, other) in enumerate(((span, decoded), (decoded, span))):
            if own is not None:
                self._faulty[kind] += own <= self._latest[kind]
                self._latest[kind] = own
            elif other is not None:
                self._latest[kind] = other
        if span is not None and (decoded is None or self._faulty[0] <= self._faulty[1]):
            return span
        return decoded


class _Clock:
    """Keeps the times of packets running where the clock of an MPEG transport stream jumps.

    Jumps are found in the video stream; sound is moved by the same :attr:`parts`.

    Attributes:
        parts: of the clock so far.
    """

    def __init__(self, container: InputContainer, stream: VideoStream):
        assert stream.time_base is not None
        self._tick_s, self._origin_s = stream.time_base, Fraction(container.start_time or 0, av.time_base)
        self._nominal = round(1 / (stream.guessed_rate * self._tick_s)) if stream.guessed_rate else 0
        self._offset = 0
        self._last: int | None = None
        self._next = 0
        self.parts = [ClockPart(0, 0.0, 0.0, 0.0)]

    def correct(self, packet: av.Packet) -> None:
        """Shift a packet to follow the one before it."""
        if packet.dts is None:
            return
        stated, decoded = packet.dts, packet.dts + self._offset
        if self._last is not None and (
            abs(decoded - self._next) * self._tick_s > JUMP_S or (self._last - decoded) * self._tick_s > STEP_BACK_S
        ):
            self._offset += self._next - decoded
            decoded = self._next
            begins_s = self._seconds(stated)
            self.parts.append(ClockPart(packet.pos or 0, begins_s, begins_s, float(self._offset * self._tick_s)))
        packet.dts = decoded
        if packet.pts is not None:
            packet.pts += self._offset
        self._last, self._next = decoded, decoded + (packet.duration or self._nominal)
        self.parts[-1].ends_s = self._seconds(stated)

    def _seconds(self, stated: int) -> float:
        return float(stated * self._tick_s - self._origin_s)


def jumps_before(source: Input, seconds: float) -> bool:
    """Whether the clock of a source jumps before a time, so that seeking to it would lead elsewhere."""
    if source.images:
        return False
    with opened(source.path, source.frame_rate) as container:
        if not container.format.flags & _DISCONTINUOUS:
            return False
        stream = videos(container)[source.number]
        clock = _Clock(container, stream)
        for packet in stream_packets(container, stream):
            clock.correct(packet)
            if len(clock.parts) > 1 or clock.parts[0].ends_s > seconds:
                break
        return len(clock.parts) > 1


def stream_packets(container: InputContainer, stream: Stream) -> Iterator[av.Packet]:
    """The packets of one stream alone; a truncated file is read up to its end."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    with contextlib.suppress(av.FFmpegError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def is_animated(path: Path) -> bool:
    """Whether a file is an animated WebP one, which FFmpeg reads from 9.0 on."""
    from PIL import Image

    with contextlib.suppress(OSError, ValueError, Image.DecompressionBombError), Image.open(path) as image:
        return image.format == "WEBP" and getattr(image, "is_animated", False)
    return False


def chroma_place(source: Input) -> str:
    """Where chroma lies: ``left``, ``topleft`` or ``center``, and ``left`` where it is not stated.

    PyAV does not say so, but a muxer writes it into the head of a Matroska file.
    """
    path = source.images[0] if source.images else source.path
    head, raw = io.BytesIO(), {"allow_raw_vfw": "1"}
    try:
        with opened(path) as container, av.open(head, "w", format="matroska", container_options=raw) as copy:
            copy.add_stream_from_template(videos(container)[source.number], opaque=True)
            copy.start_encoding()
    except (av.FFmpegError, ValueError):  # Matroska does not hold such a stream
        return "left"
    colours = matroska.colours(head.getvalue())
    if colours.get(matroska.CHROMA_HORIZONTAL, 1) == 2:
        return "center"
    return "topleft" if colours.get(matroska.CHROMA_VERTICAL, 2) == 1 else "left"


class PieceReader(io.RawIOBase):
    """A readable file made of an iterator of bytes, for PyAV.

    PyAV drops exceptions of a file's ``read``, KeyboardInterrupt included: here one ends the file, and
    :meth:`raise_error` raises it.
    """

    def __init__(self, pieces: Iterable[bytes]):
        super().__init__()
        self._pieces, self._rest = iter(pieces), memoryview(b"")
        self._error: BaseException | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        try:
            if not self._rest and self._error is None:
                self._rest = memoryview(next(self._pieces, b""))
            data, self._rest = self._rest[:size], self._rest[size:]
            return data.tobytes()
        except BaseException as error:
            self._error = error
            return b""

    def raise_error(self) -> None:
        """Raise the error of the iterator, if there was one."""
        if self._error is not None:
            raise self._error
