# SPDX-License-Identifier: MIT
"""Sound: a source's audio packets on the clock of its picture, stored as Matroska, and muxed beside a video again."""

from __future__ import annotations

import bisect
import contextlib
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av import AudioFrame, AudioStream, Packet
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.stream import Stream

from nervcodec.errors import VideoError
from nervcodec.events import Observer
from nervcodec.media import decoder
from nervcodec.media.decoder import ClockPart
from nervcodec.media.source import SourceOptions, VideoInfo

LEAD_S = 1.0  # offset of stored packets: the Matroska muxer would move packets that begin before zero
_STORED_TICK_S = Fraction(1, 1_000_000)
_MATROSKA = {"fflags": "+bitexact"}
COPIED = "copy"
# The encoder for each format that cannot hold the packets as they are; Matroska holds all of them.
_ENCODERS = {".mp4": "aac", ".mov": "aac", ".avi": "libmp3lame", ".webm": "libopus", ".mkv": "aac"}
# Channel layouts of each encoder, most channels first; an unknown layout becomes the first with as many channels.
_LAYOUTS = {
    "aac": "7.1|5.1|5.1(side)|5.0|5.0(side)|quad|4.0|3.0|stereo|mono",
    "libopus": "7.1|5.1|quad|stereo|mono",
    "libmp3lame": "stereo|mono",
}
FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov", ".avi": "avi", ".webm": "webm"}  # FFmpeg's names
_SAMPLES = {"aac": "fltp", "libmp3lame": "fltp", "libopus": "flt"}
_COMMON_START = ("avi",)  # formats whose streams begin together
_LEAST_LEAD_S, _LATE_S = Fraction(1, 10), Fraction(1, 20)
_GAP_S = 0.03  # shortest gap that is filled with silence
_MATROSKA_TICK_S = Fraction(1, 1000)  # times in Matroska
_TRIAL_PACKETS = 50  # packets muxed to test whether a format holds them
_PREROLL_S = 1  # seconds of sound decoded before a range
_SILENT_SAMPLES = 1024


def packets(info: VideoInfo, options: SourceOptions, observer: Observer | None = None) -> bytes:
    """The audio packets of a source's range, as they are, in a Matroska file; nothing where the range has none.

    Of several streams the one that a player takes. Their times count from ``LEAD_S`` before the zero of the frames'
    times, which begin at ``info.first_frame_s``. Damaged packets are left out, and the observer gets a note of them.

    Raises:
        VideoError: the stream cannot be copied.
    """
    begins_s = options.start_s or -LEAD_S
    ends_s = math.inf if options.duration_s is None else options.start_s + options.duration_s
    data, count, damaged = io.BytesIO(), 0, 0
    observer = observer or Observer()
    with decoder.opened(info.path) as container:
        stream = container.streams.best("audio", related=decoder.videos(container)[info.input.number])
        if not isinstance(stream, AudioStream):
            observer.note(f"{info.path.name}: none of its sound can be read: left out")
            return b""
        try:
            with av.open(data, "w", "matroska", container_options=_MATROSKA) as file:
                copy = _copy_of(stream, file)
                # The muxer would add this filter only if the first packet is a good one.
                is_adts = decoder.codec_name(stream) == "aac" and not stream.codec_context.extradata
                converter = BitStreamFilterContext("aac_adtstoasc" if is_adts else "null", stream)
                file.start_encoding()
                for packet, shows_s in _timed(container, stream, info.clock):
                    if shows_s >= ends_s:
                        break
                    if shows_s < begins_s:
                        continue
                    packet.duration = round((packet.duration or 0) * packet.time_base / _STORED_TICK_S)
                    packet.pts = packet.dts = round((shows_s - options.start_s + LEAD_S) / _STORED_TICK_S)
                    try:
                        (packet,) = converter.filter(packet)
                        packet.time_base, packet.stream = _STORED_TICK_S, copy
                        file.mux(packet)
                        count += 1
                    except av.InvalidDataError:
                        damaged += 1
        except (av.FFmpegError, ValueError):
            reason = f"its sound cannot be copied (Matroska does not hold this kind of {decoder.codec_name(stream)})"
            raise VideoError(f"{info.path}: {reason}; --audio none leaves it out") from None
    if damaged:
        which = f"{damaged:,} of {damaged + count:,}" if count else "all"
        observer.note(f"{info.path.name}: {which} packets of its sound are damaged: left out")
    return data.getvalue() if count else b""


