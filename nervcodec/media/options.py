# SPDX-License-Identifier: MIT
"""Options that select frames and pixels of a source. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from nervcodec.ranges import parse_duration, parse_pair, parse_rate, parse_scale
from nervcodec.settings import Setting, validate

SECTION = "Source"
DEFAULT_RATE = Fraction(25)  # of a folder of frames, and of a stream that states none


@dataclass(frozen=True)
class SourceOptions:
    """Selection of frames and pixels of a source: times in seconds, sides in pixels.

    ``crop`` is (height, width), before scaling; ``scale`` is (width, height), a factor, or None.
    """

    start_s: float = Setting(
        0.0, "Skip what is shown before this time.", SECTION, unset="the beginning",
        least=0, parse=parse_duration, flag="start", metavar="TIME",
    ).field()  # fmt: skip
    duration_s: float | None = Setting(
        None, "Keep this much.", SECTION, unset="all", above=0, parse=parse_duration, flag="duration", metavar="TIME"
    ).field()
    crop: tuple[int, int] | None = Setting(
        None, "Height and width of a window cut from the middle, such as 640_1280.", SECTION,
        least=1, parse=parse_pair, metavar="H_W",
    ).field()  # fmt: skip
    scale: tuple[int, int] | float | None = Setting(
        None, "Scale frames to 1280x720, or by a factor such as 0.5.", SECTION,
        above=0, parse=parse_scale, separator="x", metavar="SCALE",
    ).field()  # fmt: skip
    frame_rate: Fraction | None = Setting(
        None, "Frame rate of a folder of frames, or of a stream that states none.", SECTION, unset=str(DEFAULT_RATE),
        above=0, parse=parse_rate, flag="fps", metavar="RATE",
    ).field()  # fmt: skip
    stream: int | None = Setting(
        None, "Which video stream of several, from 0.", SECTION,
        unset="the one marked as default, else the largest", least=0, metavar="N",
    ).field()  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
