# SPDX-License-Identifier: MIT
"""What decoding takes, and how much of it is done at once."""

from __future__ import annotations

from dataclasses import dataclass

from nervcodec.errors import ConfigError
from nervcodec.formats.header import Header

LARGEST_SCALE = 16
_MOST_FRAMES = 4  # of a batch
_PIXELS = {"cpu": 1 << 21, "cuda": 1 << 23}  # of a batch: on a CPU larger ones are no faster (benchmarks/NOTES.md)
_BYTES_PER_PIXEL = 64  # that rendering takes at its peak, features included
_BYTES_AT_REST = 400 << 20  # Python, torch


def require_scale(scale: float) -> None:
    """Refuse a factor on width and height that is out of range.

    Raises:
        ConfigError: it is.
    """
    if not 0 < scale <= LARGEST_SCALE:
        raise ConfigError(f"a scale of {scale:g} is out of range (above 0, at most {LARGEST_SCALE})")


@dataclass(frozen=True)
class Needs:
    """What decoding takes.

    Attributes:
        memory_bytes: at its peak, about.
        pixel_bytes: all the frames as uint8 RGB.
    """

    memory_bytes: int
    pixel_bytes: int


def batch_size(header: Header, device: str) -> int:
    """Whole frames of a container that are rendered together; it depends on the frame size and the device alone.

    Args:
        header: of the container.
        device: ``cpu`` or ``cuda``.
    """
    return max(1, min(_MOST_FRAMES, _PIXELS[device] // (header.video.width * header.video.height)))


def needs(header: Header, count: int, scale: float, kept_bytes: int) -> Needs:
    """What decoding ``count`` frames takes.

    Args:
        header: of the container.
        count: frames.
        scale: factor on width and height.
        kept_bytes: of networks that are kept, see ``Networks.kept_bytes``.
    """
    facts = header.video
    pixels = facts.width * facts.height
    shown = max(1, round(facts.width * scale)) * max(1, round(facts.height * scale))
    frames = batch_size(header, "cuda") * _BYTES_PER_PIXEL * (pixels + (shown if scale != 1 else 0))
    return Needs(_BYTES_AT_REST + kept_bytes + frames, 3 * shown * count)