def _copy_of(stream: AudioStream, file: OutputContainer) -> Stream:
    """A new stream of a Matroska file that takes the packets of another.

    Raises:
        ValueError: it holds no such packets.
    """
    try:
        return file.add_stream_from_template(stream, opaque=True)
    except ValueError:  # Matroska also holds what a WAV file does
        copy = file.add_mux_stream("pcm_s16le")
        with av.open(io.BytesIO(), "w", "wav") as wav:
            BitStreamFilterContext("null", wav.add_stream_from_template(stream, opaque=True), copy)
        return copy


def _timed(
    container: InputContainer, stream: AudioStream, clock: Sequence[ClockPart]
) -> Iterator[tuple[Packet, float]]:
    """Packets of sound with the times at which they are heard, in seconds from the container's start.

    Times do not step back. Where the clock of the picture jumps, the sound is shifted with it: from the byte position
    of that jump on, or from a jump of the sound shortly before it.
    """
    assert stream.time_base is not None
    origin_s, positions = (container.start_time or 0) * _STORED_TICK_S, [part.position for part in clock]
    number, last_s, next_s, heard_s = 0, None, 0.0, -math.inf
    for packet in decoder.stream_packets(container, stream):
        stamp, length_s = packet.dts if packet.pts is None else packet.pts, (packet.duration or 0) * stream.time_base
        stated_s = next_s if stamp is None else float(stamp * stream.time_base - origin_s)
        jumps = last_s is not None and not -decoder.STEP_BACK_S <= stated_s - last_s <= decoder.JUMP_S
        part_at_position = bisect.bisect_right(positions, packet.pos or 0) - 1
        if number + 1 < len(clock):
            ends_s, begins_s = clock[number].ends_s, clock[number + 1].begins_s
            is_certain = jumps or last_s is None or abs(begins_s - ends_s) < 2 * decoder.JUMP_S
            if part_at_position > number and is_certain:
                number = part_at_position
            elif jumps and abs(stated_s - begins_s) < 1:
                number += 1
        if clock:
            part = clock[number]
            if jumps and not part.begins_s - decoder.JUMP_S < stated_s < part.ends_s + decoder.JUMP_S:
                stated_s = next_s  # a damaged stamp
            if stated_s + part.shift_s < heard_s - length_s:
                continue  # where one part's sound is longer than its picture
        last_s, next_s = stated_s, float(stated_s + length_s)
        heard_s = max(heard_s, stated_s + (clock[number].shift_s if clock else 0.0))
        yield packet, heard_s


