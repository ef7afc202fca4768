# SPDX-License-Identifier: MIT
"""The packets of a source's audio stream, taken out as they are, on the clock of its picture."""

from __future__ import annotations

import bisect
import io
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from nervcodec.errors import VideoError
from nervcodec.media import media
from nervcodec.media.source import SourceOptions, VideoInfo
from nervcodec.media.timing import ClockPart

LEAD_S = 1.0  # that stored packets are late: some begin before zero, which the Matroska muxer would move
_TICK_S = Fraction(1, 1_000_000)
_MATROSKA = {"fflags": "+bitexact"}


def packets(info: VideoInfo, options: SourceOptions) -> bytes:
    """The audio packets of a source's range, as they are, in a Matroska file; nothing where the range has none.

    Of several streams the one that a player takes. Their times count from ``LEAD_S`` before the zero of the frames'
    times, which begin at ``info.first_frame_s``.

    Raises:
        VideoError: the stream cannot be copied.
    """
    begins_s = options.start_s or -LEAD_S
    ends_s = math.inf if options.duration_s is None else options.start_s + options.duration_s
    data, count, codec = io.BytesIO(), 0, "unknown"
    with media.opened(info.path) as container:
        stream = container.streams.best("audio", related=media.videos(container)[info.input.number])
        try:
            if not isinstance(stream, AudioStream):
                raise ValueError("it states no sample rate")
            codec = media.codec_name(stream)
            with av.open(data, "w", "matroska", container_options=_MATROSKA) as file:
                copy = _copy_of(stream, file)
                for packet, shows_s in _timed(container, stream, info.clock):
                    if shows_s >= ends_s:
                        break
                    if shows_s >= begins_s:
                        packet.duration = round((packet.duration or 0) * packet.time_base / _TICK_S)
                        packet.time_base, packet.stream = _TICK_S, copy
                        packet.pts = packet.dts = round((shows_s - options.start_s + LEAD_S) / _TICK_S)
                        file.mux(packet)
                        count += 1
        except (av.FFmpegError, ValueError):
            said = f"its sound cannot be copied (Matroska does not hold this kind of {codec})"
            raise VideoError(f"{info.path}: {said}; --audio none leaves it out") from None
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

    Times do not step back. Where the picture's clock jumps the sound goes with it: from the place in the file on
    where the picture jumps, or where the sound does so a little before.
    """
    assert stream.time_base is not None
    origin_s, positions = (container.start_time or 0) * _TICK_S, [part.position for part in clock]
    number, last_s, next_s, heard_s = 0, None, 0.0, -math.inf
    for packet in media.packets_of(container, stream):
        stamp, length_s = packet.dts if packet.pts is None else packet.pts, (packet.duration or 0) * stream.time_base
        stated_s = next_s if stamp is None else float(stamp * stream.time_base - origin_s)
        jumps = last_s is not None and not -media.STEP_BACK_S <= stated_s - last_s <= media.JUMP_S
        behind = bisect.bisect_right(positions, packet.pos or 0) - 1
        if number + 1 < len(clock):
            ends_s, begins_s = clock[number].ends_s, clock[number + 1].begins_s
            is_certain = jumps or last_s is None or abs(begins_s - ends_s) < 2 * media.JUMP_S
            if behind > number and is_certain:
                number = behind
            elif jumps and abs(stated_s - begins_s) < 1:
                number += 1
        if clock:
            part = clock[number]
            if jumps and not part.begins_s - media.JUMP_S < stated_s < part.ends_s + media.JUMP_S:
                stated_s = next_s  # a damaged stamp
            if stated_s + part.moved_s < heard_s - length_s:
                continue  # where one part's sound is longer than its picture
        last_s, next_s = stated_s, float(stated_s + length_s)
        heard_s = max(heard_s, stated_s + (clock[number].moved_s if clock else 0.0))
        yield packet, heard_s
