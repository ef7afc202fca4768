# SPDX-License-Identifier: MIT
"""Ranges, durations, sizes and splits of frames as people write them on a command line."""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from nervcodec.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

_DURATION = re.compile(r"^\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h)?\s*$")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_LIMIT_SECONDS = 1e9
FITTED, HELD_OUT, UNUSED = "train", "val", "unused"
LONGEST = 1000


def parse_duration(text: str) -> float:
    """Seconds in ``90``, ``90s``, ``5m``, ``1.5h``, ``250ms`` or ``1:02:03.5``.

    Raises:
        ConfigError: not such a text, or not a finite number of seconds.
    """
    if ":" in text:
        parts = text.strip().split(":")
        if not 2 <= len(parts) <= 3 or not all(re.fullmatch(r"\d+(\.\d+)?", p) for p in parts):
            raise ConfigError(f"{text!r} is not a time; write 90s, 5m, 1h or 1:30")
        seconds = 0.0
        for part in parts:
            seconds = seconds * 60 + float(part)
    else:
        match = _DURATION.match(text)
        if not match:
            raise ConfigError(f"{text!r} is not a time; write 90s, 5m, 1h or 1:30")
        seconds = float(match.group(1)) * _UNIT_SECONDS[match.group(2)]
    if not math.isfinite(seconds) or seconds > _LIMIT_SECONDS:
        raise ConfigError(f"{text!r} is longer than nervcodec can count")
    return seconds


