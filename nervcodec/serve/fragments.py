# SPDX-License-Identifier: MIT
"""Pieces of a second or so that a browser plays one after the other, made of decoded frames.

Each stands alone, with a beginning of its own and a key frame first, and its times are those of the whole video: a page
may append any of them to a MediaSource, in any order.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from nervcodec.decoding import NervVideo
from nervcodec.errors import ContainerError
from nervcodec.media.writer import fragment
from nervcodec.serve import boxes
from nervcodec.serve.desk import Leave
from nervcodec.serve.limits import MissingError

LENGTH_S = Fraction(1, 2)  # about, of a fragment: what is waited for before anything plays
_TICKS_S = 90_000  # where frames do not come evenly
_MOST_TICKS_S = 1 << 30
_CRF, _PRESET = 16, "veryfast"
_LONGEST_SIDE = 3_840
# Levels of H.264: the most macroblocks in a frame, and in a second.
_LEVELS = {31: (3_600, 108_000), 40: (8_192, 245_760), 51: (36_864, 983_040), 62: (139_264, 16_711_680)}


@dataclass(frozen=True)
class Plan:
    """How a video is cut into fragments.

    Attributes:
        length: seconds of a fragment, a whole number of frames where those come evenly.
        count: fragments.
        ticks_s: ticks a second of their times.
        type: as MediaSource takes it.
        level: of H.264, times ten.
    """

    length: Fraction
    count: int
    ticks_s: int
    type: str
    level: int


def plan(video: NervVideo) -> Plan:
    """How a video is cut."""
    facts, rate = video.header.video, video.frame_rate
    if facts.variable_frame_rate:
        length, ticks = LENGTH_S, _TICKS_S
        count = max(1, math.ceil(Fraction(facts.duration_s) / length - Fraction(1, 1000)))
    else:
        frames = max(1, round(rate * LENGTH_S))
        length, count = frames / rate, -(-facts.frame_count // frames)
        ticks = rate.numerator * -(-1000 // rate.numerator)  # a frame takes a whole number of them
        ticks = ticks if ticks < _MOST_TICKS_S else _TICKS_S
    width, height = _coded_size(facts.width, facts.height)
    blocks = -(-width // 16) * -(-height // 16)
    fits = (level for level, (most, each_s) in _LEVELS.items() if blocks <= most and blocks * rate <= each_s)
    level = next(fits, max(_LEVELS))
    return Plan(length, count, ticks, f'video/mp4; codecs="avc1.6400{level:02x}"', level)


def _coded_size(width: int, height: int) -> tuple[int, int]:
    """Even, and not larger than browsers play."""
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    return tuple(max(2, 2 * math.ceil(side * scale / 2)) for side in (width, height))  # type: ignore[return-value]


def video_fragment(video: NervVideo, number: int, leave: Leave) -> bytes:
    """One fragment of the picture.

    Args:
        video: open.
        number: of the fragment, from 0.
        leave: tells whether somebody still waits.

    Raises:
        MissingError: no such fragment.
        GoneError: nobody waits.
        ContainerError: the file is damaged.
        VideoError: libx264 refused.
    """
    made = plan(video)
    if number >= made.count:
        raise MissingError(f"there is no fragment {number:,}; there are {made.count:,}")
    numbers, ticks = _shown(video, made, number)
    facts = video.header.video
    options = {"preset": _PRESET, "crf": str(_CRF), "tune": "zerolatency"}
    options |= {"profile": "high", "level": f"{made.level / 10:.1f}"}
    size, aspect = _coded_size(facts.width, facts.height), Fraction(*facts.sample_aspect_ratio)
    frames = _even(video.frames(numbers, tone_map=True), leave)
    data = fragment(frames, size, video.frame_rate, ticks, made.ticks_s, aspect, options)
    return _placed(bytearray(data), made, number)


def _shown(video: NervVideo, made: Plan, number: int) -> tuple[range, list[int]]:
    """The frames on show during a fragment, and when each begins, from the fragment's beginning, and the last ends."""
    facts, begin = video.header.video, number * made.length
    if not facts.variable_frame_rate:
        each = round(made.length * video.frame_rate)
        numbers = range(number * each, min((number + 1) * each, len(video)))
        return numbers, [round(place * made.ticks_s / video.frame_rate) for place in range(len(numbers) + 1)]
    times, end = video.frame_times_s, min(float(begin + made.length), facts.duration_s)
    first = max(0, bisect.bisect_right(times, float(begin) + 1e-6) - 1)
    stop = max(first + 1, bisect.bisect_left(times, end - 1e-6))
    edges = [float(begin), *times[first + 1 : stop], max(end, float(begin) + 1e-3)]
    ticks = [round((edge - float(begin)) * made.ticks_s) for edge in edges]
    for place in range(1, len(ticks)):
        ticks[place] = max(ticks[place], ticks[place - 1] + 1)
    return range(first, stop), ticks


def _even(frames: Iterator[np.ndarray], leave: Leave) -> Iterator[np.ndarray]:
    """Frames with even sides, the last row and column repeated."""
    for frame in frames:
        leave.check()
        more = [(0, side % 2) for side in frame.shape[:2]]
        yield np.pad(frame, [*more, (0, 0)], "edge") if any(odd for _, odd in more) else frame


def _placed(data: bytearray, made: Plan, number: int) -> bytes:
    """A fragment at its time in the video."""
    start = round(number * made.length * made.ticks_s)
    first = None
    for moof in list(boxes.boxes(data)):
        if moof.kind == b"moof":
            begins = boxes.beginning(data, moof)
            first = begins if first is None else first
            boxes.move(data, moof, start + begins - first)
    if first is None:
        raise ContainerError("no frame could be made playable")
    return bytes(data)
