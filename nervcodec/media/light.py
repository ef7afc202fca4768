# SPDX-License-Identifier: MIT
"""How bright a source in HDR is: its mastering display (SMPTE ST 2086) and its content light level (CTA-861.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import av

_DISPLAY = struct.Struct("=22i")  # AVMasteringDisplayMetadata: ten rationals, then which of them are stated
_CONTENT = struct.Struct("=2I")
_MOST = 65_535  # cd/m² that AV1 can state


@dataclass(frozen=True)
class Light:
    """What a source states of its light.

    Attributes:
        display: x and y (CIE 1931) of red, green, blue and white of the mastering display, then its least and its
            greatest luminance in cd/m²; None where not all of it is stated.
        content: the greatest luminance of a pixel (MaxCLL) and the greatest mean of a frame (MaxFALL), in cd/m²; None
            where they are not stated.
    """

    display: tuple[float, ...] | None = None
    content: tuple[int, int] | None = None


def light_of(frame: av.VideoFrame) -> Light | None:
    """What a decoded frame states; None for nothing that makes sense."""
    display, content = (frame.side_data.get(name) for name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"))
    light = Light(
        None if display is None else _display(bytes(cast(bytes, display))),
        None if content is None else _content(bytes(cast(bytes, content))),
    )
    return light if light.display or light.content else None


def _content(data: bytes) -> tuple[int, int] | None:
    highest, mean = _CONTENT.unpack(data)
    return (highest, mean) if 0 < highest <= _MOST and mean <= _MOST else None


def _display(data: bytes) -> tuple[float, ...] | None:
    *parts, has_primaries, has_luminance = _DISPLAY.unpack(data)
    if not (has_primaries and has_luminance and all(parts[1::2])):
        return None
    values = tuple(float(Fraction(*pair)) for pair in zip(parts[::2], parts[1::2], strict=True))
    *places, least, most = values
    return values if all(0 <= place <= 1 for place in places) and 0 <= least < most <= 10_000 else None
