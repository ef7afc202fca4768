# SPDX-License-Identifier: MIT
"""Frames out: a video file, a folder of PNG images, or y4m on a stream."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

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


class VideoFormat(NamedTuple):
    """Frames of a video that is written.

    Attributes:
        width, height: pixels; frames of another size are scaled.
        rate: frames a second.
        sample_aspect_ratio: width : height of a pixel.
    """

    width: int
    height: int
    rate: Fraction
    sample_aspect_ratio: Fraction = Fraction(1)


def write_video(
    path: Path, frames: Iterable[np.ndarray], video: VideoFormat, crf: int = 18, sound: Sound | None = None
) -> None:
    """Write a video file beside its target and rename it.

    The stream is H.264, 4:2:0, BT.709; 4:4:4 where a side is odd, since 4:2:0 cannot hold it. ``.webm`` gets VP9,
    ``.y4m`` raw 4:4:4 (BT.601, as players take it).

    Args:
        path: its suffix chooses the format.
        frames: ``(height, width, 3)`` uint8 RGB.
        video: size, rate and shape of the pixels.
        crf: constant rate factor, 0 (best) to 51.
        sound: audio packets to put beside the frames, see :meth:`Sound.fitting`; ``.y4m`` holds none.

    Raises:
        VideoError: there is no frame, or the file cannot be written.
    """
    frames, suffix = iter(frames), path.suffix.lower()
    if (first := next(frames, None)) is None:
        raise VideoError(f"{path}: no frame to write")
    frames = itertools.chain([first], frames)
    if suffix == Y4M:
        with writing(path, VideoError) as temporary, open(temporary, "wb") as file:
            file.writelines(_y4m(frames, video))
        return
    pixels = "yuv444p" if video.width % 2 or video.height % 2 else "yuv420p"
    # AVI stores no presentation times: with B-frames the picture would come late.
    options = {"crf": str(crf), **({"bf": "0"} if suffix == ".avi" else {})}

    def add_picture(container: OutputContainer) -> mux.Picture:
        stream = _add_stream(
            container, "libvpx-vp9" if suffix == ".webm" else "libx264", video, 1 / video.rate, options
        )
        stream.codec_context.pix_fmt = pixels
        return stream, _encode(stream, _to_yuv(frames, video, pixels, "bt709"), itertools.count())

    mux.write(path, add_picture, sound)


def write_hdr(
    path: Path,
    frames: Iterable[Planes],
    form: PlaneFormat,
    light: Light | None,
    video: VideoFormat,
    crf: int = 18,
    sound: Sound | None = None,
) -> None:
    """:func:`write_video` for HDR: H.265 of 10 bits with the colours of its planes, which are not converted.

    Args:
        path: its suffix is one of ``HDR_SUFFIXES``.
        frames: arrays of length 1, at least one.
        form: of the planes; they become 4:4:4 where a side that is written does not suit their chroma.
        light: is stated in the stream; None for nothing.
        video, crf, sound: as for :func:`write_video`.

    Raises:
        VideoError: libx265 refuses such frames, or the file cannot be written.
    """
    width, height = video.width, video.height
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
        luminance = f"({most * 10_000:.0f},{least * 10_000:.0f})"
        parameters.append(f"master-display=G{green}B{blue}R{red}WP{white}L{luminance}")
    if light is not None and light.content is not None:
        parameters.append("max-cll={},{}".format(*light.content))
    options = {"crf": str(crf), "x265-params": ":".join(parameters)}

    def add_picture(container: OutputContainer) -> mux.Picture:
        stream = _add_stream(container, "libx265", video, 1 / video.rate, options)
        codec = stream.codec_context
        codec.pix_fmt = pixel_format(written)
        codec.color_primaries = form.primaries if form.primaries <= _LAST_PRIMARIES else _UNSPECIFIED
        codec.color_trc, codec.colorspace = form.transfer, form.matrix
        codec.color_range = _FULL if form.full_range else _LIMITED
        if container.format.name in ("mp4", "mov"):
            codec.codec_tag = "hvc1"  # Apple's players take no other
        return stream, _encode(stream, (filters.frame(to_frame(planes, form)) for planes in frames), itertools.count())

    mux.write(path, add_picture, sound)


def write_y4m(stream: BinaryIO, frames: Iterable[np.ndarray], video: VideoFormat) -> None:
    """Write YUV4MPEG2 (4:4:4, 8 bit) to an open binary stream.

    Raises:
        BrokenPipeError: the reader closed the stream.
        VideoError: the stream cannot be written.
    """
    try:
        stream.writelines(_y4m(frames, video))
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise VideoError(f"standard output: cannot be written ({error.strerror})") from None


def _y4m(frames: Iterable[np.ndarray], video: VideoFormat) -> Iterator[bytes]:
    """The header of a YUV4MPEG2 file, then each frame."""
    rate, aspect = (f"{value.numerator}:{value.denominator}" for value in (video.rate, video.sample_aspect_ratio))
    size = f"W{video.width} H{video.height}"
    yield f"YUV4MPEG2 {size} F{rate} Ip A{aspect} C444 XYSCSS=444 XCOLORRANGE=LIMITED\n".encode()
    for frame in _to_yuv(frames, video, "yuv444p", "bt601"):
        yield b"FRAME\n" + frame.to_ndarray().tobytes()


def _to_yuv(frames: Iterable[np.ndarray], video: VideoFormat, pixels: str, matrix: str) -> Iterator[av.VideoFrame]:
    """RGB frames, scaled, as luma and chroma of a limited range in a pixel format of FFmpeg."""
    scale = f"scale={video.width}:{video.height}:{_SCALING}:out_color_matrix={matrix}"
    filters = Filters("video", f"{scale},format={pixels}")
    for frame in frames:
        yield filters.frame(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24"))


def fragment(
    frames: Iterable[np.ndarray],
    video: VideoFormat,
    ticks: Sequence[int],
    ticks_s: int,
    options: dict[str, str],
    sound: av.AudioStream | None = None,
    packets: Iterable[av.Packet] = (),
) -> tuple[bytes, bytes]:
    """A piece of a fragmented MP4 file: H.264, 4:2:0, BT.709, with one key frame, the first.

    Args:
        frames: ``(H, W, 3)`` uint8 RGB.
        video: rate, shape of the pixels, and size, both sides even.
        ticks: when each frame shows in the whole video, and when the last ends.
        ticks_s: ticks per second.
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
            stream = _add_stream(container, "libx264", video, Fraction(1, ticks_s), options)
            stream.codec_context.gop_size = len(ticks)
            audio = None if sound is None else container.add_stream_from_template(sound, opaque=True)
            container.start_encoding()
            head = output.tell()
            for packet in _encode(stream, _to_yuv(frames, video, "yuv420p", "bt709"), ticks):
                container.mux(packet)
            for packet in packets:
                packet.stream = audio
                container.mux(packet)
    except av.FFmpegError as error:
        raise VideoError(f"libx264 refused ({error.strerror})") from None
    data = output.getvalue()
    return data[:head], data[head:]


