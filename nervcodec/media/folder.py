# SPDX-License-Identifier: MIT
"""Folders of numbered frames: which files, and in which order."""

from __future__ import annotations

import contextlib
import re
from fractions import Fraction
from pathlib import Path

from nervcodec.errors import VideoError
from nervcodec.media.options import DEFAULT_RATE

_DECODERS = {".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg"}
_NUMBER = re.compile(r"(\d+)\D*$")


def decoder_of(image: Path) -> str:
    """FFmpeg's decoder for an image, by its suffix."""
    return _DECODERS[image.suffix.lower()]


def images_in(folder: Path) -> list[Path]:
    """PNG and JPEG files of a folder, hidden ones left out, in no order.

    Raises:
        OSError: the folder cannot be read.
    """
    return [p for p in folder.iterdir() if p.suffix.lower() in _DECODERS and not p.name.startswith(".")]


def modified(source: Path) -> float:
    """When a source was last changed, in seconds; of a folder of frames, the latest of its files.

    Raises:
        OSError: it is not there or cannot be read.
    """
    files = list(source.iterdir()) if source.is_dir() else [source]
    return max(file.stat().st_mtime for file in files)


def numbered_images(
    folder: Path, start_s: float = 0.0, duration_s: float | None = None, rate: Fraction | None = None
) -> tuple[Path, ...]:
    """PNG or JPEG files of a folder, ordered by the last number in their names.

    Raises:
        VideoError: no such image, PNG and JPEG mixed, a number twice or missing, or none in the range of time.
    """
    images = images_in(folder)
    if no_file := next((p for p in images if not p.is_file()), None):
        raise VideoError(f"{no_file}: is no file; frames are read more than once and must be files")
    if not images:
        raise VideoError(f"{folder}: no PNG or JPEG frames in this folder")
    if len({decoder_of(p) for p in images}) > 1:
        raise VideoError(f"{folder}: holds both PNG and JPEG images; keep one kind")
    by_number: dict[int, Path] = {}
    for image in images:
        match = _NUMBER.search(image.stem)
        if match is None:
            raise VideoError(f"{image}: frames need a number in their name, such as frame_0001.png")
        number = int(match.group(1))
        if number in by_number:
            raise VideoError(f"{folder}: {by_number[number].name} and {image.name} have the same number")
        by_number[number] = image
    numbers = sorted(by_number)
    if numbers[-1] - numbers[0] + 1 != len(numbers):
        gap = next(a + 1 for a, b in zip(numbers, numbers[1:], strict=False) if b != a + 1)
        raise VideoError(f"{folder}: frame {gap} is missing; rename the frames if that is intended")
    ordered = [by_number[n] for n in numbers]
    per_second = rate or DEFAULT_RATE
    first = max(0, -int(-(Fraction(start_s).limit_denominator(1_000_000) * per_second) // 1))
    last = len(ordered)
    if duration_s is not None:
        last = first + -int(-(Fraction(duration_s).limit_denominator(1_000_000) * per_second) // 1)
    chosen = tuple(ordered[first:last])
    if not chosen:
        raise VideoError(f"{folder}: no frame at or after {start_s:g} s")
    return chosen


def require_one_size(images: tuple[Path, ...]) -> None:
    """Refuse images of several sizes; what is no image is left to ffmpeg to refuse.

    Raises:
        VideoError: they differ.
    """
    from PIL import Image

    sizes: dict[tuple[int, int], Path] = {}
    for path in images:
        with contextlib.suppress(OSError, ValueError, Image.DecompressionBombError), Image.open(path) as image:
            sizes.setdefault(image.size, path)
    if len(sizes) > 1:
        (size, one), (other_size, other) = list(sizes.items())[:2]
        raise VideoError(f"{one.parent}: the images differ in size: {one.name} is {size}, {other.name} {other_size}")
