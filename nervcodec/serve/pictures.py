# SPDX-License-Identifier: MIT
"""Frames as pictures: each decoded alone, and thumbnails that are made once."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from nervcodec.decoding import NervVideo
from nervcodec.decoding.kept import KeptVideo, Room
from nervcodec.formats.container import fingerprint
from nervcodec.semantic import cache
from nervcodec.serve.limits import THUMBNAILS_BYTES, MissingError

JPEG, PNG = "jpeg", "png"
_QUALITY, _SMALL_QUALITY = 95, 82
_THUMBNAIL_WIDTH, _TALLEST = 320, 640
_KIND = "thumbnails"


def frame(video: NervVideo, number: int) -> np.ndarray:
    """One frame, ``(H, W, 3)`` uint8 RGB, HDR tone-mapped, and nothing else decoded but what it hangs on.

    Raises:
        MissingError: no such frame.
        ContainerError: it is damaged.
    """
    if number >= len(video):
        raise MissingError(f"there is no frame {number:,}; there are {len(video):,}")
    return next(video.frames([number], tone_map=True))


def picture(pixels: np.ndarray, form: str = JPEG, width: int | None = None) -> bytes:
    """A frame as a file.

    Args:
        pixels: ``(H, W, 3)`` uint8 RGB.
        form: ``jpeg``, of quality 95 without halved colours, or ``png``, without loss.
        width: of the picture; None, or more than there is, for that of the frame.
    """
    image = Image.fromarray(pixels)
    if width is not None and width < image.width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    return _written(image, form, _QUALITY)


def _written(image: Image.Image, form: str, quality: int) -> bytes:
    out = io.BytesIO()
    if form == PNG:
        image.save(out, "PNG", compress_level=1)
    else:
        image.save(out, "JPEG", quality=quality, subsampling="4:4:4")
    return out.getvalue()


def thumbnail(file: Path) -> bytes:
    """A frame from the middle, 320 pixels wide, in the shape in which it is shown; from the user's cache folder once it
    was made.

    Raises:
        ContainerError: the file is damaged.
    """
    facts = file.stat()  # a copy that was damaged has the fingerprint of the whole one
    name = cache.key("thumbnail 1", fingerprint(file), repr((facts.st_size, facts.st_mtime_ns, facts.st_ino))) + ".jpg"
    if (stored := cache.load_bytes(_KIND, name)) is not None:
        return stored
    with KeptVideo.at(file) as video:
        video.keep(Room(0))  # who scrubs through other files shall not lose what is kept of them
        image = Image.fromarray(frame(video, len(video) // 2))
    across, down = video.header.video.sample_aspect_ratio
    height = round(_THUMBNAIL_WIDTH * image.height * down / (image.width * across))
    image = image.resize((_THUMBNAIL_WIDTH, min(max(1, height), _TALLEST)), Image.Resampling.LANCZOS)
    made = _written(image, JPEG, _SMALL_QUALITY)
    cache.store_bytes(_KIND, name, made)
    _make_room(cache.folder() / _KIND, THUMBNAILS_BYTES)
    return made


def _make_room(folder: Path, limit_bytes: int) -> None:
    """Delete the oldest files of a folder that holds too much."""
    files = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                facts = entry.stat()
                files.append((facts.st_mtime_ns, facts.st_size, entry.path))
    used = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if used <= limit_bytes:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        used -= size