@dataclass(frozen=True)
class Sound:
    """Audio packets to be put beside frames.

    Attributes:
        data: a Matroska file.
        start_s: the time in it at which the first frame shows.
        duration_s: how much of it; None for all that follows.
        encoder: ``copy`` for the packets as they are, else FFmpeg's encoder that they are encoded with again.
        is_whole: it includes what is heard before the first frame.
        layouts: channel layouts for the encoder, separated by |; None for all that it accepts.
        fills: with an encoder and a duration, silence is added up to that duration.
    """

    data: bytes
    start_s: float = 0.0
    duration_s: float | None = None
    encoder: str = COPIED
    is_whole: bool = False
    layouts: str | None = None
    fills: bool = False

    @property
    def codec(self) -> str:
        """FFmpeg's name of what the packets are encoded with."""
        with self._open() as source:
            return decoder.codec_name(source.streams.audio[0])

    @property
    def profile(self) -> str | None:
        """FFmpeg's name of the codec's profile, such as ``LC``; None where it has none."""
        with self._open() as source:
            return source.streams.audio[0].codec_context.profile

    @property
    def lead_s(self) -> float:
        """Seconds heard before the first frame, which is shown that much later in the file; 0 for less than 0.1."""
        if not self.is_whole:
            return 0.0
        with self._open() as source:
            begins = next((begins for _, begins in self._timed(source, None)), Fraction(0))
            lead = -begins - _delay_s(source)
        return float(lead) if lead >= _LEAST_LEAD_S else 0.0

    def fitting(self, suffix: str) -> Sound:
        """The same sound for a format: copied where the format holds it, else encoded again.

        What is heard before the first frame is cut where the format's streams begin together.

        Args:
            suffix: of the file, such as ``.mp4``.
        """
        form = FORMATS.get(suffix.lower())
        if form is None:
            return replace(self, encoder=COPIED)
        encoder = COPIED if self._fits(form) else _ENCODERS[suffix.lower()]
        return replace(self, encoder=encoder, is_whole=self.is_whole and form not in _COMMON_START)

    def _fits(self, form: str) -> bool:
        """Whether a format holds the packets as they are, where they begin."""
        with self._open() as source:
            begins = next((begins for _, begins in self._timed(source, Fraction(0))), Fraction(0))
        if form in _COMMON_START and begins > _LATE_S:
            return False
        try:
            with av.open(io.BytesIO(), "w", form) as trial:
                for packet in itertools.islice(replace(self, encoder=COPIED).add_to(trial), _TRIAL_PACKETS):
                    trial.mux(packet)
        except (av.FFmpegError, ValueError):
            return False
        return True

    def add_to(self, container: OutputContainer) -> Iterator[Packet]:
        """Add an audio stream to a file that is written; returns its packets, whose times count from the first frame.

        Raises:
            ValueError: the format does not hold it.
            VideoError: it cannot be read, or not be encoded.
        """
        lead = Fraction(self.lead_s)
        source = self._open()
        if self.encoder != COPIED:
            return self._encoded(source, container, lead)
        stream = container.add_stream_from_template(source.streams.audio[0], opaque=True)
        return self._copied(source, stream, -lead - _delay_s(source) - _MATROSKA_TICK_S)

    def _open(self) -> InputContainer:
        try:
            source = av.open(io.BytesIO(self.data), format="matroska")
        except av.FFmpegError as error:
            raise VideoError(f"the sound cannot be read ({error.strerror})") from None
        assert isinstance(source, InputContainer)
        if not source.streams.audio:
            raise VideoError("the sound cannot be read (there is no audio stream)")
        return source

    def _timed(self, source: InputContainer, earliest: Fraction | None) -> Iterator[tuple[Packet, Fraction]]:
        """The packets that begin in the range, with their start times in seconds from the first frame.

        Times in Matroska are whole milliseconds; packets of a fixed length follow each other exactly.

        Args:
            source: the Matroska file.
            earliest: where the range begins; None for all that comes before the first frame, too.
        """
        stored, start = source.streams.audio[0], Fraction(round(self.start_s * 10**6), 10**6)
        limit = None if self.duration_s is None else Fraction(self.duration_s)
        length, expected = _length_s(stored), -_delay_s(source) - start
        if earliest is not None and start + earliest > _PREROLL_S:
            with contextlib.suppress(av.FFmpegError):  # read from where it stands
                source.seek(int((start + earliest - _PREROLL_S) * 10**6))
        for packet in source.demux(stored):
            if not packet.size or packet.pts is None:
                continue
            begins = packet.pts * packet.time_base - start
            if length and abs(begins - expected) <= 1.5 * _MATROSKA_TICK_S:
                begins = expected
            expected = begins + length
            if limit is not None and begins >= limit:
                return
            if earliest is None or begins >= earliest:
                yield packet, begins

    def _copied(self, source: InputContainer, stream: AudioStream, earliest: Fraction) -> Iterator[Packet]:
        stored = source.streams.audio[0]
        base, length = Fraction(1, stored.codec_context.sample_rate or 90_000), _length_s(stored)
        last: int | None = None
        for packet, begins in self._timed(source, earliest):
            lasts = (packet.duration or 0) * packet.time_base
            if abs(lasts - length) <= _MATROSKA_TICK_S:
                lasts = length
            packet.stream, packet.time_base = stream, base
            at = round(begins / base)
            last = at if last is None else max(at, last + 1)  # as every format wants it
            packet.pts = packet.dts = last
            packet.duration = round(lasts / base)
            yield packet

    def _encoded(self, source: InputContainer, container: OutputContainer, lead: Fraction) -> Iterator[Packet]:
        frames = self._converted(source, lead)
        if (first := next(frames, None)) is None:
            return iter(())
        stream = container.add_stream(self.encoder, first.sample_rate)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.layout, stream.codec_context.format = first.layout, first.format
        return (packet for frame in itertools.chain((first,), frames, (None,)) for packet in stream.encode(frame))

    def _converted(self, source: InputContainer, lead: Fraction) -> Iterator[AudioFrame]:
        """Decoded sound as the encoder takes it, from ``lead`` before the first frame on, with silence in its gaps."""
        graph: Graph | None = None
        kind, last = None, None
        for frame in itertools.chain(self._decoded(source, -lead), (None,)):
            frame_kind = None if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
            if graph is not None and frame_kind != kind:
                for last in _filtered(graph, None):
                    yield last
            if frame is None:
                if self.fills and self.duration_s is not None:
                    yield from _silence(last, self.duration_s)
                return
            if graph is None or frame_kind != kind:
                graph, kind = self._graph(frame, last, lead), frame_kind
            for last in _filtered(graph, frame):
                yield last

    def _graph(self, frame: AudioFrame, last: AudioFrame | None, lead: Fraction) -> Graph:
        """Filters for frames of this kind, whose output continues that of ``last``, if there is one."""
        begins: Fraction | int = -lead
        if last is None:
            rates = av.Codec(self.encoder, "w").audio_rates or [frame.sample_rate]
            rate = min(rates, key=lambda each: abs(each - frame.sample_rate))
            layouts = self.layouts or _LAYOUTS[self.encoder]
        else:
            begins = (cast(int, last.pts) + last.samples) * Fraction(1, last.sample_rate)
            rate, layouts = last.sample_rate, last.layout.name
        base = Fraction(1, frame.sample_rate)
        nodes = [
            ("abuffer", f"sample_rate={frame.sample_rate}:sample_fmt={frame.format.name}:time_base={base}"
                        f":channel_layout={frame.layout.name}"),
            ("aresample", f"async=1:min_hard_comp={_GAP_S}:first_pts={round(begins / base)}"),
            ("aformat", f"sample_fmts={_SAMPLES[self.encoder]}:sample_rates={rate}:channel_layouts={layouts}"),
            *([] if self.duration_s is None else [("atrim", f"end={self.duration_s:.6f}")]),
            ("abuffersink", ""),
        ]  # fmt: skip
        graph = av.filter.Graph()
        graph.link_nodes(*(graph.add(name, arguments or None) for name, arguments in nodes))
        graph.configure()
        return graph

    def _decoded(self, source: InputContainer, begins: Fraction) -> Iterator[AudioFrame]:
        """Frames of sound that end after ``begins``, their times counted from the first frame of the picture."""
        stored, start = source.streams.audio[0], round(self.start_s * 10**6)
        packets = (packet for packet, _ in self._timed(source, begins - _PREROLL_S))
        codec = stored.codec_context
        layout = codec.layout.name
        for packet in itertools.chain(packets, (None,)):
            try:
                frames = codec.decode(packet)
            except av.FFmpegError:  # what is damaged is left out
                continue
            for frame in frames:
                if frame.layout.name != layout and frame.layout.name.endswith(" channels"):
                    # A damaged packet has changed the decoder's configuration to channels without places.
                    new_codec = av.CodecContext.create(codec.name, "r")
                    assert isinstance(new_codec, av.AudioCodecContext)
                    new_codec.extradata, codec = codec.extradata, new_codec
                    break
                at = cast(int, frame.pts) * cast(Fraction, frame.time_base) - Fraction(start, 10**6)
                if at + Fraction(frame.samples, frame.sample_rate) > begins:
                    frame.pts, frame.time_base = round(at * frame.sample_rate), Fraction(1, frame.sample_rate)
                    yield frame


