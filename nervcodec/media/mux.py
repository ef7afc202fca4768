# SPDX-License-Identifier: MIT
"""Media files written with PyAV: a picture, and sound beside it."""

from __future__ import annotations

import contextlib
import heapq
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import IO, cast

import av
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from nervcodec.errors import ContainerError, VideoError
from nervcodec.formats.atomic import replacing, writing
from nervcodec.media import matroska
from nervcodec.media.audio import FORMATS, Sound
from nervcodec.media.decoder import PieceReader, codec_name, has_alpha, make_packet

SUFFIXES = (".mp4", ".mkv", ".webm")  # formats that copied and stored streams are written to
_MATROSKA = (".mkv", ".webm")
_ROUNDED_S = 1.1e-3  # by which the times of a moment may be rounded
_MAX_REORDERED = 32  # packets of a stream, one after the other, by H.264 and HEVC

Picture = tuple[VideoStream, Iterable[av.Packet]]


def write(path: Path, add_picture: Callable[[OutputContainer], Picture], sound: Sound | None, remedy: str = "") -> None:
    """Write a file beside its target and rename it.

    Args:
        path: its suffix is one of ``FORMATS``.
        add_picture: adds a video stream to the file; returns it and its packets, in the order of decoding.
        sound: to put beside it, see :meth:`Sound.fitting`.
        remedy: end of the message where the file cannot be written.

    Raises:
        VideoError: the format does not hold a stream, or the file cannot be written.
    """
    suffix, options = path.suffix.lower(), {}
    if suffix in (".mp4", ".mov"):
        options["movflags"] = "+faststart"
        if sound is not None and sound.lead_s:
            options["avoid_negative_ts"] = "make_non_negative"  # else what comes before the first frame is hidden
    elif suffix == ".mkv":
        options["allow_raw_vfw"] = "1"
        options["write_crc32"] = "0"  # the head is changed once more
    elif suffix == ".avi":
        options["avoid_negative_ts"] = "disabled"  # its packets have no times; a later picture would be one repeated
    message = f"{path}: cannot be written ({{}}){remedy}"
    with writing(path, VideoError) as temporary:
        try:
            with _closing(av.open(f"file:{temporary}", "w", FORMATS[suffix], container_options=options)) as container:
                try:
                    stream, packets = add_picture(container)
                    tracks = [packets] if sound is None else [packets, sound.add_to(container)]
                except ValueError as error:  # the format does not hold a stream
                    raise VideoError(message.format(error)) from None
                codec = stream.codec_context
                aspect = codec.sample_aspect_ratio or Fraction(1)
                sets_aspect = aspect != 1 and suffix in _MATROSKA
                if sets_aspect:
                    stream.metadata.update(matroska.ASPECT_PLACEHOLDER)
                for packet in heapq.merge(*tracks, key=_decoded_s):
                    container.mux(packet)
                size = codec.width, codec.height
            if sets_aspect:
                matroska.set_aspect(temporary, *size, aspect, in_pixels=suffix == ".webm")
        except av.FFmpegError as error:
            raise VideoError(message.format(error.strerror)) from None


def _decoded_s(packet: av.Packet) -> Fraction | int:
    return cast(int, packet.dts) * packet.time_base


@contextlib.contextmanager
def _closing(container: OutputContainer) -> Iterator[OutputContainer]:
    """Close a file; where it cannot be finished the first error counts."""
    try:
        yield container
    except BaseException:
        with contextlib.suppress(av.FFmpegError):
            container.close()
        raise
    container.close()


def write_av1(
    path: Path,
    units: Iterable[tuple[bytes, bool]],
    ticks: Sequence[int],
    base: Fraction,
    aspect: Fraction,
    rate: Fraction | None,
    sound: Sound | None,
) -> None:
    """Write an AV1 stream as it is.

    Args:
        path: the file.
        units: temporal units, each with the one frame that is shown, and whether decoding may begin with it; the first
            begins with a sequence header.
        ticks: when each frame shows, and when the last ends.
        base: seconds of a tick.
        aspect: width : height of a pixel.
        rate: frames a second; None where they are not evenly spaced.
        sound: to put beside it.

    Raises:
        VideoError: as :func:`write`.
    """
    units = iter(units)
    first = next(units)

    def picture(container: OutputContainer) -> Picture:
        with av.open(io.BytesIO(first[0]), format="obu") as stored:
            stream = container.add_stream_from_template(stored.streams.video[0], opaque=True)
        stream.codec_context.sample_aspect_ratio, stream.time_base = aspect, base
        if rate is not None:
            stream.codec_context.framerate = rate
        return stream, packets(stream)

    def packets(stream: VideoStream) -> Iterator[av.Packet]:
        for number, (unit, is_key) in enumerate(itertools.chain([first], units)):
            packet = make_packet(unit)
            packet.stream, packet.time_base, packet.is_keyframe = stream, base, is_key
            packet.pts = packet.dts = ticks[number]
            packet.duration = ticks[number + 1] - ticks[number]
            yield packet

    write(path, picture, sound)


def write_copy(
    path: Path, pieces: Callable[[], Iterable[bytes]], skipped: int, sound: Sound | None, form: str = "matroska"
) -> None:
    """Write the packets of the video stream of another file, at the times that they have there.

    Args:
        path: the file.
        pieces: give the other file, in order.
        skipped: frames at its beginning that are not shown; ``.mp4`` alone can say so.
        sound: to put beside it.
        form: of the other file, by FFmpeg's name.

    Raises:
        ContainerError: it holds no more than the frames that are not shown.
        VideoError: as :func:`write`.
    """
    begins = None
    if skipped:
        with open_copy(pieces(), path, form) as (stored, file):
            begins = _start_tick(stored, skipped)
            file.raise_error()
        sound = None if sound is None else replace(sound, is_whole=False)  # what begins before is not shown
    with open_copy(pieces(), path, form) as (stored, file):
        write(path, lambda container: _copy(container, stored, file, begins), sound, _format_hint(stored, path))


