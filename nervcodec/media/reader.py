# SPDX-License-Identifier: MIT
"""Frames of a scanned source, one after the other: as uint8 RGB arrays, as planes, or as filtered frames of PyAV."""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Container, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from nervcodec.errors import VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.formats.text import count_noun
from nervcodec.media.decoder import Decoder, chroma_place
from nervcodec.media.options import SourceOptions
from nervcodec.media.planes import Planes, matrix_options, pixel_format, to_planes

if TYPE_CHECKING:
    from nervcodec.media.source import VideoInfo

# Matrices of H.273 that FFmpeg converts (0 with planes of luma and chroma, 2 and 3 as BT.601), and names of the others.
_CONVERTIBLE_MATRICES = {0, 1, 2, 3, 4, 5, 6, 7, 9}
_UNSUPPORTED_MATRICES = {
    8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "YDzDx", 12: "chromaticity-derived", 14: "ICtCp",
    13: "chromaticity-derived with constant luminance", 15: "IPT-PQ-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro",
}  # fmt: skip
_UNSPECIFIED = 2
_OPAQUE = 255

_GRAY = "gray"
# Pixel formats that FFmpeg may choose from.
_PIXEL_FORMATS = {
    "yuv420p": ("420", 8),
    "yuv422p": ("422", 8),
    "yuv444p": ("444", 8),
    "yuv420p10le": ("420", 10),
    "yuv422p10le": ("422", 10),
    "yuv444p10le": ("444", 10),
    "gray": (_GRAY, 8),
    "gray10le": (_GRAY, 10),
    "gbrp": ("rgb", 8),
    "gbrp10le": ("rgb", 10),
}
_FULL = 2  # range
# Matrices as they are recorded. FCC and SMPTE 240M are converted to BT.601 and BT.709; an unspecified matrix is
# taken for BT.601, as FFmpeg does.
_RECORDED_MATRICES = {1: 1, 5: 5, 6: 6, 9: 9, 4: 6, 7: 1}


def read_frames(
    info: VideoInfo, options: SourceOptions | None = None, numbers: Container[int] | None = None
) -> Generator[np.ndarray, None, None]:
    """Decode a source, holding one frame at a time.

    Colour is converted to 8-bit RGB as ffmpeg does by default: limited or full range, matrix and bit depth are
    taken from the stream.

    Args:
        info: result of :func:`nervcodec.media.source.scan` with the same options.
        options: range, crop, scale.
        numbers: frames to yield; the others are decoded, but not converted. None for all.

    Yields:
        ``(height, width, 3)`` uint8 RGB, ``info.frame_count`` times without ``numbers``.

    Raises:
        VideoError: the source has fewer or more frames than the scan counted, or was changed since then.
    """
    samples = Samples()
    for frame in read_filtered(info, options or SourceOptions(), "format=rgb24", numbers=numbers):
        yield samples.of(frame).reshape(info.height, info.width, 3)


def read_filtered(
    info: VideoInfo, options: SourceOptions, output: str, scaling: str = "", numbers: Container[int] | None = None
) -> Generator[av.VideoFrame, None, None]:
    """The frames of a source after crop and scale, ``info.frame_count`` times without ``numbers``.

    Args:
        info, options, numbers: as :func:`read_frames` takes them.
        output: a filter that chooses the pixel format.
        scaling: further options of the ``scale`` filter, with a colon before each.

    Raises:
        VideoError: the source has fewer or more frames than the scan counted, or was changed since then.
    """
    decoder = Decoder(info.input, options.start_s, options.duration_s)
    chain = Filters(info.path, f"{_chain(info, options, scaling)},{output}")
    count = 0
    with info.snapshot.watched():
        with contextlib.closing(decoder.frames()) as frames:
            for frame, _ in frames:
                if count == info.frame_count:
                    raise VideoError(f"{info.path}: more than {count_noun(count, 'frame')} could be read")
                if numbers is None or count in numbers:
                    yield chain.frame(frame)
                count += 1
        if count < info.frame_count:
            reasons = "; ".join(decoder.damage.reasons) or "it ends there"
            raise VideoError(
                f"{info.path}: only {count} of {count_noun(info.frame_count, 'frame')} could be read ({reasons})"
            )