def _filtered(graph: Graph, frame: AudioFrame | None) -> Iterator[AudioFrame]:
    """The frames that a frame makes complete; None for those that are left."""
    with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
        graph.push(frame)
        while True:
            yield cast(AudioFrame, graph.pull())


def _silence(last: AudioFrame | None, end_s: float) -> Iterator[AudioFrame]:
    """Silent frames from the end of a frame, or from 0, to ``end_s``."""
    rate, layout = (48_000, "stereo") if last is None else (last.sample_rate, last.layout.name)
    at = 0 if last is None else cast(int, last.pts) + last.samples
    channels = av.AudioLayout(layout).nb_channels
    while at < end_s * rate:
        frame = AudioFrame.from_ndarray(np.zeros((channels, _SILENT_SAMPLES), np.float32), "fltp", layout)
        frame.pts, frame.sample_rate, frame.time_base = at, rate, Fraction(1, rate)
        yield frame
        at += _SILENT_SAMPLES


def _length_s(stored: AudioStream) -> Fraction:
    """Seconds of a packet, where all are as long; else 0."""
    codec = stored.codec_context
    return Fraction(codec.frame_size, codec.sample_rate) if codec.frame_size and codec.sample_rate else Fraction(0)


def _delay_s(source: InputContainer) -> Fraction:
    """Seconds that the decoder drops at the beginning, since the encoder put them there."""
    codec = source.streams.audio[0].codec_context
    return Fraction(codec.delay, codec.sample_rate) if codec.sample_rate else Fraction(0)


class SoundPieces:
    """Sound encoded as AAC in stereo, taken piece by piece; silent where the source is.

    Args:
        sound: with a duration.

    Attributes:
        stream: of the packets, a template for :func:`nervcodec.media.writer.fragment`.
    """

    def __init__(self, sound: Sound):
        self._container = av.open(io.BytesIO(), "w", "mp4")
        filled = replace(sound, encoder="aac", is_whole=False, layouts="stereo", fills=True)
        self._packets = filled.add_to(self._container)
        self._next = next(self._packets, None)
        self.stream = self._container.streams.audio[0]

    def until(self, end_s: float) -> Iterator[Packet]:
        """The packets that begin before a time, and after those taken so far; times count from the sound's start."""
        while self._next is not None and cast(int, self._next.pts) * self._next.time_base < end_s:
            packet, self._next = self._next, next(self._packets, None)
            if cast(int, packet.pts) >= 0:  # what an encoder puts before is no sound
                yield packet
