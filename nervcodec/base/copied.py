# SPDX-License-Identifier: MIT
"""A source's own packets, in a Matroska file, decoded with PyAV: to what the source itself gives."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import av

from nervcodec.errors import ContainerError, VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.media.decoder import STALLS_S
from nervcodec.media.planes import Planes, plane_filters, to_planes
from nervcodec.media.reader import Filters, is_transposed
from nervcodec.threads import StalledError, read_ahead

# FFmpeg would hide damage: `explode` makes an error of what it complains of. dav1d decodes one frame after the other:
# where one call gives a frame and an error, PyAV drops the error.
_STRICT = {"err_detect": "explode", "max_frame_delay": "1"}
_READ_BYTES = 1 << 18  # at once
_AHEAD = 4  # frames that may wait


class _Reader:
    """Pieces of a file, one after the other, as a file that PyAV reads."""

    def __init__(self, pieces: Iterable[bytes]):
        self._pieces, self._rest = iter(pieces), memoryview(b"")

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        data, self._rest = self._rest[:size], self._rest[size:]
        return bytes(data)


def decode(
    pieces: Iterable[bytes],
    form: PlaneFormat,
    width: int,
    height: int,
    frames: int,
    skipped: int = 0,
    flawed: bool = False,
    to_end: bool = True,
) -> Generator[Planes, None, None]:
    """Decode frames of a stream. Closing the generator closes the decoder.

    Args:
        pieces: of the Matroska file, in order.
        form: what its samples become, as :func:`nervcodec.media.planes.plane_format` says of the source.
        width, height: of a frame, upright.
        frames: how many are decoded.
        skipped: how many come before them that are not given.
        flawed: decoder errors are ignored, as they are where a source is read.
        to_end: the stream has no further frames, which is an error where it does.

    Yields:
        One frame, ``frames`` times.

    Raises:
        ContainerError: the stream is damaged, or holds something else than was said.
    """
    chain = Filters(Path("copied stream"), plane_filters(form, height, width))
    count, held = -skipped, None
    with contextlib.closing(decoded(pieces, (width, height), flawed)) as found:
        for frame in found:
            count += 1
            if count > frames:
                raise ContainerError(f"the copied stream is damaged: more than {frames} frames could be decoded")
            if held is not None:  # the last one is given once it is known that nothing comes after it
                yield held
                held = None
            if count > 0:
                try:
                    held = to_planes(chain.frame(frame), form, height, width)
                except VideoError as error:
                    raise ContainerError(f"the copied stream is damaged: {error}") from None
            if count == frames and not to_end:
                break
    if count < frames or held is None:
        raise ContainerError(f"the copied stream is damaged: only {max(count, 0)} of {frames} frames could be decoded")
    yield held


def decoded(
    pieces: Iterable[bytes], size: tuple[int, int], flawed: bool = False
) -> Generator[av.VideoFrame, None, None]:
    """All frames of a stream as they are decoded in a background thread, not yet upright.

    Args:
        pieces: of the Matroska file, in order.
        size: (width, height) of a frame once it is upright.
        flawed: decoder errors are ignored, as they are where a source is read.

    Raises:
        ContainerError: the decoder finds an error that is not ignored, gives no frame for 30 s, or a frame has another
            size.
    """
    count = 0
    with contextlib.closing(read_ahead(_decoded(pieces, size, flawed), _AHEAD, STALLS_S)) as frames:
        try:
            for frame in frames:
                yield frame
                count += 1
        except StalledError:
            what = f"nothing came after frame {count} for {STALLS_S:g} s"
            raise ContainerError(f"the copied stream cannot be decoded: {what}") from None


def _decoded(pieces: Iterable[bytes], size: tuple[int, int], flawed: bool) -> Iterator[av.VideoFrame]:
    count = 0
    try:
        with av.open(_Reader(pieces), format="matroska", buffer_size=_READ_BYTES, metadata_errors="replace") as file:
            if not (stream := next(iter(file.streams.video), None)) or stream.codec_context is None:
                raise ContainerError(_damage(count, "it holds no video"))
            # As the source is read: frames decoded side by side are concealed differently from run to run.
            stream.thread_type = "NONE" if flawed else "AUTO"
            stream.codec_context.options = {} if flawed else dict(_STRICT)
            for packet in file.demux(stream):
                try:
                    frames = stream.decode(packet if packet.size else None)
                except av.FFmpegError:
                    if not flawed:
                        raise
                    continue
                for frame in frames:
                    if frame.is_corrupt and not flawed:
                        raise ContainerError(_damage(count, "a frame that could not be decoded as a whole"))
                    found = frame.width, frame.height
                    if (found[::-1] if is_transposed(frame) else found) != size:
                        raise ContainerError(_damage(count, f"a frame of {found[0]}x{found[1]}"))
                    yield frame
                    count += 1
    except av.FFmpegError as error:
        raise ContainerError(_damage(count, str(error.strerror))) from None


def _damage(count: int, reason: str) -> str:
    return f"the copied stream is damaged near frame {count} ({reason})"
