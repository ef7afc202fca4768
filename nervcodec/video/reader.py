# SPDX-License-Identifier: MIT
"""Frames of a scanned source as uint8 RGB arrays, one after the other."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator

import numpy as np

from nervcodec.errors import VideoError
from nervcodec.video import ffmpeg, folder
from nervcodec.video.source import SourceOptions, VideoInfo, filters, input_arguments


def read_frames(info: VideoInfo, options: SourceOptions | None = None) -> Iterator[np.ndarray]:
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
    arguments = [*input_arguments(info.path, options, info.images), "-map", "0:v:0", "-vf", filters(info, options)]
    arguments += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    size = info.width * info.height * 3
    with tempfile.TemporaryFile() as log:
        process = ffmpeg.spawn(
            ["-loglevel", "error", *arguments],
            stdin=subprocess.PIPE if info.images else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log.fileno(),
        )
        if info.images:
            folder.feed(process, info.images)
        assert process.stdout is not None
        count = 0
        try:
            while count < info.frame_count:
                data = process.stdout.read(size)
                if len(data) < size:
                    break
                yield np.frombuffer(data, np.uint8).reshape(info.height, info.width, 3)
                count += 1
            surplus = count == info.frame_count and process.stdout.read(1)
        finally:
            process.stdout.close()
            process.kill()
            process.wait()
        if count < info.frame_count or surplus:
            log.seek(0)
            reason = ffmpeg.last_complaint(log.read().decode("utf-8", "replace"))
            found = f"only {count}" if count < info.frame_count else f"more than {count}"
            raise VideoError(f"{info.path}: {found} of {info.frame_count} frames could be read ({reason})")


def read_segment(frames: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Take the next ``count`` frames as one ``(count, H, W, 3)`` uint8 array."""
    first = next(frames)
    segment = np.empty((count, *first.shape), np.uint8)
    segment[0] = first
    for index in range(1, count):
        segment[index] = next(frames)
    return segment