def _format_hint(stored: InputContainer, path: Path) -> str:
    """End of a message: what holds the codec of a copied stream where the format of a file does not."""
    codec, suffix = codec_name(stored.streams.video[0]), path.suffix.lower()
    holders = [each for each in SUFFIXES if codec in av.open(io.BytesIO(), "w", FORMATS[each]).supported_codecs]
    if not holders:
        return f"; none of {', '.join(SUFFIXES)} holds {codec}: decode without --base-only encodes it again"
    others = [each for each in holders if each != suffix]
    return f"; where {suffix} does not hold this codec, {others[-1]} does" if others else ""


@contextlib.contextmanager
def open_copy(
    pieces: Iterable[bytes], path: Path, form: str = "matroska"
) -> Iterator[tuple[InputContainer, PieceReader]]:
    """Open the file of a copied stream, and the object that reads its pieces.

    Raises:
        ContainerError: it holds no picture.
        VideoError: it cannot be read; ``path`` begins the message.
    """
    file = PieceReader(pieces)
    try:
        container = av.open(file, format=form)
    except av.FFmpegError as error:
        file.raise_error()
        raise VideoError(f"{path}: cannot be written (the copied stream: {error.strerror})") from None
    assert isinstance(container, InputContainer)
    with container:
        if not container.streams.video:
            raise ContainerError("the copied stream is damaged: it holds no picture")
        yield container, file


def _start_tick(stored: InputContainer, skipped: int) -> int:
    """When the first frame that is shown does."""
    ticks = sorted(packet.pts for packet in stored.demux(video=0) if packet.pts is not None)
    if len(ticks) <= skipped:
        raise ContainerError(f"the copied stream is damaged: it holds {len(ticks)} frames")
    return ticks[skipped]


def _copy(container: OutputContainer, stored: InputContainer, file: PieceReader, begins: int | None) -> Picture:
    template = stored.streams.video[0]
    stream = container.add_stream_from_template(template, opaque=True)
    if template.codec_context.name == "hevc" and container.format.name == "mp4":
        stream.codec_context.codec_tag = "hvc1"  # Apple's players take no other
    if template.sample_aspect_ratio:
        stream.codec_context.sample_aspect_ratio = template.sample_aspect_ratio
    if template.average_rate:
        stream.codec_context.framerate = template.average_rate
    if has_alpha(template) and container.format.name in ("matroska", "webm"):
        stream.metadata["alpha_mode"] = "1"
    return stream, _shift(stored.demux(template), file, stream, begins)


def _shift(
    stored: Iterable[av.Packet], file: PieceReader, stream: VideoStream, begins: int | None
) -> Iterator[av.Packet]:
    """Packets shifted so that the first frame, or the one at ``begins``, shows at 0.

    The demuxer leaves out the first times of decoding where frames are reordered.
    """
    packets = (packet for packet in stored if packet.size)
    head = list(itertools.islice(packets, _MAX_REORDERED))
    shows = [packet.pts for packet in head if packet.pts is not None]
    begins = min(shows, default=0) if begins is None else begins
    known = next((number for number, packet in enumerate(head) if packet.dts is not None), len(head))
    first = next((packet.dts for packet in head if packet.dts is not None), min(shows, default=0))
    for number, packet in enumerate(head[:known]):
        packet.dts = first - (known - number) * max(packet.duration or 0, 1)
    for packet in itertools.chain(head, packets):
        packet.stream = stream
        packet.dts = cast(int, packet.dts) - begins
        if packet.pts is not None:
            packet.pts -= begins
        yield packet
    file.raise_error()


def cut(source: Path | IO[bytes], target: Path, start_s: float, stop_s: float) -> None:
    """Copy the packets of a moment of a whole MP4 file; an edit list hides what comes before it.

    They begin at the last key frame before the moment.

    Raises:
        VideoError: the packets cannot be copied.
    """
    begins = {"use_editlist": "1", "movflags": "+faststart"}
    try:
        with (
            replacing(target) as temporary,
            av.open(source) as stored,
            av.open(str(temporary), "w", "mp4", container_options=begins) as made,
        ):
            streams = {each: made.add_stream_from_template(each, opaque=True) for each in stored.streams}
            stored.seek(round((start_s + _ROUNDED_S) * av.time_base), backward=True)
            packets = list(_packets_before(stored, stop_s - _ROUNDED_S))
            shown = (cast(int, each.pts) * each.time_base for each in packets if each.stream.type == "video")
            begins_s = max((at_s for at_s in shown if at_s <= start_s + _ROUNDED_S), default=Fraction(0))
            for packet in packets:
                shift = round(begins_s / packet.time_base)
                packet.stream = streams[packet.stream]
                packet.pts, packet.dts = cast(int, packet.pts) - shift, cast(int, packet.dts) - shift
                made.mux(packet)
    except av.FFmpegError as error:
        raise VideoError(f"the moment cannot be cut out ({error.strerror})") from None


def _packets_before(stored: InputContainer, stop_s: float) -> Iterator[av.Packet]:
    """Packets of all streams that are decoded before a time."""
    going = set(stored.streams)
    for packet in stored.demux():
        if packet.dts is None or packet.pts is None:
            continue
        if packet.dts * packet.time_base < stop_s:
            yield packet
        else:
            going.discard(packet.stream)
            if not going:
                return
