# SPDX-License-Identifier: MIT
"""Frames of a scanned source as uint8 RGB arrays, one after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np

from nervcodec.errors import VideoError
from nervcodec.video import ffmpeg, folder
from nervcodec.video.source import SourceOptions, VideoInfo, reading


def read_frames(info: VideoInfo, options: SourceOptions | None = None) -> Generator[np.ndarray, None, None]:
    """Decode a source, holding one frame at a time.

    Colour is converted to 8-bit RGB as ffmpeg does by default: limited or full range, matrix and bit depth are
    taken from the stream.

    Args:
        info: what :func:`nervcodec.video.source.scan` found, with the same options.
        options: range, crop, scale.

    Yields:
        ``(height, width, 3)`` uint8 RGB, ``info.frame_count`` times.

    Raises:
        VideoError: the source gave fewer or more frames than the scan counted.
    """
    options = options or SourceOptions()
    arguments = [*reading(info, options), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    for data in read_raw(info, arguments, info.width * info.height * 3):
        yield np.frombuffer(data, np.uint8).reshape(info.height, info.width, 3)


def read_raw(info: VideoInfo, arguments: list[str], size: int) -> Generator[bytes, None, None]:
    """Frames of a source as ffmpeg writes them, ``size`` bytes each, ``info.frame_count`` times.

    Raises:
        VideoError: the source gave fewer or more frames than the scan counted.
    """
    with ffmpeg.Process(arguments, folder.contents(info.images) if info.images else None, read=True) as process:
        count = 0
        while count < info.frame_count:
            data = process.read(size)
            if len(data) < size:
                break
            yield data
            count += 1
        if count < info.frame_count or process.read(1):
            found = f"only {count}" if count < info.frame_count else f"more than {count}"
            raise VideoError(f"{info.path}: {found} of {info.frame_count} frames could be read ({process.complaint()})")


def read_segment(frames: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Take the next ``count`` frames as one ``(count, H, W, 3)`` uint8 array."""
    first = next(frames)
    segment = np.empty((count, *first.shape), np.uint8)
    segment[0] = first
    for index in range(1, count):
        segment[index] = next(frames)
    return segment
