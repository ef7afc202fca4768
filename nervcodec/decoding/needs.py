# SPDX-License-Identifier: MIT
"""What decoding takes, and how much of it is done at once."""

from __future__ import annotations

from dataclasses import dataclass

from nervcodec.errors import ConfigError
from nervcodec.formats.header import Header

LARGEST_SCALE = 16
_FRAMES_IN_MEMORY = 4  # rendered at once, where they are small
_PIXELS_IN_MEMORY = 1 << 23  # of frames rendered at once
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


def most_at_once(header: Header) -> int:
    """Frames of a container to render in one go."""
    return max(1, min(_FRAMES_IN_MEMORY, _PIXELS_IN_MEMORY // (header.video.width * header.video.height)))


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
    frames = min(count, most_at_once(header)) * _BYTES_PER_PIXEL * (pixels + (shown if scale != 1 else 0))
    return Needs(_BYTES_AT_REST + kept_bytes + frames, 3 * shown * count)
