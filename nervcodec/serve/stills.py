# SPDX-License-Identifier: MIT
"""Frames as JPEG and PNG pictures. Runs in a :class:`nervcodec.worker.Worker`, one call at a time."""

from __future__ import annotations

import contextlib
import io
import os
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from nervcodec import tone_mapping
from nervcodec.base.streams import streams_of
from nervcodec.decoding import NervVideo
from nervcodec.device import set_threads
from nervcodec.formats.container import Container, fingerprint
from nervcodec.media.planes import Planes
from nervcodec.semantic import cache as disk_cache
from nervcodec.serve.limits import THUMBNAILS_BYTES, MissingError
from nervcodec.threads import core_count

JPEG, PNG = "jpeg", "png"
_QUALITY, _SMALL_QUALITY = 95, 82
_THUMBNAIL_WIDTH, _TALLEST = 320, 640
_KIND = "thumbnails"
_FRAMES_BYTES, _OPEN_FILES = 64 << 20, 4


@cache
def load_renderer() -> None:
    """Import torch, which takes a second. It gets half of the cores: libx264 and the browser use the others."""
    set_threads(max(1, core_count() // 2))
    import nervcodec.decoding.rendering  # noqa: F401


def open_video(file: Path) -> NervVideo:
    """Open a container to decode its frames in this process.

    Raises:
        ContainerError: it is damaged.
    """
    video = NervVideo.open(file)
    if video.header.base is None:
        load_renderer()
    return video


class _OpenFile:
    """An open container and the decoder of its base layer, which stands after the frame that it gave last."""

    def __init__(self, file: Path):
        self.video = open_video(file)
        self._container = Container.open(file)
        self._streams = None if self.video.header.base is None else streams_of(self._container)
        self._decoder: Iterator[Planes] = iter(())
        self._next = self._end = 0

    def frame(self, number: int, decoded: FrameCache) -> np.ndarray:
        """``(H, W, 3)`` uint8 RGB, HDR tone-mapped."""
        base = self.video.header.base
        if self._streams is None or base is None:
            return next(self.video.frames([number]))
        planes = decoded.get(self, number)
        if planes is None:
            run = self._streams.run(number)
            if not run.first <= self._next <= number < self._end:
                self._next, self._end = run
                self._decoder = self.video.planes(range(*run))
            while self._next <= number:
                planes = next(self._decoder)
                decoded.put(self, self._next, planes)
                self._next += 1
        assert planes is not None
        peak = tone_mapping.peak_of(self.video.light()) if base.planes.is_hdr else tone_mapping.DEFAULT_PEAK
        return tone_mapping.to_screen8(planes, base.planes, None, peak)[0]

    def close(self) -> None:
        """End the decoder and close the file."""
        self.video.close()
        self._container.close()


class FrameCache:
    """The frames of base layers that were decoded last, at most ``limit_bytes`` of them."""

    def __init__(self, limit_bytes: int = _FRAMES_BYTES):
        self.limit_bytes, self.used_bytes = limit_bytes, 0
        self._frames: OrderedDict[tuple[object, int], Planes] = OrderedDict()

    def get(self, file: object, number: int) -> Planes | None:
        """A frame, or None."""
        if (file, number) in self._frames:
            self._frames.move_to_end((file, number))
        return self._frames.get((file, number))

    def put(self, file: object, number: int, planes: Planes) -> None:
        """Add a frame; the least recently used ones are dropped."""
        if (file, number) not in self._frames:
            self.used_bytes += sum(plane.nbytes for plane in planes)
        self._frames[file, number] = planes
        while self.used_bytes > self.limit_bytes:
            self.used_bytes -= sum(plane.nbytes for plane in self._frames.popitem(last=False)[1])


_files: OrderedDict[tuple[Path, str], _OpenFile] = OrderedDict()
_decoded = FrameCache()


def still(file: Path, version: str, number: int, form: str, width: int | None) -> bytes:
    """One frame as a picture.

    Args:
        file: the container.
        version: changes when the file does.
        number: of the frame.
        form: ``jpeg``, of quality 95 and 4:4:4, or ``png``, lossless.
        width: of the picture; None, or more than that of the frame, for that of the frame.

    Raises:
        MissingError: no such frame.
        ContainerError: the file is damaged.
    """
    key = file, version
    opened = _files.pop(key, None) or _OpenFile(file)
    _files[key] = opened
    while len(_files) > _OPEN_FILES:
        _files.popitem(last=False)[1].close()
    if number >= len(opened.video):
        raise MissingError(f"there is no frame {number:,}; there are {len(opened.video):,}")
    image = Image.fromarray(opened.frame(number, _decoded))
    if width is not None and width < image.width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    return _encoded(image, form, _QUALITY)


def _encoded(image: Image.Image, form: str, quality: int) -> bytes:
    out = io.BytesIO()
    if form == PNG:
        image.save(out, "PNG", compress_level=1)
    else:
        image.save(out, "JPEG", quality=quality, subsampling="4:4:4")
    return out.getvalue()


def thumbnail(file: Path) -> bytes:
    """The middle frame as a JPEG of 320 pixels' width, in the shape in which it is shown; cached on disk.

    Raises:
        ContainerError: the file is damaged.
    """
    facts = file.stat()  # a copy that was damaged has the fingerprint of the original
    name = (
        disk_cache.key("thumbnail 1", fingerprint(file), repr((facts.st_size, facts.st_mtime_ns, facts.st_ino)))
        + ".jpg"
    )
    if (stored := disk_cache.load_bytes(_KIND, name)) is not None:
        return stored
    with open_video(file) as video:
        image = Image.fromarray(next(video.frames([len(video) // 2], tone_map=True)))
    across, down = video.header.video.sample_aspect_ratio
    height = round(_THUMBNAIL_WIDTH * image.height * down / (image.width * across))
    image = image.resize((_THUMBNAIL_WIDTH, min(max(1, height), _TALLEST)), Image.Resampling.LANCZOS)
    made = _encoded(image, JPEG, _SMALL_QUALITY)
    disk_cache.store_bytes(_KIND, name, made)
    _evict(disk_cache.folder() / _KIND, THUMBNAILS_BYTES)
    return made


def _evict(folder: Path, limit_bytes: int) -> None:
    """Delete the oldest files of a folder that holds more than ``limit_bytes``."""
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
