# SPDX-License-Identifier: MIT
"""AV1 coding of a segment's planes with SVT-AV1 and dav1d through PyAV, and the conversion of any planes to 4:2:0."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.video.frame import PictureType

from nervcodec import threads
from nervcodec.base import obu
from nervcodec.base.obu import coded_size
from nervcodec.errors import ContainerError, VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.formats.text import count_noun
from nervcodec.media.decoder import make_packet
from nervcodec.media.planes import Light, Planes, light_of, pixel_format, to_frame, to_planes
from nervcodec.threads import read_ahead

_NO_MORE_KEYS = 100_000_000  # frames to the next key frame, unless one is forced: more than a segment has
_LEAST_KEY_S, _MOST_KEY_S = 1, Fraction(13, 2)  # from one key frame to the next
_UNSPECIFIED = 2  # of colour primaries and transfer characteristics
_LAST_PRIMARIES, _LAST_TRANSFER = 22, 18  # code points of ITU-T H.273 that FFmpeg knows
_CHROMA_PLACES = {"left": "left", "topleft": "topleft", "center": "unknown"}  # as SVT-AV1 calls them
os.environ.setdefault("SVT_LOG", "0")  # SVT-AV1 writes its settings and errors to stderr otherwise
_MOST_PARALLEL = 6  # level of parallelism of SVT-AV1
_OF_RGB = PlaneFormat(matrix=1)  # what planes of G, B and R become: BT.709 of limited range


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
    light: Light | None = None,
    reconstructed: Callable[[Planes], None] | None = None,
) -> bytes:
    """Code frames as one closed stream that begins with a key frame. Frames are read and coded in a background thread.

    Args:
        frames: 4:2:0, one per array.
        form: of their samples; its colours are written into the stream.
        width, height: of a frame. What is coded is ``coded_size``, with the last row and column repeated.
        rate: frames a second.
        crf: constant rate factor, 1 (best) to 70, in steps of a quarter.
        preset: of SVT-AV1, 0 (slow) to 13 (fast).
        keys: numbers of further frames that become key frames.
        light: of a source in HDR, written into the stream; None for nothing.
        reconstructed: called with each frame as a decoder will show it, in order, while later ones are coded.

    Returns:
        OBUs without temporal delimiters.

    Raises:
        VideoError: SVT-AV1 refused, or there is no frame.
    """
    read = itertools.count()
    source = (frame for frame, _ in zip(frames, read, strict=False))
    encoder = _encoder(form, coded_size(width, height), rate, crf, preset, light)
    decoder, packets = _Decoder(form, width, height), []
    # A thread, so that Ctrl-C need not wait for SVT-AV1, which takes frames only as fast as it codes them.
    with contextlib.closing(read_ahead(_packets(source, encoder, form, keys), 8)) as coded:
        for packet in itertools.chain(coded, (None,)):
            if packet is not None:
                packets.append(packet)
            if reconstructed is not None:
                for planes in decoder.decode(packet):
                    reconstructed(planes)
    stream = obu.without_delimiters(b"".join(packets))
    made, count = len(obu.temporal_units(stream)), next(read)
    if made != count:
        raise VideoError(f"SVT-AV1 made {made} of {count_noun(count, 'frame')}")
    return stream


def _packets(
    frames: Iterable[Planes], encoder: av.VideoCodecContext, form: PlaneFormat, keys: Collection[int]
) -> Generator[bytes, None, None]:
    """The temporal units that SVT-AV1 makes of frames."""
    height, width, tick = encoder.height, encoder.width, encoder.time_base
    count = 0
    try:
        for count, planes in enumerate(frames, 1):
            frame = to_frame(planes.padded(form, height, width), form)
            frame.pts, frame.time_base = count - 1, tick
            if count - 1 in keys:
                frame.pict_type = PictureType.I
            yield from map(bytes, encoder.encode_lazy(frame))
        if not count:
            raise VideoError("no frame to encode")
        yield from map(bytes, encoder.encode_lazy(None))
    except BaseException as error:
        # Closing SVT-AV1 would wait until it has encoded all queued frames: up to 15 s.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(encoder))
        if isinstance(error, av.FFmpegError):
            raise VideoError(f"SVT-AV1 refused ({error})") from None
        raise


def _encoder(
    form: PlaneFormat, size: tuple[int, int], rate: Fraction, crf: float, preset: int, light: Light | None
) -> av.VideoCodecContext:
    try:
        encoder = av.VideoCodecContext.create("libsvtav1", "w")
    except av.codec.codec.UnknownCodecError as error:
        raise VideoError(f"SVT-AV1 refused ({error})") from None
    encoder.width, encoder.height = size
    encoder.pix_fmt = pixel_format(form)
    encoder.time_base, encoder.framerate = 1 / rate, rate
    encoder.gop_size = _NO_MORE_KEYS
    encoder.color_primaries = form.primaries if form.primaries <= _LAST_PRIMARIES else _UNSPECIFIED
    encoder.color_trc = form.transfer if form.transfer <= _LAST_TRANSFER else _UNSPECIFIED
    encoder.colorspace, encoder.color_range = form.matrix, 2 if form.full_range else 1
    # FFmpeg's own option for the crf takes no quarters.
    parameters = f"crf={crf:g}:chroma-sample-position={_CHROMA_PLACES[form.chroma_place]}"
    if threads.codec_threads:
        parameters += f":lp={min(threads.codec_threads, _MOST_PARALLEL)}"  # the same bytes whatever it is
    if light is not None and light.display is not None:
        *xy, least, most = light.display
        red, green, blue, white = (f"({x:.6f},{y:.6f})" for x, y in zip(xy[::2], xy[1::2], strict=True))
        parameters += f":mastering-display=G{green}B{blue}R{red}WP{white}L({most:.4f},{least:.4f})"
    if light is not None and light.content is not None:
        parameters += ":content-light={},{}".format(*light.content)
    encoder.options = {"preset": str(preset), "svtav1-params": parameters}
    return encoder


def decode(
    units: Sequence[bytes | memoryview], form: PlaneFormat, width: int, height: int
) -> Generator[Planes, None, None]:
    """Decode a stream, holding a few frames at a time. Closing the generator stops the decoder.

    Args:
        units: temporal units of a stream of :func:`encode`, from a key frame on.
        form: of the samples.
        width, height: of a frame, cut from what is coded.

    Yields:
        One frame of each unit.

    Raises:
        ContainerError: the stream is damaged, or its frames have another size or format.
    """
    decoder, count, expected = _Decoder(form, width, height), 0, len(units)
    try:
        for unit in itertools.chain(units, (None,)):
            for planes in decoder.decode(unit):
                count += 1
                yield planes
    except ContainerError as error:
        raise ContainerError(_shortage(count, expected, str(error))) from None
    if count != expected:
        raise ContainerError(_shortage(count, expected, "it ends early"))


class _Decoder:
    """dav1d, for frames of one format and size."""

    def __init__(self, form: PlaneFormat, width: int, height: int):
        self._codec = cast(av.VideoCodecContext, av.VideoCodecContext.create("libdav1d", "r"))
        self._codec.thread_count = threads.codec_threads
        self._form, self._size = form, (height, width)
        self._expected = coded_size(width, height), pixel_format(form)

    def decode(self, unit: bytes | memoryview | None) -> Iterator[Planes]:
        """The frames that a temporal unit completes; None for those that are left.

        Raises:
            ContainerError: the stream is damaged.
        """
        try:
            frames = self._codec.decode(None if unit is None else make_packet(unit))
        except av.FFmpegError as error:
            raise ContainerError(str(error.strerror)) from None
        for frame in frames:
            if ((frame.width, frame.height), frame.format.name) != self._expected:
                (width, height), pixels = self._expected
                actual = f"{frame.width}x{frame.height} {frame.format.name}"
                raise ContainerError(f"a frame of {actual}, not {width}x{height} {pixels}")
            yield to_planes(frame, self._form, *self._size)


def light(unit: bytes | memoryview) -> Light | None:
    """Light levels that the first temporal unit of an HDR stream states; None without any.

    Raises:
        ContainerError: that is damaged.
    """
    codec = cast(av.VideoCodecContext, av.VideoCodecContext.create("libdav1d", "r"))
    try:
        frames = [*codec.decode(make_packet(unit)), *codec.decode(None)]
    except av.FFmpegError as error:
        raise ContainerError(f"the AV1 stream is damaged: {error.strerror}") from None
    return light_of(frames[0]) if frames else None


def _shortage(count: int, frames: int, reason: str) -> str:
    return f"the AV1 stream is damaged: only {count} of {count_noun(frames, 'frame')} could be decoded ({reason})"


def base_format(form: PlaneFormat, depth: int) -> PlaneFormat:
    """The format of the base layer: the same colours in 4:2:0; G, B and R become BT.709 of limited range.

    Args:
        form: of the source.
        depth: bits of a sample, 8 or 10.
    """
    if form.matrix == 0:
        form = replace(form, matrix=_OF_RGB.matrix, full_range=_OF_RGB.full_range)
    chroma_place = form.chroma_place if form.chroma == "420" or form.chroma_place == "center" else "left"
    return replace(form, depth=depth, chroma="420", chroma_place="left" if form.chroma == "444" else chroma_place)


def to_base(planes: Planes, form: PlaneFormat, depth: int) -> Planes:
    """Planes of ``form`` as those of ``base_format(form, depth)``.

    4:2:0 of the same depth stays unchanged. Chroma at half the rate is the weighted mean of neighbouring samples.
    """
    if form.matrix == 0:
        return _from_rgb(planes, form, depth)
    if form.chroma == "420":
        if form.depth == depth:
            return planes
        u, v = planes[1:]
    else:
        u, v = (_halved(plane.astype(float), form.chroma == "444") for plane in planes[1:])
    y = planes.y if form.depth == depth else _scaled(planes.y, form, depth, 0)
    middle = 1 << form.depth - 1
    return Planes(y, _scaled(u, form, depth, middle), _scaled(v, form, depth, middle))


def _scaled(plane: np.ndarray, form: PlaneFormat, depth: int, middle: int) -> np.ndarray:
    """Samples of ``form.depth`` bits in ``depth``: by factors of two in limited range, by white in full range.

    Args:
        plane: of samples.
        form: theirs.
        depth: bits of the result.
        middle: the sample that stands for nothing, half of all: 0 for luma.
    """
    if depth > form.depth and not form.full_range:
        return plane.astype(np.uint16) << (depth - form.depth)
    power = 2.0 ** (depth - form.depth)
    factor = ((1 << depth) - 1) / ((1 << form.depth) - 1) if form.full_range else power
    return _to_integers((plane.astype(float) - middle) * factor + middle * power, depth)


def _to_integers(plane: np.ndarray, depth: int) -> np.ndarray:
    return np.rint(plane).clip(0, (1 << depth) - 1).astype(np.uint8 if depth == 8 else np.uint16)


def _halved(plane: np.ndarray, across: bool) -> np.ndarray:
    """``(n, H, W)`` at half the rows (between two of them) and, with ``across``, half the columns (on every second)."""
    plane = np.pad(plane, ((0, 0), (0, plane.shape[1] % 2), (0, 0)), "edge")
    plane = (plane[:, 0::2] + plane[:, 1::2]) / 2
    if not across:
        return plane
    wide = np.pad(plane, ((0, 0), (0, 0), (1, 1 + plane.shape[2] % 2)), "edge")
    return (wide[:, :, 0:-2:2] + 2 * wide[:, :, 1:-1:2] + wide[:, :, 2::2]) / 4


def _from_rgb(planes: Planes, form: PlaneFormat, depth: int) -> Planes:
    top = (1 << form.depth) - 1
    low, span = (0, top) if form.full_range else (16 << form.depth - 8, 219 << form.depth - 8)
    green, blue, red = ((plane.astype(float) - low) / span for plane in planes)
    of_red, of_blue = _OF_RGB.luma_weights
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    u, v = (_halved(plane, True) for plane in ((blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)))
    step = 1 << depth - 8
    return Planes(*(_to_integers(p * step, depth) for p in (16 + 219 * luma, 128 + 224 * u, 128 + 224 * v)))
