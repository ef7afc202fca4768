# SPDX-License-Identifier: MIT
"""A source's own samples: planes of luma and chroma as its stream holds them, not converted to RGB."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nervcodec.errors import VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.media.reader import read_filtered
from nervcodec.media.source import SourceOptions, VideoInfo

if TYPE_CHECKING:
    from av import VideoFrame

_GRAY = "gray"
# What ffmpeg may choose from.
_CHOICES = {
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
_FULL = 2  # ffmpeg's name for a full range

# Matrices as they are recorded. Those of FCC and SMPTE 240M are converted to BT.601 and BT.709; what says nothing is
# taken for BT.601, as FFmpeg does.
_MATRICES = {1: 1, 5: 5, 6: 6, 9: 9, 4: 6, 7: 1}
_UNSAID = 2
_NAMES = {1: "bt709", 5: "bt470", 6: "smpte170m", 9: "bt2020"}


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
        """As part of larger frames of ``height`` x ``width``, in which the last row and column are repeated."""
        return Planes(
            _extended(self.y, height, width), *(_extended(p, *chroma_size(form, height, width)) for p in self[1:])
        )


def _extended(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    more = height - plane.shape[1], width - plane.shape[2]
    return np.pad(plane, ((0, 0), (0, more[0]), (0, more[1])), "edge") if any(more) else plane


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


def plane_format(info: VideoInfo, options: SourceOptions | None = None) -> PlaneFormat:
    """What the samples of a source are, as far as they are kept: 8 bits, or 10 for all that have more.

    Grey becomes 4:2:0 without colour, RGB of any kind planes of G, B and R; other samplings of chroma become the
    next of 4:2:0, 4:2:2 and 4:4:4 that holds them.

    Args:
        info: what :func:`nervcodec.media.source.scan` found, with the same options.
        options: range, crop, scale.

    Raises:
        VideoError: its first frame could not be read, or its matrix is unknown.
    """
    from nervcodec.media import media
    from nervcodec.media.filters import Filters

    options = options or SourceOptions()
    decoder = media.Decoder(info.input, options.start_s, options.duration_s)
    with contextlib.closing(decoder.frames()) as frames:
        first, _ = next(frames, (None, 0))
    if first is None:
        raise VideoError(f"{info.path}: no frame could be read ({'; '.join(decoder.damage.reasons) or 'it is empty'})")
    primaries, transfer = first.color_primaries & 255, first.color_trc & 255
    chroma, depth = _CHOICES[Filters(info.path, f"format={'|'.join(_CHOICES)}").frame(first).format.name]
    if chroma == "rgb":
        return PlaneFormat(depth, "444", 0, True, primaries=primaries, transfer=transfer)
    return PlaneFormat(
        depth,
        "420" if chroma == _GRAY else chroma,
        _MATRICES.get(first.colorspace, _UNSAID),
        first.color_range == _FULL or (chroma == _GRAY and not first.color_range),
        media.chroma_place(info.input),
        primaries,
        transfer,
    )


def read_planes(info: VideoInfo, options: SourceOptions | None, form: PlaneFormat) -> Generator[Planes, None, None]:
    """Decode a source to planes, holding one frame at a time.

    Where nothing is scaled the samples are those of the source, bit for bit.

    Args:
        info: what :func:`nervcodec.media.source.scan` found, with the same options.
        options: range, crop, scale.
        form: what :func:`plane_format` said.

    Yields:
        One frame, ``info.frame_count`` times.

    Raises:
        VideoError: the source gave fewer or more frames than the scan counted.
    """
    for frame in read_filtered(info, options or SourceOptions(), f"format={pixel_format(form)}", _kept(form)):
        yield to_planes(frame, form, info.height, info.width)


def plane_filters(form: PlaneFormat, height: int, width: int) -> str:
    """The filters by which :func:`read_planes` makes frames of this size planes of a format."""
    return f"scale={width}:{height}{_kept(form)},format={pixel_format(form)}"


def _kept(form: PlaneFormat) -> str:
    """Options of ffmpeg's ``scale`` that keep it from converting colours to anything else."""
    if form.matrix == 0:
        return ""
    matrix = f":out_color_matrix={_NAMES[form.matrix]}" if form.matrix in _NAMES else ""
    return f"{matrix}:out_range={'pc' if form.full_range else 'tv'}"
