# SPDX-License-Identifier: MIT
"""A source's own samples, planes of luma and chroma, and the light levels that a stream states."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from nervcodec.formats.header import PlaneFormat

if TYPE_CHECKING:
    import av
    from av import VideoFrame

# FFmpeg's names of matrices.
_MATRIX_NAMES = {1: "bt709", 5: "bt470", 6: "smpte170m", 9: "bt2020"}
_DISPLAY = struct.Struct("=22i")  # AVMasteringDisplayMetadata: ten rationals, then which of them are stated
_CONTENT = struct.Struct("=2I")
_MAX_LEVEL = 65_535  # highest level in cd/m² that AV1 can state


class Planes(NamedTuple):
    """Some frames as planes, uint8 for samples of 8 bits and uint16 for 10.

    Attributes:
        y: ``(n, H, W)`` luma; G where the matrix of the format is 0.
        u, v: ``(n, h, w)`` chroma, whose size is rounded up; B and R.
    """

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray

    def padded(self, form: PlaneFormat, height: int, width: int) -> Planes:
        """Padded to ``height`` x ``width`` by repeating the last row and column."""
        return Planes(_pad(self.y, height, width), *(_pad(p, *chroma_size(form, height, width)) for p in self[1:]))


def _pad(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    padding = height - plane.shape[1], width - plane.shape[2]
    return np.pad(plane, ((0, 0), (0, padding[0]), (0, padding[1])), "edge") if any(padding) else plane


def chroma_size(form: PlaneFormat, height: int, width: int) -> tuple[int, int]:
    """(height, width) of a plane of chroma for a frame of this size."""
    down, across = form.chroma_step
    return -(-height // down), -(-width // across)


def to_planes(frame: VideoFrame, form: PlaneFormat, height: int, width: int) -> Planes:
    """The upper left ``height`` x ``width`` of a frame of ``pixel_format(form)``, copied."""
    kind = np.uint8 if form.depth == 8 else "<u2"
    sizes = (height, width), *[chroma_size(form, height, width)] * 2
    rows = [np.frombuffer(memoryview(plane), kind).reshape(1, plane.height, -1) for plane in frame.planes]
    return Planes(*(plane[:, :h, :w].copy() for plane, (h, w) in zip(rows, sizes, strict=True)))


def to_frame(planes: Planes, form: PlaneFormat) -> VideoFrame:
    """One frame of planes as a frame of PyAV, tagged with its matrix and range."""
    import av

    frame = av.VideoFrame(planes.y.shape[2], planes.y.shape[1], pixel_format(form))
    for target, (source,) in zip(frame.planes, planes, strict=True):
        rows = np.zeros((target.height, target.line_size // source.itemsize), source.dtype)
        rows[:, : target.width] = source
        target.update(rows.tobytes())
    frame.colorspace, frame.color_range = form.matrix, 2 if form.full_range else 1
    return frame


def pixel_format(form: PlaneFormat) -> str:
    """ffmpeg's name for planes of this format."""
    name = "gbrp" if form.matrix == 0 else f"yuv{form.chroma}p"
    return name if form.depth == 8 else f"{name}10le"


def plane_filters(form: PlaneFormat, height: int, width: int) -> str:
    """FFmpeg filters that convert frames to planes of a size and format."""
    return f"scale={width}:{height}{matrix_options(form)},format={pixel_format(form)}"


def matrix_options(form: PlaneFormat) -> str:
    """Options of ffmpeg's ``scale`` that keep it from converting colours to anything else."""
    if form.matrix == 0:
        return ""
    matrix = f":out_color_matrix={_MATRIX_NAMES[form.matrix]}" if form.matrix in _MATRIX_NAMES else ""
    return f"{matrix}:out_range={'pc' if form.full_range else 'tv'}"


@dataclass(frozen=True)
class Light:
    """Light levels that a source states.

    Attributes:
        display: x and y (CIE 1931) of red, green, blue and white of the mastering display, then its least and its
            greatest luminance in cd/m²; None where not all of it is stated.
        content: the greatest luminance of a pixel (MaxCLL) and the greatest mean of a frame (MaxFALL), in cd/m²; None
            where they are not stated.
    """

    display: tuple[float, ...] | None = None
    content: tuple[int, int] | None = None


def light_of(frame: av.VideoFrame) -> Light | None:
    """Light levels that a decoded frame states; None without plausible ones."""
    display, content = (frame.side_data.get(name) for name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"))
    light = Light(
        None if display is None else _display(bytes(cast(bytes, display))),
        None if content is None else _content(bytes(cast(bytes, content))),
    )
    return light if light.display or light.content else None


def _content(data: bytes) -> tuple[int, int] | None:
    highest, mean = _CONTENT.unpack(data)
    return (highest, mean) if 0 < highest <= _MAX_LEVEL and mean <= _MAX_LEVEL else None


def _display(data: bytes) -> tuple[float, ...] | None:
    *parts, has_primaries, has_luminance = _DISPLAY.unpack(data)
    if not (has_primaries and has_luminance and all(parts[1::2])):
        return None
    values = tuple(float(Fraction(*pair)) for pair in zip(parts[::2], parts[1::2], strict=True))
    *chromaticities, least, most = values
    return values if all(0 <= value <= 1 for value in chromaticities) and 0 <= least < most <= 10_000 else None
