# SPDX-License-Identifier: MIT
"""Filters of FFmpeg on decoded frames, and the samples of frames as bytes."""

from __future__ import annotations

import math
import zlib
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from nervcodec.errors import VideoError

# Matrices of H.273 that FFmpeg converts (0 with planes of luma and chroma, 2 and 3 say nothing: it takes BT.601), and
# the names of others.
_CONVERTED = {0, 1, 2, 3, 4, 5, 6, 7, 9}
_OTHERS = {
    8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "YDzDx", 12: "chromaticity-derived", 14: "ICtCp",
    13: "chromaticity-derived with constant luminance", 15: "IPT-PQ-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro",
}  # fmt: skip
_UNSPECIFIED = 2
_OPAQUE = 255


class Filters:
    """Filters of FFmpeg on the frames of a video; frames are turned upright before them.

    Args:
        source: whose frames they are, for messages.
        chain: the filters, such as ``scale=64:48,format=rgb24``; empty for none.
    """

    def __init__(self, source: Path, chain: str = ""):
        self._source = source
        self._chain = [part.partition("=")[::2] for part in chain.split(",") if part]
        self._kind: tuple[object, ...] | None = None
        self._graph: av.filter.Graph | None = None
        self._size: tuple[int, int] | None = None

    def frame(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame that comes of one. Its transfer and primaries are not looked at and not converted.

        Raises:
            VideoError: FFmpeg cannot convert such frames.
        """
        turned = turning(frame)
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
            made = self._graph.vpull()
            self._size = made.width, made.height
            return made
        except av.FFmpegError as error:
            raise VideoError(
                f"{self._source}: its frames cannot be converted from {frame.format.name} "
                f"(ffmpeg says: {error.strerror})"
            ) from None

    def _require_matrix(self, frame: av.VideoFrame) -> None:
        has_colour = len(frame.format.components) > 2
        if has_colour and not frame.format.is_rgb and frame.colorspace not in _CONVERTED:
            name = _OTHERS.get(frame.colorspace, "an unknown matrix")
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


def turning(frame: av.VideoFrame) -> list[tuple[str, str]]:
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
    return any(name == "transpose" for name, _ in turning(frame))


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
