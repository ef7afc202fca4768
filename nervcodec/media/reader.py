# SPDX-License-Identifier: MIT
"""Frames of a scanned source as uint8 RGB arrays, one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.errors import VideoError
from nervcodec.formats.text import counted
from nervcodec.media.source import SourceOptions, VideoInfo, filters

if TYPE_CHECKING:
    from av import VideoFrame


def read_frames(info: VideoInfo, options: SourceOptions | None = None) -> Generator[np.ndarray, None, None]:
    """Decode a source, holding one frame at a time.

    Colour is converted to 8-bit RGB as ffmpeg does by default: limited or full range, matrix and bit depth are
    taken from the stream.

    Args:
        info: what :func:`nervcodec.media.source.scan` found, with the same options.
        options: range, crop, scale.

    Yields:
        ``(height, width, 3)`` uint8 RGB, ``info.frame_count`` times.

    Raises:
        VideoError: the source gave fewer or more frames than the scan counted, or was changed since then.
    """
    from nervcodec.media.filters import Samples

    samples = Samples()
    for frame in read_filtered(info, options or SourceOptions(), "format=rgb24"):
        yield samples.of(frame).reshape(info.height, info.width, 3)


def read_filtered(
    info: VideoInfo, options: SourceOptions, output: str, scaling: str = ""
) -> Generator[VideoFrame, None, None]:
    """The frames of a source after crop and scale, ``info.frame_count`` times.

    Args:
        info, options: as :func:`read_frames` takes them.
        output: a filter that chooses the pixel format.
        scaling: as :func:`nervcodec.media.source.filters` takes it.

    Raises:
        VideoError: the source gave fewer or more frames than the scan counted, or was changed since then.
    """
    from nervcodec.media.filters import Filters
    from nervcodec.media.media import Decoder

    decoder = Decoder(info.input, options.start_s, options.duration_s)
    chain = Filters(info.path, f"{filters(info, options, scaling)},{output}")
    count = 0
    with info.snapshot.watched():
        with contextlib.closing(decoder.frames()) as frames:
            for frame, _ in frames:
                if count == info.frame_count:
                    raise VideoError(f"{info.path}: more than {counted(count, 'frame')} could be read")
                yield chain.frame(frame)
                count += 1
        if count < info.frame_count:
            said = "; ".join(decoder.damage.reasons) or "it ends there"
            raise VideoError(
                f"{info.path}: only {count} of {counted(info.frame_count, 'frame')} could be read ({said})"
            )


def read_segment(frames: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Take the next ``count`` frames as one ``(count, H, W, 3)`` uint8 array."""
    first = next(frames)
    segment = np.empty((count, *first.shape), np.uint8)
    segment[0] = first
    for index in range(1, count):
        segment[index] = next(frames)
    return segment
