# SPDX-License-Identifier: MIT
"""A segment's frames as an AV1 stream and back: SVT-AV1 and dav1d, through PyAV."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Generator, Iterable, Sequence
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.video.frame import PictureType

from nervcodec.base import obu
from nervcodec.base.check import checked_units, coded_size
from nervcodec.errors import ContainerError, VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.video.media import packet_of
from nervcodec.video.planes import Planes, chroma_size, pixel_format

_NO_MORE_KEYS = 100_000_000  # frames to the next key frame, unless one is forced: more than a segment has
_LEAST_KEY_S, _MOST_KEY_S = 1, Fraction(13, 2)  # from one key frame to the next
_UNSPECIFIED = 2  # of colour primaries and transfer characteristics
_LAST_PRIMARIES, _LAST_TRANSFER = 22, 18  # code points of ITU-T H.273 that FFmpeg knows
_CHROMA_PLACES = {"left": "left", "topleft": "topleft", "center": "unknown"}  # as SVT-AV1 calls them

os.environ.setdefault("SVT_LOG", "0")  # SVT-AV1 writes its settings and errors to stderr otherwise


def key_frames(frames: int, rate: Fraction, cuts: Sequence[int]) -> list[int]:
    """Which frames of a segment become key frames, so that any frame is decoded from one not far before it.

    Each cut that comes a second or more after the last key frame; where there is none for 6.5 s, the frame at 6.5 s
    (the interval that SVT-AV1 chooses by itself at 25 frames a second). None lies within the last second.

    Args:
        frames: of the segment.
        rate: frames a second.
        cuts: first frames of its shots after the first, ascending.

    Returns:
        Frame numbers, ascending, 0 first.
    """
    least, most = max(1, round(rate * _LEAST_KEY_S)), max(1, int(rate * _MOST_KEY_S))
    keys = [0]
    for cut in (*cuts, frames):
        keys += range(keys[-1] + most, cut, most)
        if cut - keys[-1] >= least:
            keys.append(cut)
    return [key for key in keys if key == 0 or key <= frames - least]


def encode(
    frames: Iterable[Planes],
    form: PlaneFormat,
    width: int,
    height: int,
    rate: Fraction,
    crf: float,
    preset: int,
    keys: Collection[int] = (),
) -> bytes:
    """Code frames as one closed stream that begins with a key frame.

    Args:
        frames: of 4:2:0, as many as there are.
        form: of their samples; its colours are written into the stream.
        width, height: of a frame. What is coded is ``coded_size``, with the last row and column repeated.
        rate: frames a second.
        crf: constant rate factor, 1 (best) to 70, in steps of a quarter.
        preset: of SVT-AV1, 0 (slow) to 13 (fast).
        keys: numbers of further frames that become key frames.

    Returns:
        OBUs without temporal delimiters.

    Raises:
        VideoError: SVT-AV1 refused, or there is no frame.
    """
    size = coded_size(width, height)
    try:
        encoder = _encoder(form, size, rate, crf, preset)
        packets, count = [], 0
        for count, planes in enumerate(frames, 1):
            frame = _to_frame(planes.padded(form, size[1], size[0]), form, size)
            frame.pts, frame.time_base = count - 1, 1 / rate
            if count - 1 in keys:
                frame.pict_type = PictureType.I
            packets += [bytes(packet) for packet in encoder.encode(frame)]
        packets += [bytes(packet) for packet in encoder.encode(None)] if count else []
    except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        raise VideoError(f"SVT-AV1 refused ({error})") from None
    if not count:
        raise VideoError("no frame to encode")
    coded = obu.stripped(b"".join(packets))
    made = len(obu.units(coded))
    if made != count:
        raise VideoError(f"SVT-AV1 made {made} frames of {count}")
    return coded


def _encoder(form: PlaneFormat, size: tuple[int, int], rate: Fraction, crf: float, preset: int) -> av.VideoCodecContext:
    encoder = av.VideoCodecContext.create("libsvtav1", "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt = pixel_format(form)
    encoder.time_base, encoder.framerate = 1 / rate, rate
    encoder.gop_size = _NO_MORE_KEYS
    encoder.color_primaries = form.primaries if form.primaries <= _LAST_PRIMARIES else _UNSPECIFIED
    encoder.color_trc = form.transfer if form.transfer <= _LAST_TRANSFER else _UNSPECIFIED
    encoder.colorspace, encoder.color_range = form.matrix, 2 if form.full_range else 1
    # FFmpeg's own option for the crf takes no quarters.
    parameters = f"crf={crf:g}:chroma-sample-position={_CHROMA_PLACES[form.chroma_place]}"
    encoder.options = {"preset": str(preset), "svtav1-params": parameters}
    return encoder


def _to_frame(planes: Planes, form: PlaneFormat, size: tuple[int, int]) -> av.VideoFrame:
    """Planes of one frame, ``(1, H, W)`` each, as a frame of PyAV."""
    frame = av.VideoFrame(*size, pixel_format(form))
    for target, (source,) in zip(frame.planes, planes, strict=True):
        rows = np.zeros((target.height, target.line_size // source.itemsize), source.dtype)
        rows[:, : target.width] = source
        target.update(rows.tobytes())
    return frame


def decode(
    stream: bytes | memoryview, form: PlaneFormat, width: int, height: int, frames: int, first: int = 0
) -> Generator[Planes, None, None]:
    """Decode a stream, holding a few frames at a time. Closing the generator stops the decoder.

    Args:
        stream: what :func:`encode` gave.
        form: of its samples.
        width, height: of a frame, cut from what is coded.
        frames: how many there are.
        first: number of the key frame to begin with.

    Yields:
        One frame, ``frames - first`` times.

    Raises:
        ContainerError: the stream is damaged, or holds something else than was said.
    """
    units = checked_units(stream, form, width, height, frames)
    yield from _decoded(units[first:], form, width, height)


def _decoded(
    units: Sequence[bytes | memoryview], form: PlaneFormat, width: int, height: int
) -> Generator[Planes, None, None]:
    """The frames of temporal units, one each."""
    decoder = cast(av.VideoCodecContext, av.VideoCodecContext.create("libdav1d", "r"))
    size, count = coded_size(width, height), 0
    packets = map(packet_of, units)
    expected = len(units)
    try:
        for packet in itertools.chain(packets, (None,)):
            for frame in decoder.decode(packet):
                found = (frame.width, frame.height), frame.format.name
                if found != (size, pixel_format(form)):
                    raise ContainerError(_shortage(count, expected, f"a frame of {frame.width}x{frame.height}"))
                count += 1
                yield _to_planes(frame, form, width, height)
    except av.FFmpegError as error:
        raise ContainerError(_shortage(count, expected, str(error.strerror))) from None
    if count != expected:
        raise ContainerError(_shortage(count, expected, "it ends early"))


def _to_planes(frame: av.VideoFrame, form: PlaneFormat, width: int, height: int) -> Planes:
    """The upper left of a frame of PyAV, copied."""
    kind = np.uint8 if form.depth == 8 else "<u2"
    sizes = (height, width), *[chroma_size(form, height, width)] * 2
    rows = [np.frombuffer(memoryview(plane), kind).reshape(1, plane.height, -1) for plane in frame.planes]
    return Planes(*(plane[:, :h, :w].copy() for plane, (h, w) in zip(rows, sizes, strict=True)))


def _shortage(count: int, frames: int, reason: str) -> str:
    return f"the AV1 stream is damaged: only {count} of {frames} frames could be decoded ({reason})"