def read_segment(frames: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Take the next ``count`` frames as one ``(count, H, W, 3)`` uint8 array."""
    first = next(frames)
    segment = np.empty((count, *first.shape), np.uint8)
    segment[0] = first
    for index in range(1, count):
        segment[index] = next(frames)
    return segment


def plane_format(info: VideoInfo, options: SourceOptions | None = None) -> PlaneFormat:
    """The format in which samples of a source are kept: 8 bits, or 10 for more than 8.

    Grey becomes 4:2:0 without colour, RGB of any kind planes of G, B and R; other samplings of chroma become the
    next of 4:2:0, 4:2:2 and 4:4:4 that holds them.

    Args:
        info: result of :func:`nervcodec.media.source.scan` with the same options.
        options: range, crop, scale.

    Raises:
        VideoError: its first frame could not be read, or its matrix is unknown.
    """
    options = options or SourceOptions()
    decoder = Decoder(info.input, options.start_s, options.duration_s)
    with contextlib.closing(decoder.frames()) as frames:
        first, _ = next(frames, (None, 0))
    if first is None:
        raise VideoError(f"{info.path}: no frame could be read ({'; '.join(decoder.damage.reasons) or 'it is empty'})")
    primaries, transfer = first.color_primaries & 255, first.color_trc & 255
    chroma, depth = _PIXEL_FORMATS[Filters(info.path, f"format={'|'.join(_PIXEL_FORMATS)}").frame(first).format.name]
    if chroma == "rgb":
        return PlaneFormat(depth, "444", 0, True, primaries=primaries, transfer=transfer)
    return PlaneFormat(
        depth,
        "420" if chroma == _GRAY else chroma,
        _RECORDED_MATRICES.get(first.colorspace, _UNSPECIFIED),
        first.color_range == _FULL or (chroma == _GRAY and not first.color_range),
        chroma_place(info.input),
        primaries,
        transfer,
    )


def read_planes(
    info: VideoInfo, options: SourceOptions | None, form: PlaneFormat, numbers: Container[int] | None = None
) -> Generator[Planes, None, None]:
    """Decode a source to planes, holding one frame at a time.

    Where nothing is scaled the samples are those of the source, bit for bit.

    Args:
        info: result of :func:`nervcodec.media.source.scan` with the same options.
        options: range, crop, scale.
        form: result of :func:`plane_format`.
        numbers: as :func:`read_frames` takes them.

    Yields:
        One frame, ``info.frame_count`` times without ``numbers``.

    Raises:
        VideoError: the source has fewer or more frames than the scan counted.
    """
    output = f"format={pixel_format(form)}"
    for frame in read_filtered(info, options or SourceOptions(), output, matrix_options(form), numbers):
        yield to_planes(frame, form, info.height, info.width)


def _chain(info: VideoInfo, options: SourceOptions, scaling: str = "") -> str:
    """The ffmpeg filter chain that brings every frame to ``info.width`` x ``info.height``.

    Args:
        info: of the source.
        options: those it was scanned with.
        scaling: further options of its last filter, ``scale``, with a colon before each.
    """
    chain = []
    if options.crop:
        height, width = options.crop
        chain.append(f"scale={info.source_size[0]}:{info.source_size[1]}")  # a size change in mid-stream is undone
        chain.append(f"crop={width}:{height}:exact=1")
    chain.append(f"scale={info.width}:{info.height}{scaling}")
    return ",".join(chain)


class Filters:
    """Filters of FFmpeg on the frames of a video; frames are turned upright before them.

    Args:
        source: whose frames they are, for messages.
        chain: the filters, such as ``scale=64:48,format=rgb24``; empty for none.
    """

    def __init__(self, source: Path | str, chain: str = ""):
        self._source = source
        self._chain = [part.partition("=")[::2] for part in chain.split(",") if part]
        self._kind: tuple[object, ...] | None = None
        self._graph: av.filter.Graph | None = None
        self._size: tuple[int, int] | None = None

    def frame(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Filter one frame. Its transfer and primaries are ignored and not converted.

        Raises:
            VideoError: FFmpeg cannot convert such frames.
        """
        turned = _upright_filters(frame)
        kind = (frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range, *turned)
        try:
            if kind != self._kind:
                if self._chain:
                    self._require_matrix(frame)
                chain = [*turned, *self._chain]
                if self._size and self._chain:  # planes are scaled before they are converted, where the size changes
                    chain.insert(-1, ("scale", f"{self._size[0]}:{self._size[1]}"))
                self._graph, self._kind = _graph(frame, chain), kind
            if self._graph is None:
                return frame
            # FFmpeg refuses to scale frames of some transfers, which the conversion to RGB has no use for.
            frame.color_trc = frame.color_primaries = _UNSPECIFIED
            self._graph.vpush(frame)
            filtered = self._graph.vpull()
            self._size = filtered.width, filtered.height
            return filtered
        except av.FFmpegError as error:
            raise VideoError(
                f"{self._source}: its frames cannot be converted from {frame.format.name} "
                f"(ffmpeg says: {error.strerror})"
            ) from None

    def _require_matrix(self, frame: av.VideoFrame) -> None:
        has_colour = len(frame.format.components) > 2
        if has_colour and not frame.format.is_rgb and frame.colorspace not in _CONVERTIBLE_MATRICES:
            name = _UNSUPPORTED_MATRICES.get(frame.colorspace, "an unknown matrix")
            raise VideoError(
                f"{self._source}: its colours are {name} (matrix {frame.colorspace:d} of H.273), "
                "which cannot be converted to RGB; convert it to BT.709 or BT.2020 first"
            )


class Samples:
    """The samples of frames as bytes."""

    def __init__(self) -> None:
        self._coders: dict[tuple[str, int, int], av.VideoCodecContext] = {}

    def of(self, frame: av.VideoFrame) -> np.ndarray:
        """``(n,)`` uint8: row by row without padding, plane after plane."""
        kind = frame.format.name, frame.width, frame.height
        if kind not in self._coders:
            coder = av.CodecContext.create("rawvideo", "w")
            assert isinstance(coder, av.VideoCodecContext)
            coder.pix_fmt, coder.width, coder.height = kind
            coder.time_base = Fraction(1, 25)  # which has no meaning here
            self._coders[kind] = coder
        (packet,) = self._coders[kind].encode(frame)
        return np.frombuffer(memoryview(packet), np.uint8)


def checksum(data: np.ndarray) -> int:
    """Adler-32 from 0, as FFmpeg's ``framecrc`` has it."""
    return zlib.adler32(data.data, 0)


def _upright_filters(frame: av.VideoFrame) -> list[tuple[str, str]]:
    """The filters that turn a frame upright, by its display matrix: name and arguments."""
    # `frame.side_data` would refer back to the frame, whose memory would then wait for the garbage collector.
    stored = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    if stored is None:
        return []
    matrix = np.frombuffer(bytes(cast(bytes, stored)), np.int32).tolist()
    across, down = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not across or not down:
        return []
    angle = round(math.degrees(math.atan2(matrix[1] / down, matrix[0] / across))) % 360
    flips = [("hflip", "")] * (matrix[0] < 0) + [("vflip", "")] * (matrix[4] < 0)
    if abs(angle - 90) < 1:
        return [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")]
    if abs(angle - 270) < 1:
        return [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")]
    if abs(angle - 180) < 1:
        return flips
    return [("rotate", f"{angle}*PI/180")] if angle > 1 else flips[-1:] if matrix[4] < 0 else []


def is_transparent(frame: av.VideoFrame) -> bool:
    """Whether a frame is transparent in places."""
    if not any(component.is_alpha for component in frame.format.components):
        return False
    return bool(frame.reformat(format="rgba").to_ndarray()[..., 3].min() < _OPAQUE)


def is_transposed(frame: av.VideoFrame) -> bool:
    """Whether a frame lies on its side."""
    return any(name == "transpose" for name, _ in _upright_filters(frame))


def _graph(frame: av.VideoFrame, chain: list[tuple[str, str]]) -> av.filter.Graph | None:
    if not chain:
        return None
    graph = av.filter.Graph()
    source = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/25:pixel_aspect=1/1"
    source += f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
    nodes = [("buffer", source), *chain, ("buffersink", "")]
    graph.link_nodes(*(graph.add(name, arguments or None) for name, arguments in nodes))
    graph.configure()
    return graph