def parse_size(text: str) -> float:
    """Bytes in ``400KB``, ``1.5MB``, ``2e5`` or ``409600``; K is 1,000 and Ki 1,024.

    Raises:
        ConfigError: not such a text, or not above 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d)?)\s*(?:([kmg])(i?))?b?\s*", text.lower())
    if not match or not float(match.group(1)):
        raise ConfigError(f"{text!r} is not a size; write 400KB, 1.5MB or a number of bytes")
    power = " kmg".index(match.group(2) or " ")
    return float(match.group(1)) * (1024 if match.group(3) else 1000) ** power


def parse_pair(text: str, separators: str = "x_") -> tuple[int, int]:
    """Two positive whole numbers, as in ``2x4`` or ``640_1280``.

    Raises:
        ConfigError: not two of them.
    """
    match = re.fullmatch(rf"(\d{{1,9}})[{separators}](\d{{1,9}})", text.strip())
    if not match or 0 in (pair := (int(match.group(1)), int(match.group(2)))):
        raise ConfigError(f"{text!r} is not a pair of positive whole numbers such as 2x4")
    return pair


def parse_scale(text: str) -> tuple[int, int] | float:
    """``1280x720`` as (width, height), or a factor such as ``0.5``.

    Raises:
        ConfigError: neither.
    """
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text.strip()):
        factor = float(text)
        if 0 < factor <= 64:
            return factor
        raise ConfigError(f"a scale of {text} is out of range (above 0, at most 64)")
    try:
        return parse_pair(text, "x")
    except ConfigError:
        raise ConfigError(f"{text!r} is not a scale; write 1280x720 or 0.5") from None


def parse_strides(text: str) -> tuple[int, ...]:
    """Whole numbers, as in ``5,3,2,2,2`` or ``5_3_2``.

    Raises:
        ConfigError: not such a text.
    """
    if not re.fullmatch(r"\d{1,2}([,_]\d{1,2})*", text):
        raise ConfigError(f"{text!r} is not a list of strides such as 5,3,2,2,2")
    return tuple(int(part) for part in re.split("[,_]", text))


def parse_rate(text: str) -> Fraction:
    """Frames a second, as in ``25``, ``29.97`` or ``30000/1001``.

    Raises:
        ConfigError: not such a text, or not above 0.
    """
    if not re.fullmatch(r"\d{1,6}(/\d{1,6}|\.\d{1,6})?", text) or text.endswith("/0") or not (rate := Fraction(text)):
        raise ConfigError(f"{text!r} is not a frame rate such as 25 or 30000/1001")
    return rate


def parse_frames(text: str | None, times_s: SupportsLenAndGetItem[float], end_s: float) -> range:
    """Frame numbers of a range such as ``10``, ``10:20``, ``10:20:2``, ``-5:``, ``3.5s`` or ``3s:5s``.

    Numbers and steps follow Python's slices. A single time means the frame shown then; a range of times means
    the frames that begin inside it. ``None`` or empty text means all frames.

    Args:
        text: the range.
        times_s: when each frame begins, ascending.
        end_s: when the last frame ends.

    Raises:
        ConfigError: not a range, or no frame lies in it.
    """
    count = len(times_s)
    if not text:
        return range(count)
    parts = text.split(":")
    if len(parts) == 1:
        index = frame_at(parts[0], times_s, end_s) if parts[0].endswith("s") else _parse_integer(text, parts[0])
        if not -count <= index < count:
            raise ConfigError(f"frame {index} is out of range; there are {count} (0 to {count - 1})")
        index %= count
        return range(index, index + 1)
    if len(parts) > 3:
        raise ConfigError(f"{text!r} is not a range; write 10:20, 10:20:2 or 3s:5s")
    bounds = [_bound(text, part, times_s) for part in parts[:2]]
    step = _parse_integer(text, parts[2]) if len(parts) == 3 and parts[2] else 1
    if step < 1:
        raise ConfigError(f"the step of {text!r} must be 1 or more")
    chosen = range(count)[slice(bounds[0], bounds[1], step)]
    if not len(chosen):
        raise ConfigError(f"no frame lies in {text!r}; there are {count} (0 to {count - 1}, {end_s:.2f} s)")
    return chosen


def frame_at(text: str, times_s: SupportsLenAndGetItem[float], end_s: float) -> int:
    """The frame shown at a time such as ``3.5s``.

    Raises:
        ConfigError: before the first frame or at or after the end.
    """
    seconds = parse_duration(text)
    index = bisect.bisect_right(times_s, seconds + 1e-6) - 1
    if index < 0 or seconds >= end_s:
        raise ConfigError(f"{text} is outside the video, which ends at {end_s:.2f} s")
    return index


def _bound(text: str, part: str, times_s: SupportsLenAndGetItem[float]) -> int | None:
    if not part:
        return None
    if part.endswith("s"):
        return bisect.bisect_left(times_s, parse_duration(part) - 1e-6)
    return _parse_integer(text, part)


def _parse_integer(text: str, part: str) -> int:
    if not re.fullmatch(r"-?\d{1,12}", part.strip()):
        raise ConfigError(f"{text!r} is not a frame or range; write 10, 10:20, 10:20:2, 3.5s or 3s:5s")
    return int(part)


@dataclass(frozen=True)
class FrameSplit:
    """A repeating pattern of frames, written ``valid_train/total_train/total_data`` as HNeRV has it.

    Of every ``total`` frames, ``train`` are on the training side and the rest are held out; of the training side,
    ``fitted`` are fitted and the rest are unused. Each choice is spread evenly. Where ``train`` is
    ``total``, the remaining training frames are held out, since no others are.

    Attributes:
        fitted, train, total: 1 <= fitted <= train <= total <= 1000.
    """

    fitted: int
    train: int
    total: int

    def __post_init__(self) -> None:
        if not 1 <= self.fitted <= self.train <= self.total <= LONGEST:
            raise ConfigError(
                f"a split of {self.fitted}/{self.train}/{self.total} frames does not ascend from 1 to {LONGEST} at most"
            )

    @property
    def pattern(self) -> tuple[str, ...]:
        """The role of each of ``total`` frames in turn: ``train``, ``val`` or ``unused``. The first is ``train``."""
        train = _evenly_spaced(range(self.total), self.train)
        fitted = {train[i] for i in _evenly_spaced(range(self.train), self.fitted)}
        left_over = HELD_OUT if self.train == self.total else UNUSED
        return tuple(FITTED if i in fitted else left_over if i in train else HELD_OUT for i in range(self.total))

    def roles(self, first: int, count: int) -> list[str]:
        """Roles of ``count`` frames of the video from number ``first`` on."""
        pattern = self.pattern
        return [pattern[(first + i) % self.total] for i in range(count)]


def _evenly_spaced(items: range, count: int) -> list[int]:
    """``count`` of the items, evenly spaced, the first among them."""
    return [items[k * len(items) // count] for k in range(count)]


def parse_split(text: str) -> FrameSplit:
    """Read ``6_6_10`` or ``6/6/10``.

    Raises:
        ConfigError: not such a text, or numbers that do not ascend.
    """
    if not (match := re.fullmatch(r"(\d{1,4})[_/](\d{1,4})[_/](\d{1,4})", text)):
        raise ConfigError(f"{text!r} is not a split of frames such as 6_6_10")
    return FrameSplit(*(int(part) for part in match.groups()))
