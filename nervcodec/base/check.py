# SPDX-License-Identifier: MIT
"""Whether the base layer of a container is what its header says, as far as can be seen without decoding a pixel."""

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
