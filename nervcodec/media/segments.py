# SPDX-License-Identifier: MIT
"""Cutting a video into segments of nearly equal length."""

from __future__ import annotations

import math
import re

from nervcodec.errors import ConfigError
from nervcodec.formats.header import MAX_SEGMENT_FRAMES
from nervcodec.ranges import parse_duration

USUAL_SEGMENT = "10s"
_LEAST_RATE = 5.0  # frames a second, for times


def segment_lengths(frame_count: int, frame_rate: float, segment: str) -> list[int]:
    """Frames in each segment.

    A time counts at least five frames for every second: a slow video, such as one frame a minute, is not cut into
    networks of a frame or two.

    Args:
        frame_count: frames in all, at least 1.
        frame_rate: frames a second.
        segment: longest segment, ``10s``, ``250f`` or ``none``.

    Raises:
        ConfigError: not such a text, or a segment shorter than a frame.
    """
    slow = False
    if segment == "none":
        longest = frame_count
    elif match := re.fullmatch(r"(\d{1,9})f", segment):
        longest = int(match.group(1))
    else:
        slow = frame_rate < _LEAST_RATE
        longest = math.floor(parse_duration(segment) * max(frame_rate, _LEAST_RATE) + 1e-6)
    if longest < 1:
        raise ConfigError(f"a segment of {segment} is shorter than a frame")
    longest = min(longest, MAX_SEGMENT_FRAMES)
    count = max(1, frame_count // longest) if slow else -(-frame_count // longest)
    return [(i + 1) * frame_count // count - i * frame_count // count for i in range(count)]
