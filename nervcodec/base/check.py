# SPDX-License-Identifier: MIT
"""Whether a container is whole, its base layer included, as far as can be seen without decoding a pixel."""

from __future__ import annotations

from nervcodec.base import obu
from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
from nervcodec.formats.header import AV1, PlaneFormat
from nervcodec.formats.text import counted

_SMALLEST = 64  # a side that every SVT-AV1 takes; newer ones take less


def coded_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the frames in the stream: even, and at least 64."""
    return max(_SMALLEST, width + width % 2), max(_SMALLEST, height + height % 2)


def checked_units(
    stream: bytes | memoryview, form: PlaneFormat, width: int, height: int, frames: int
) -> list[memoryview]:
    """The temporal units of an AV1 stream, whose headers are compared with what is expected; no pixel is decoded.

    Args:
        stream: OBUs without temporal delimiters.
        form: of its samples.
        width, height: of a frame, which the stream holds in ``coded_size``.
        frames: how many there are.

    Raises:
        ContainerError: the stream is damaged, or another.
    """
    units = obu.units(stream)
    if len(units) != frames:
        raise ContainerError(
            f"the AV1 stream is damaged: it holds {counted(len(units), 'frame')} and {frames:,} are expected"
        )
    size = coded_size(width, height)
    wanted = f"{size[0]}x{size[1]} of {form.chroma} with {form.depth}"
    for unit in obu.obus(stream):
        if unit.kind == obu.SEQUENCE:
            said = obu.sequence_header(memoryview(stream)[unit.body : unit.end])
            found = f"{said.width}x{said.height} of {said.chroma} with {said.depth}"
            if found != wanted:
                raise ContainerError(f"the AV1 stream is damaged: its frames are {found} bits, not {wanted}")
    return units


def check_base(opened: Container) -> None:
    """Look at the frames that each AV1 stream of a container holds, and at what it says of their size and samples.

    Raises:
        ContainerError: a stream is damaged, or another than the header says.
    """
    base, video = opened.header.base, opened.header.video
    if base is None or base.kind != AV1:
        return
    for number, segment in enumerate(opened.header.segments):
        stream = opened.base_stream(segment).data
        try:
            checked_units(stream, base.planes, video.width, video.height, segment.frame_count)
        except ContainerError as error:
            raise ContainerError(f"{opened.path}: segment {number}: {error}") from None


def check_whole(opened: Container, weights: bool = True) -> None:
    """Compare all of a container with its checksums, and look at how it is put together.

    Args:
        opened: the container.
        weights: decode them as well, which takes most of the time and finds what no damage after writing can be.

    Raises:
        ContainerError: something is damaged.
    """
    opened.verify()
    for segment in opened.header.segments:
        opened.embedded_frames(segment)
        if weights:
            opened.weights(segment.prefix)
    if (shared := opened.shared_weights()) is not None and weights:
        shared.decode()
    check_base(opened)
