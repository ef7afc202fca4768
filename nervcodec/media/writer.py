# SPDX-License-Identifier: MIT
"""Frames out: a video file, a folder of PNG images, or y4m on a stream."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import OutputContainer

from nervcodec.errors import VideoError, wrap_os_error
from nervcodec.formats.atomic import writing
from nervcodec.formats.header import PlaneFormat
from nervcodec.media import mux
from nervcodec.media.audio import FORMATS, Sound
from nervcodec.media.planes import Light, Planes, pixel_format, plane_filters, to_frame
from nervcodec.media.reader import Filters

Y4M = ".y4m"
VIDEO_SUFFIXES = (*FORMATS, Y4M)
HDR_SUFFIXES = (".mp4", ".mkv", ".mov")
_BT709 = 1  # primaries, transfer and matrix of ITU-T H.273
_LIMITED, _FULL = 1, 2  # range
_LEAST_H265 = 16  # pixels of a side that libx265 takes
_LAST_PRIMARIES, _UNSPECIFIED = 22, 2  # of H.273, as far as FFmpeg knows them
_CHROMA_PLACES = ("left", "center", "topleft")  # as H.265 counts them
# Each chroma sample is the mean of the pixels it covers.
_SCALING = "flags=area+accurate_rnd+full_chroma_inp:out_range=tv"


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    width: int,
    height: int,
    rate: Fraction,
    sample_aspect_ratio: Fraction = Fraction(1),
    crf: int = 18,
    sound: Sound | None = None,
) -> int:
    """Write a video file beside its target and rename it; returns the number of frames.

    The stream is H.264, 4:2:0, BT.709; 4:4:4 where a side is odd, since 4:2:0 cannot hold it. ``.webm`` gets VP9,
    ``.y4m`` raw 4:4:4 (BT.601, as players take it).

    Args:
        path: its suffix chooses the format.
        frames: ``(height, width, 3)`` uint8 RGB.
        width, height: pixels.
        rate: frames a second.
        sample_aspect_ratio: written to the stream.
        crf: constant rate factor, 0 (best) to 51.
        sound: audio packets to put beside the frames, see :meth:`Sound.fitting`; ``.y4m`` holds none.

    Raises:
        VideoError: there is no frame, or the place cannot be written.
    """
    frames, read = iter(frames), itertools.count()
    if (first := next(frames, None)) is None:
        raise VideoError(f"{path}: no frame to write")
    counted = (frame for frame, _ in zip(itertools.chain([first], frames), read, strict=False))
    if path.suffix.lower() == Y4M:
        with writing(path, VideoError) as temporary, open(temporary, "wb") as file:
            file.writelines(_y4m(counted, width, height, rate, sample_aspect_ratio))
    else:
        layout = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        codec = "libvpx-vp9" if path.suffix.lower() == ".webm" else "libx264"
        options = {"crf": str(crf)}
        if path.suffix.lower() == ".avi":  # stores no presentation times: with B-frames the picture would come late
            options["bf"] = "0"

        def picture(container: OutputContainer) -> mux.Picture:
            stream = _added(container, codec, (width, height), rate, 1 / rate, sample_aspect_ratio, options)
            stream.codec_context.pix_fmt = layout
            converted = _converted(counted, width, height, layout, "bt709")
            return stream, _encoded(stream, converted, itertools.count())

        mux.write(path, picture, sound)
    return next(read)


def write_hdr(
    path: Path,
    frames: Iterable[Planes],
    form: PlaneFormat,
    light: Light | None,
    width: int,
    height: int,
    rate: Fraction,
    sample_aspect_ratio: Fraction = Fraction(1),
    crf: int = 18,
    sound: Sound | None = None,
) -> None:
    """:func:`write_video` for HDR: H.265 of 10 bits with the colours of its planes, which are not converted.

    Args:
        path: its suffix is one of ``HDR_SUFFIXES``.
        frames: arrays of length 1, at least one.
        form: of the planes; they become 4:4:4 where a side that is written does not suit their chroma.
        light: is stated in the stream; None for nothing.
        width, height: pixels that are written.
        rate, sample_aspect_ratio, crf, sound: as for :func:`write_video`.

    Raises:
        VideoError: libx265 refuses such frames, or the place cannot be written.
    """
    if min(width, height) < _LEAST_H265:
        raise VideoError(f"{path}: H.265 takes no frames of {width} x {height}, only {_LEAST_H265} and more each way")
    down, across = form.chroma_step
    written = replace(form, depth=10, chroma="444" if height % down or width % across else form.chroma)
    filters = Filters(path, plane_filters(written, height, width))
    parameters = ["log-level=none"]
    if written.chroma == "420":
        parameters.append(f"chromaloc={_CHROMA_PLACES.index(form.chroma_place)}")
    if light is not None and light.display is not None:
        *xy, least, most = light.display
        red, green, blue, white = (
            f"({x * 50_000:.0f},{y * 50_000:.0f})" for x, y in zip(xy[::2], xy[1::2], strict=True)
        )
        shades = f"({most * 10_000:.0f},{least * 10_000:.0f})"
        parameters.append(f"master-display=G{green}B{blue}R{red}WP{white}L{shades}")
    if light is not None and light.content is not None:
        parameters.append("max-cll={},{}".format(*light.content))
    options = {"crf": str(crf), "x265-params": ":".join(parameters)}

    def picture(container: OutputContainer) -> mux.Picture:
        stream = _added(container, "libx265", (width, height), rate, 1 / rate, sample_aspect_ratio, options)
        codec = stream.codec_context
        codec.pix_fmt = pixel_format(written)
        codec.color_primaries = form.primaries if form.primaries <= _LAST_PRIMARIES else _UNSPECIFIED
        codec.color_trc, codec.colorspace = form.transfer, form.matrix
        codec.color_range = _FULL if form.full_range else _LIMITED
        if container.format.name in ("mp4", "mov"):
            codec.codec_tag = "hvc1"  # Apple's players take no other
        return stream, _encoded(stream, (filters.frame(to_frame(each, form)) for each in frames), itertools.count())

    mux.write(path, picture, sound)


def write_y4m(
    stream: BinaryIO,
    frames: Iterable[np.ndarray],
    width: int,
    height: int,
    rate: Fraction,
    sample_aspect_ratio: Fraction = Fraction(1),
) -> int:
    """Write YUV4MPEG2 (4:4:4, 8 bit) to an open binary stream; returns the number of frames.

    Raises:
        BrokenPipeError: the reader closed the stream.
        VideoError: the stream cannot be written.
    """
    count = -1  # the head is no frame
    try:
        for part in _y4m(frames, width, height, rate, sample_aspect_ratio):
            stream.write(part)
            count += 1
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise VideoError(f"standard output: cannot be written ({error.strerror})") from None
    return count


def _y4m(
    frames: Iterable[np.ndarray], width: int, height: int, rate: Fraction, sample_aspect_ratio: Fraction
) -> Iterator[bytes]:
    """The head of a YUV4MPEG2 file, then each frame."""
    aspect = f"{sample_aspect_ratio.numerator}:{sample_aspect_ratio.denominator}"
    head = f"W{width} H{height} F{rate.numerator}:{rate.denominator} Ip A{aspect}"
    yield f"YUV4MPEG2 {head} C444 XYSCSS=444 XCOLORRANGE=LIMITED\n".encode()
    for frame in _converted(frames, width, height, "yuv444p", "bt601"):
        yield b"FRAME\n" + frame.to_ndarray().tobytes()


def _converted(
    frames: Iterable[np.ndarray], width: int, height: int, layout: str, matrix: str
) -> Iterator[av.VideoFrame]:
    """RGB frames, scaled, as luma and chroma of a limited range."""
    graph = None
    for frame in frames:
        if graph is None:
            graph = av.filter.Graph()
            size = f"{frame.shape[1]}x{frame.shape[0]}"
            nodes = [
                graph.add("buffer", f"video_size={size}:pix_fmt=rgb24:time_base=1/25:pixel_aspect=1/1"),
                graph.add("scale", f"{width}:{height}:{_SCALING}:out_color_matrix={matrix}"),
                graph.add("format", layout),
                graph.add("buffersink"),
            ]
            graph.link_nodes(*nodes).configure()
        graph.vpush(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24"))
        yield graph.vpull()


def fragment(
    frames: Iterable[np.ndarray],
    size: tuple[int, int],
    rate: Fraction,
    ticks: Sequence[int],
    ticks_s: int,
    sample_aspect_ratio: Fraction,
    options: dict[str, str],
    sound: av.AudioStream | None = None,
    packets: Iterable[av.Packet] = (),
) -> tuple[bytes, bytes]:
    """A piece of a fragmented MP4 file: H.264, 4:2:0, BT.709, with one key frame, the first.

    Args:
        frames: ``(H, W, 3)`` uint8 RGB.
        size: (width, height) that they are scaled to, both even.
        rate: frames a second.
        ticks: when each frame shows in the whole video, and when the last ends.
        ticks_s: ticks per second.
        sample_aspect_ratio: written to the stream.
        options: of libx264.
        sound: the template of an audio stream.
        packets: of sound that belong to this piece, their times those of the whole video.

    Returns:
        The head of the file, which is the same for all pieces of a video, and the piece.

    Raises:
        VideoError: libx264 refused.
    """
    output = io.BytesIO()
    flags = {
        "movflags": "+empty_moov+default_base_moof+frag_custom+frag_discont+skip_trailer",
        "use_editlist": "0",
        "avoid_negative_ts": "disabled",
        "video_track_timescale": str(ticks_s),
    }
    try:
        with av.open(output, "w", "mp4", container_options=flags) as container:
            stream = _added(container, "libx264", size, rate, Fraction(1, ticks_s), sample_aspect_ratio, options)
            stream.codec_context.gop_size = len(ticks)
            heard = None if sound is None else container.add_stream_from_template(sound, opaque=True)
            container.start_encoding()
            head = output.tell()
            converted = _converted(frames, *size, stream.codec_context.pix_fmt or "", "bt709")
            for packet in _encoded(stream, converted, ticks):
                container.mux(packet)
            for packet in packets:
                packet.stream = heard
                container.mux(packet)
    except av.FFmpegError as error:
        raise VideoError(f"libx264 refused ({error.strerror})") from None
    data = output.getvalue()
    return data[:head], data[head:]


def _added(
    container: OutputContainer,
    encoder: str,
    size: tuple[int, int],
    rate: Fraction,
    time_base: Fraction,
    sample_aspect_ratio: Fraction,
    options: dict[str, str],
) -> av.VideoStream:
    """A video stream in a file that is written."""
    stream = container.add_stream(encoder, rate, options=options, time_base=time_base)
    assert isinstance(stream, av.VideoStream)
    codec = stream.codec_context
    codec.width, codec.height = size
    codec.sample_aspect_ratio = sample_aspect_ratio
    codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
    codec.color_range = _LIMITED
    codec.thread_type = "AUTO"  # PyAV's default would have x264 cut each frame into slices
    return stream


def _encoded(stream: av.VideoStream, frames: Iterable[av.VideoFrame], ticks: Iterable[int]) -> Iterator[av.Packet]:
    """The packets of frames.

    Args:
        stream: result of :func:`_added`.
        frames: in the pixel format of its encoder.
        ticks: of the stream's time base, when each frame shows and the last ends.
    """
    codec = stream.codec_context
    lasts: dict[int | None, int] = {}
    for frame, (begin, end) in zip(frames, itertools.pairwise(ticks), strict=False):
        frame.pts, frame.time_base, lasts[begin] = begin, codec.time_base, end - begin
        yield from _lasting(stream.encode(frame), lasts)
    yield from _lasting(stream.encode(None), lasts)


def _lasting(packets: Iterable[av.Packet], lasts: dict[int | None, int]) -> Iterator[av.Packet]:
    """Packets with their durations, which encoders leave out, by the tick at which they show."""
    for packet in packets:
        packet.duration = lasts.pop(packet.pts, packet.duration)
        yield packet


def write_png(path: Path, frame: np.ndarray) -> None:
    """Write one ``(H, W, 3)`` uint8 RGB frame as PNG, beside its target and renamed."""
    from PIL import Image

    with writing(path, VideoError) as temporary:
        Image.fromarray(frame).save(temporary, format="PNG")


def write_pngs(folder: Path, numbered: Iterable[tuple[int, np.ndarray]], digits: int) -> int:
    """Write ``frame_00042.png`` for each (number, frame); returns how many.

    Raises:
        VideoError: the folder cannot be made or written.
    """
    with wrap_os_error(f"{folder}: cannot be made", VideoError):
        folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for number, frame in numbered:
        write_png(folder / f"frame_{number:0{digits}d}.png", frame)
        count += 1
    return count