def _add_stream(
    container: OutputContainer, encoder: str, video: VideoFormat, time_base: Fraction, options: dict[str, str]
) -> av.VideoStream:
    """A video stream in a file that is written, tagged as BT.709 of limited range."""
    stream = container.add_stream(encoder, video.rate, options=options, time_base=time_base)
    assert isinstance(stream, av.VideoStream)
    codec = stream.codec_context
    codec.width, codec.height, codec.sample_aspect_ratio = video.width, video.height, video.sample_aspect_ratio
    codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
    codec.color_range = _LIMITED
    codec.thread_type = "AUTO"  # PyAV's default would have x264 cut each frame into slices
    return stream


def _encode(stream: av.VideoStream, frames: Iterable[av.VideoFrame], ticks: Iterable[int]) -> Iterator[av.Packet]:
    """The packets of frames, with their durations, which encoders leave out.

    Args:
        stream: result of :func:`_add_stream`.
        frames: in the pixel format of its encoder.
        ticks: of the stream's time base, when each frame shows and the last ends.
    """
    time_base = stream.codec_context.time_base
    durations: dict[int | None, int] = {}  # by the tick at which a frame shows

    def packets(frame: av.VideoFrame | None) -> Iterator[av.Packet]:
        for packet in stream.encode(frame):
            packet.duration = durations.pop(packet.pts, packet.duration)
            yield packet

    for frame, (begin, end) in zip(frames, itertools.pairwise(ticks), strict=False):
        frame.pts, frame.time_base, durations[begin] = begin, time_base, end - begin
        yield from packets(frame)
    yield from packets(None)


def write_pngs(folder: Path, numbered: Iterable[tuple[int, np.ndarray]], digits: int) -> None:
    """Write ``frame_00042.png`` for each (number, frame) ``(H, W, 3)`` uint8 RGB, beside its target and renamed.

    Raises:
        VideoError: the folder cannot be made or written.
    """
    from PIL import Image

    with wrap_os_error(f"{folder}: cannot be made", VideoError):
        folder.mkdir(parents=True, exist_ok=True)
    for number, frame in numbered:
        with writing(folder / f"frame_{number:0{digits}d}.png", VideoError) as temporary:
            Image.fromarray(frame).save(temporary, format="PNG")
