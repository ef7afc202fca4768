# SPDX-License-Identifier: MIT
"""Whether a container is whole, its base layer included, as far as can be seen without decoding a pixel."""

from __future__ import annotations

from nervcodec.base.av1 import checked_units
from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
from nervcodec.formats.kinds import AV1


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
