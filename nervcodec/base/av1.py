# SPDX-License-Identifier: MIT
"""A segment's frames as an AV1 stream and back, by SVT-AV1 and dav1d of the ffmpeg at hand."""

from __future__ import annotations

import io
from collections.abc import Collection, Generator, Iterable, Iterator
from fractions import Fraction

import numpy as np

from nervcodec.base import obu
from nervcodec.errors import ContainerError, VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.video import ffmpeg
from nervcodec.video.planes import Planes, cut_of, pixel_format, raw_output, taken
from nervcodec.video.writer import Copying, pump

ENCODER, DECODERS = "libsvtav1", ("libdav1d", "libaom-av1")
_SMALLEST = 64  # a side that every SVT-AV1 takes; newer ones take less
_ONE_KEY = 100_000_000  # frames from a key frame to the next: more than there are
_STALLS_S = 30.0  # a decoder that gives nothing for so long is stopped
# What ffmpeg says that was built without a coder: some versions stumble over the coder's own options before.
_MISSING = ("Unknown encoder", "Unknown decoder", "Unrecognized option 'svtav1-params'")


def coded_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the frames in the stream: even, and at least 64."""
    return max(_SMALLEST, width + width % 2), max(_SMALLEST, height + height % 2)


def encode(
    frames: Iterable[Planes], form: PlaneFormat, width: int, height: int, rate: Fraction, crf: float, preset: int
) -> bytes:
    """Code frames as one closed stream: a key frame at its beginning and none after.

    Args:
        frames: of 4:2:0, as many as there are.
        form: of their samples; its colours are written into the stream.
        width, height: of a frame. What is coded is ``coded_size``, with the last row and column repeated.
        rate: frames a second.
        crf: constant rate factor, 1 (best) to 70, in steps of a quarter.
        preset: of SVT-AV1, 0 (slow) to 13 (fast).

    Returns:
        OBUs without temporal delimiters.

    Raises:
        VideoError: this ffmpeg has no SVT-AV1, it refused, or there is no frame.
    """
    wide, high = coded_size(width, height)
    arguments = ["-f", "rawvideo", "-pix_fmt", pixel_format(form), "-s", f"{wide}x{high}", "-framerate", str(rate)]
    arguments += ["-i", "pipe:0", "-vf", _tagging(form), "-chroma_sample_location", form.chroma_place]
    arguments += ["-c:v", ENCODER, "-preset", str(preset), "-g", str(_ONE_KEY)]
    arguments += ["-svtav1-params", f"crf={crf:g}", "-f", "obu", "-"]  # ffmpeg's own option knows no quarters
    stream = io.BytesIO()
    with ffmpeg.Process(arguments, write=True, read=True) as process:
        with Copying(process, stream):
            count, status = pump(_padded(frames, form, wide, high), process)
        if status:
            raise VideoError(_refusal(process, "encode AV1", ENCODER) or f"SVT-AV1 refused ({process.complaint()})")
    coded = obu.stripped(stream.getvalue())
    if not count:
        raise VideoError("no frame to encode")
    made = len(obu.units(coded))
    if made * 3 != count:
        raise VideoError(f"SVT-AV1 made {made} frames of {count // 3}")
    return coded


def _padded(frames: Iterable[Planes], form: PlaneFormat, width: int, height: int) -> Iterator[np.ndarray]:
    """The planes of frames, one after the other."""
    for frame in frames:
        yield from frame.padded(form, height, width)


def _tagging(form: PlaneFormat) -> str:
    """A filter that says which colours the samples stand for and leaves them as they are."""
    primaries = form.primaries if form.primaries <= 22 else 2  # those ffmpeg knows
    transfer = form.transfer if form.transfer <= 18 else 2
    said = {"range": 2 if form.full_range else 1, "colorspace": form.matrix}
    said |= {"color_primaries": primaries, "color_trc": transfer}
    return "setparams=" + ":".join(f"{name}={value}" for name, value in said.items())


def decode(
    stream: bytes | memoryview, form: PlaneFormat, width: int, height: int, frames: int
) -> Generator[Planes, None, None]:
    """Decode a stream, holding one frame at a time. Closing the generator stops the decoder.

    Args:
        stream: what :func:`encode` gave.
        form: of its samples.
        width, height: of a frame, cut from what is coded.
        frames: how many there are.

    Yields:
        One frame, ``frames`` times.

    Raises:
        ContainerError: the stream is damaged, or holds something else than was said.
        VideoError: this ffmpeg cannot decode AV1.
    """
    units = checked_units(stream, form, width, height, frames)
    reasons = []
    for decoder in DECODERS:
        with ffmpeg.Process(_reading(decoder, form, width, height), _fed(units), read=True) as process:
            count = 0
            for frame in taken(process, form, height, width, _STALLS_S):
                count += 1
                if count > frames:
                    break
                yield frame
            if count == frames and not process.was_late:
                return
            process.end()
            process.wait()
            if count or (reason := _refusal(process, "decode AV1", decoder)) is None:
                raise ContainerError(_shortage(process, count, frames))
        reasons.append(reason)
    raise VideoError(reasons[0])


def decode_only(
    units: list[bytes], places: Collection[int], form: PlaneFormat, width: int, height: int
) -> list[Planes]:
    """Decode the part of a stream that some frames hang on, see :class:`nervcodec.base.needed.Needed`.

    Args:
        units: temporal units without delimiters.
        places: which of the frames that come of them are wanted, ascending.
        form: of the samples.
        width, height: of a frame, cut from what is coded.

    Raises:
        ContainerError: the stream is damaged.
        VideoError: this ffmpeg cannot decode AV1.
    """
    wanted = "select=" + "+".join(rf"eq(n\,{place})" for place in places) + ","
    reasons = []
    for decoder in DECODERS:
        with ffmpeg.Process(_reading(decoder, form, width, height, wanted), _fed(units), read=True) as process:
            found = list(taken(process, form, height, width, _STALLS_S))
            if len(found) == len(places) and not process.was_late and not process.wait():
                return found
            process.end()
            process.wait()
            if (reason := _refusal(process, "decode AV1", decoder)) is None:
                raise ContainerError(_shortage(process, len(found), len(places)))
        reasons.append(reason)
    raise VideoError(reasons[0])


def checked_units(
    stream: bytes | memoryview, form: PlaneFormat, width: int, height: int, frames: int
) -> list[memoryview]:
    """The temporal units of a stream that says of itself what :func:`decode` is told of it; no pixel is decoded.

    Raises:
        ContainerError: the stream is damaged, or holds something else than was said.
    """
    units = obu.units(stream)
    _check(stream, len(units), form, coded_size(width, height), frames)
    return units


def _check(stream: bytes | memoryview, units: int, form: PlaneFormat, size: tuple[int, int], frames: int) -> None:
    """Refuse a stream that says of itself that it is another."""
    if units != frames:
        raise ContainerError(f"the AV1 stream is damaged: it holds {units} frames and {frames} are expected")
    data = memoryview(stream)
    for unit in obu.obus(data):
        if unit.kind != obu.SEQUENCE:
            continue
        said = obu.sequence_header(data[unit.body : unit.end])
        if (said.width, said.height) != size or said.depth != form.depth or said.chroma != form.chroma:
            found = f"{said.width}x{said.height} of {said.chroma} with {said.depth} bits"
            wanted = f"{size[0]}x{size[1]} of {form.chroma} with {form.depth}"
            raise ContainerError(f"the AV1 stream is damaged: its frames are {found}, not {wanted}")


def _reading(decoder: str, form: PlaneFormat, width: int, height: int, before: str = "") -> list[str]:
    cut = before + cut_of(coded_size(width, height), width, height)
    arguments = ["-xerror", "-f", "obu", "-c:v", decoder, "-i", "pipe:0", "-vf", cut, "-fps_mode", "passthrough"]
    return [*arguments, "-noautoscale", *raw_output(form)]


def _fed(units: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    for unit in units:
        yield obu.DELIMITER + unit


def _shortage(process: ffmpeg.Process, count: int, frames: int) -> str:
    if process.was_late:
        return f"the AV1 stream cannot be decoded: nothing came after frame {count} of {frames} for {_STALLS_S:g} s"
    found = f"more than {frames}" if count > frames else f"only {count} of {frames}"
    return f"the AV1 stream is damaged: {found} frames could be decoded ({process.complaint()})"


def _refusal(process: ffmpeg.Process, what: str, coder: str) -> str | None:
    """What to say where ffmpeg lacks an encoder or decoder; None where that is not why it failed."""
    if any(missing in line.text for line in process.log for missing in _MISSING):
        return f"{ffmpeg.described()} cannot {what}: it has no {coder}; name one that has it in IMAGEIO_FFMPEG_EXE"
    return None
