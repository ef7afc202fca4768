# SPDX-License-Identifier: MIT
"""Shots, scenes and segments: cuts, the pace of changes, shots of the same place, and segments of equal length."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from nervcodec.errors import ConfigError
from nervcodec.formats.header import MAX_PACE, MAX_SEGMENT_FRAMES
from nervcodec.ranges import parse_duration

STRIDE = 8  # pixels between samples, across and down
_LEAST = 10.0  # mean absolute difference of neighbouring frames at a cut, of 255
_STANDS_OUT = 3.0  # times the median difference of the frames around it
_USUAL_PACE = 20  # that a median difference stands for
_PACE_POWER = 0.6  # between one pace for all (0) and one in proportion to differences (1)
_REPEATED = 0.1  # times the median difference: the same frame, encoded again
_AROUND = 12  # frames on each side
_LATER = 8  # frames over which a picture lasts or does not
_LINES, _MOST = 48, 400  # approximate lines of a small picture; most scenes
_ALIKE = 0.15  # mean squared difference of two pictures over the variance within one, up to which they are one scene
USUAL_SEGMENT = "10s"
_LEAST_RATE = 5.0  # frames a second, for times


def seen_small(frames: np.ndarray) -> np.ndarray:
    """Every eighth pixel, across and down, of frames ``(N, H, W, ...)``."""
    return frames[:, ::STRIDE, ::STRIDE]


def find_cuts(small: np.ndarray) -> tuple[int, ...]:
    """First frames of the shots after the first.

    A cut is a difference between neighbouring frames that is large, and large beside the differences around it:
    fast motion makes a run of large differences, a cut a single one.

    Args:
        small: ``(N, h, w, C)`` of 8 bits, result of :func:`seen_small` for all frames, in colour or grey.

    Returns:
        Frame numbers from 1 to N - 1, ascending.
    """
    small = small.astype(np.int16)
    return cuts_in(np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3)))


def cuts_in(change: np.ndarray) -> tuple[int, ...]:
    """As :func:`find_cuts`, of ``(N - 1,)`` mean absolute differences of neighbouring frames, 0 to 255."""
    cuts = []
    for index, value in enumerate(change):
        around = np.r_[change[max(0, index - _AROUND) : index], change[index + 1 : index + 1 + _AROUND]]
        usual = float(np.median(around)) if around.size else 0.0
        if value > _LEAST and value > _STANDS_OUT * usual:
            cuts.append(index + 1)
    return tuple(cuts)


def find_pace(frames: np.ndarray) -> tuple[int, ...]:
    """How much happens from each frame to the next, for grids that have fewer entries than there are frames.

    Args:
        frames: ``(N, H, W, 3)`` uint8.

    Returns:
        ``N - 1`` whole numbers from 0 to 99, 0 where a frame repeats the one before it; none where most do.
    """
    if len(frames) < 2:
        return ()
    small = seen_small(frames).astype(np.float32)
    change = np.sqrt(np.square(np.diff(small, axis=0)).mean(axis=(1, 2, 3)))
    usual = float(np.median(change))
    if usual == 0:
        return ()
    pace = np.clip(np.rint(_USUAL_PACE * (change / usual) ** _PACE_POWER), 1, MAX_PACE).astype(int)
    return tuple(np.where(change < _REPEATED * usual, 0, pace).tolist())


def persistence(frames: np.ndarray, cuts: tuple[int, ...]) -> float:
    """How much of a picture is still in its place eight frames later.

    Args:
        frames: ``(N, H, W, 3)`` uint8.
        cuts: first frames of the shots after the first.

    Returns:
        1 less the mean squared difference of frames of a shot that lie so far apart, over twice the variance within a
        frame: 1 for a still picture, 0 for unrelated frames. 1 where no shot is long enough.
    """
    small = seen_small(frames).astype(np.float32)
    later = np.arange(len(small) - _LATER)
    later = later[np.searchsorted(cuts, later, "right") == np.searchsorted(cuts, later + _LATER, "right")]
    variance = float(small.var(axis=(1, 2)).mean())
    if not later.size or variance == 0:
        return 1.0
    difference = float(np.square(small[later + _LATER] - small[later]).mean())
    return 1.0 - difference / (2 * variance)


@dataclass
class Scene:
    """Shots that show the same place.

    Attributes:
        picture: ``(h, w, 3)`` float32, small, the mean of its frames.
        frames: how many.
        spread: sum of the mean squared differences of its frames from their shots' means.
        variance: sum of the variances within its frames.
    """

    picture: np.ndarray
    frames: int = 0
    spread: float = 0.0
    variance: float = 0.0

    def add(self, small: np.ndarray) -> None:
        """Take frames, ``(n, h, w, 3)`` float32, in."""
        mean = small.mean(axis=0)
        away = self.frames * len(small) / (self.frames + len(small)) * float(np.square(mean - self.picture).mean())
        self.spread += float(np.square(small - mean).mean(axis=(1, 2, 3)).sum()) + away
        self.variance += float(small.var(axis=(1, 2)).mean(axis=1).sum())
        self.picture = self.picture + (mean - self.picture) * (len(small) / (self.frames + len(small)))
        self.frames += len(small)

    def differs(self, picture: np.ndarray) -> float:
        """Mean squared difference from a picture over the variance within one; 0 for equal pictures."""
        variance = max(self.variance / max(self.frames, 1), 1e-6)
        return float(np.square(picture - self.picture).mean()) / variance


@dataclass(frozen=True)
class Piece:
    """The part of a shot that lies in one segment.

    Attributes:
        first, stop: frames of the video.
        shot: which, of the whole video.
        scene: which.
    """

    first: int
    stop: int
    shot: int
    scene: int


class Scenes:
    """The scenes of a video so far.

    Attributes:
        pieces: parts of shots, in order, each in one segment.
        scenes: in the order in which they appeared.
    """

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.scenes: list[Scene] = []
        self._tail: np.ndarray | None = None

    def add(self, frames: np.ndarray) -> tuple[int, ...]:
        """Add the next segment.

        Args:
            frames: ``(N, H, W, 3)`` uint8.

        Returns:
            Its cuts, as :func:`nervcodec.media.shots.find_cuts` gives them.
        """
        small = seen_small(frames)
        cuts, first = find_cuts(small), self.pieces[-1].stop if self.pieces else 0
        bounds, goes_on = [0, *cuts, len(small)], self._goes_on(small)
        thin = max(1, min(small.shape[1:3]) // _LINES)
        for start, stop in zip(bounds, bounds[1:], strict=False):
            part = small[start:stop, ::thin, ::thin].astype(np.float32)
            before = self.pieces[-1] if self.pieces else None
            if before is not None and goes_on and not start:
                shot, scene = before.shot, before.scene
            else:
                shot, scene = 0 if before is None else before.shot + 1, self._like(part.mean(axis=0))
            self.scenes[scene].add(part)
            self.pieces.append(Piece(first + start, first + stop, shot, scene))
        self._tail = small[-_AROUND:].copy()
        return cuts

    @property
    def too_many(self) -> bool:
        """Whether the video has more scenes than the limit."""
        return len(self.scenes) == _MOST

    @property
    def lasting(self) -> float:
        """How much of the video its scenes' pictures show: 1 where nothing moves, 0 or less where they show nothing."""
        variance = sum(scene.variance for scene in self.scenes)
        return 1.0 if variance == 0 else 1.0 - sum(scene.spread for scene in self.scenes) / variance

    def of(self, numbers: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What some frames show, one after the other.

        Args:
            numbers: ``(n,)`` of them, ascending.

        Returns:
            Places among them, from 1, at which another shot begins; and the scene of each shot.
        """
        starts = np.array([piece.first for piece in self.pieces])
        pieces = [self.pieces[place] for place in np.searchsorted(starts, numbers, "right") - 1]
        begins = [place for place in range(1, len(pieces)) if pieces[place].shot != pieces[place - 1].shot]
        return tuple(begins), tuple(pieces[place].scene for place in (0, *begins))

    def _goes_on(self, small: np.ndarray) -> bool:
        """Whether a segment begins in the shot that the last one ended in."""
        if self._tail is None:
            return False
        return len(self._tail) not in find_cuts(np.concatenate([self._tail, small[: _AROUND + 1]]))

    def _like(self, picture: np.ndarray) -> int:
        """The scene that a picture shows, a new one if need be."""
        if len(self.scenes) == _MOST:
            return _MOST - 1
        differences = [scene.differs(picture) for scene in self.scenes]
        if differences and min(differences) < _ALIKE:
            return int(np.argmin(differences))
        self.scenes.append(Scene(picture))
        return len(self.scenes) - 1


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
