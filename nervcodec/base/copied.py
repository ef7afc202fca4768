# SPDX-License-Identifier: MIT
"""A source's own packets, in a Matroska file, as planes again: what the source itself would have given."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable

from nervcodec.errors import ContainerError
from nervcodec.formats.header import PlaneFormat
from nervcodec.video import ffmpeg
from nervcodec.video.planes import Planes, cut_of, plane_filters, raw_output, taken

_STALLS_S = 30.0  # a decoder that gives nothing for so long is stopped


def decode(
    pieces: Iterable[bytes],
    form: PlaneFormat,
    width: int,
    height: int,
    frames: int,
    skipped: int = 0,
    flawed: bool = False,
) -> Generator[Planes, None, None]:
    """Decode a stream to its end, holding two frames at a time. Closing the generator stops the decoder.

    Args:
        pieces: of the Matroska file, in order.
        form: what its samples become, as :func:`nervcodec.video.planes.plane_format` says of the source.
        width, height: of a frame, upright.
        frames: how many there are.
        skipped: how many come before them that are not given.
        flawed: the decoder's complaints are no error, as they are none where a source is read.

    Yields:
        One frame, ``frames`` times.

    Raises:
        ContainerError: the stream is damaged, or holds something else than was said.
    """
    count, held = 0, None
    with contextlib.closing(every_frame(pieces, form, width, height, skipped, flawed)) as found:
        for frame in found:
            count += 1
            if count > frames:
                raise ContainerError(f"the copied stream is damaged: more than {frames} frames could be decoded")
            if held is not None:  # the last one is given once it is known that nothing comes after it
                yield held
            held = frame
    if held is None or count < frames:
        raise ContainerError(f"the copied stream is damaged: only {count} of {frames} frames could be decoded")
    yield held


def every_frame(
    pieces: Iterable[bytes],
    form: PlaneFormat,
    width: int,
    height: int,
    skipped: int = 0,
    flawed: bool = False,
    said: list[str] | None = None,
) -> Generator[Planes, None, None]:
    """As :func:`decode`, for as many frames as there are; ``said`` gets all complaints once the generator is closed."""
    chain = [cut_of((width, height), width, height)]
    chain += [f"trim=start_frame={skipped}"] if skipped else []
    chain += [plane_filters(form, height, width)]
    # As the source is read: frames decoded side by side are concealed differently from run to run.
    arguments = [*(["-threads", "1"] if flawed else ["-xerror"]), "-f", "matroska", "-i", "pipe:0", "-map", "0:v:0"]
    arguments += ["-vf", ",".join(chain), "-fps_mode", "passthrough", "-noautoscale", *raw_output(form)]
    process = ffmpeg.Process(arguments, pieces, read=True)
    try:
        with process:
            yield from _while_it_is_content(process, form, width, height, flawed)
    finally:
        if said is not None:
            said += process.log


def _while_it_is_content(
    process: ffmpeg.Process, form: PlaneFormat, width: int, height: int, flawed: bool
) -> Generator[Planes, None, None]:
    """Frames that a decoder gives until it complains, which is an error unless the stream is known to be flawed."""
    count = 0
    for frame in taken(process, form, height, width, _STALLS_S):
        if process.log and not flawed:
            break
        count += 1
        yield frame
    else:
        if process.was_late:
            what = "the copied stream cannot be decoded: nothing came after"
            raise ContainerError(f"{what} frame {count} for {_STALLS_S:g} s")
        status = process.wait()
        process.require_feed()
        if flawed or not (status or process.log):
            return
    process.end()
    process.wait()
    process.require_feed()
    raise ContainerError(f"the copied stream is damaged near frame {count} ({process.complaint()})")
