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
_MIN_DIFFERENCE = 10.0  # mean absolute difference of neighbouring frames at a cut, of 255
_MIN_RATIO = 3.0  # times the median difference of the frames around it
_MEDIAN_PACE = 20  # of the median difference
_PACE_POWER = 0.6  # exponent of the difference: 0 for a constant pace, 1 for one in proportion
_REPEATED_RATIO = 0.1  # times the median difference: the same frame, encoded again
_NEIGHBOURS = 12  # frames on each side
_PERSISTENCE_FRAMES = 8  # frames over which persistence is measured
_SCENE_LINES, _MAX_SCENES = 48, 400  # approximate lines of a scene's picture; maximum number of scenes
_SAME_SCENE = 0.15  # largest squared difference of two pictures of one scene, over the variance within a picture
DEFAULT_SEGMENT = "10s"
_MIN_RATE = 5.0  # frames a second, for segments stated as a time


def thumbnails(frames: np.ndarray) -> np.ndarray:
    """Every eighth pixel, across and down, of frames ``(N, H, W, ...)``."""
    return frames[:, ::STRIDE, ::STRIDE]


def find_cuts(small: np.ndarray) -> tuple[int, ...]:
    """First frames of the shots after the first.

    A cut is a single difference between neighbouring frames that is large in itself and relative to the differences
    around it; fast motion gives a run of large differences.

    Args:
        small: ``(N, h, w, C)`` of 8 bits, result of :func:`thumbnails` for all frames, in colour or grey.

    Returns:
        Frame numbers from 1 to N - 1, ascending.
    """
    small = small.astype(np.int16)
    return cuts_from_changes(np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3)))


def cuts_from_changes(change: np.ndarray) -> tuple[int, ...]:
    """As :func:`find_cuts`, of ``(N - 1,)`` mean absolute differences of neighbouring frames, 0 to 255."""
    cuts = []
    for index, value in enumerate(change):
        neighbours = np.r_[change[max(0, index - _NEIGHBOURS) : index], change[index + 1 : index + 1 + _NEIGHBOURS]]
        median = float(np.median(neighbours)) if neighbours.size else 0.0
        if value > _MIN_DIFFERENCE and value > _MIN_RATIO * median:
            cuts.append(index + 1)
    return tuple(cuts)


def find_pace(frames: np.ndarray) -> tuple[int, ...]:
    """Time warp from the change between neighbouring frames, for grids with fewer entries than frames.

    Args:
        frames: ``(N, H, W, 3)`` uint8.

    Returns:
        ``N - 1`` whole numbers from 0 to 99, 0 where a frame repeats the one before it; none where most do.
    """
    if len(frames) < 2:
        return ()
    small = thumbnails(frames).astype(np.float32)
    change = np.sqrt(np.square(np.diff(small, axis=0)).mean(axis=(1, 2, 3)))
    median = float(np.median(change))
    if median == 0:
        return ()
    pace = np.clip(np.rint(_MEDIAN_PACE * (change / median) ** _PACE_POWER), 1, MAX_PACE).astype(int)
    return tuple(np.where(change < _REPEATED_RATIO * median, 0, pace).tolist())


def persistence(frames: np.ndarray, cuts: tuple[int, ...]) -> float:
    """Similarity of frames of a shot that are eight frames apart.

    Args:
        frames: ``(N, H, W, 3)`` uint8.
        cuts: first frames of the shots after the first.

    Returns:
        1 minus the mean squared difference of such frames over twice the variance within a frame: 1 for a still
        picture, 0 for unrelated frames. 1 where no shot is long enough.
    """
    small = thumbnails(frames).astype(np.float32)
    later = np.arange(len(small) - _PERSISTENCE_FRAMES)
    later = later[np.searchsorted(cuts, later, "right") == np.searchsorted(cuts, later + _PERSISTENCE_FRAMES, "right")]
    variance = float(small.var(axis=(1, 2)).mean())
    if not later.size or variance == 0:
        return 1.0
    difference = float(np.square(small[later + _PERSISTENCE_FRAMES] - small[later]).mean())
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
        """Add frames, ``(n, h, w, 3)`` float32."""
        mean = small.mean(axis=0)
        away = self.frames * len(small) / (self.frames + len(small)) * float(np.square(mean - self.picture).mean())
        self.spread += float(np.square(small - mean).mean(axis=(1, 2, 3)).sum()) + away
        self.variance += float(small.var(axis=(1, 2)).mean(axis=1).sum())
        self.picture = self.picture + (mean - self.picture) * (len(small) / (self.frames + len(small)))
        self.frames += len(small)

    def distance(self, picture: np.ndarray) -> float:
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
        small = thumbnails(frames)
        cuts, first = find_cuts(small), self.pieces[-1].stop if self.pieces else 0
        bounds, continues = [0, *cuts, len(small)], self._continues_shot(small)
        thin = max(1, min(small.shape[1:3]) // _SCENE_LINES)
        for start, stop in zip(bounds, bounds[1:], strict=False):
            part = small[start:stop, ::thin, ::thin].astype(np.float32)
            before = self.pieces[-1] if self.pieces else None
            if before is not None and continues and not start:
                shot, scene = before.shot, before.scene
            else:
                shot, scene = 0 if before is None else before.shot + 1, self._scene_of(part.mean(axis=0))
            self.scenes[scene].add(part)
            self.pieces.append(Piece(first + start, first + stop, shot, scene))
        self._tail = small[-_NEIGHBOURS:].copy()
        return cuts

    @property
    def is_full(self) -> bool:
        """Whether the video has more scenes than the limit."""
        return len(self.scenes) == _MAX_SCENES

    @property
    def static_share(self) -> float:
        """Share of the variance that the scenes' mean pictures explain: 1 where nothing moves, 0 or less for none."""
        variance = sum(scene.variance for scene in self.scenes)
        return 1.0 if variance == 0 else 1.0 - sum(scene.spread for scene in self.scenes) / variance

    def of(self, numbers: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shots and scenes of some frames.

        Args:
            numbers: ``(n,)`` frame numbers, ascending.

        Returns:
            Indices into ``numbers``, from 1, at which another shot begins; and the scene of each shot.
        """
        starts = np.array([piece.first for piece in self.pieces])
        pieces = [self.pieces[place] for place in np.searchsorted(starts, numbers, "right") - 1]
        begins = [place for place in range(1, len(pieces)) if pieces[place].shot != pieces[place - 1].shot]
        return tuple(begins), tuple(pieces[place].scene for place in (0, *begins))

    def _continues_shot(self, small: np.ndarray) -> bool:
        """Whether a segment begins in the shot that the last one ended in."""
        if self._tail is None:
            return False
        return len(self._tail) not in find_cuts(np.concatenate([self._tail, small[: _NEIGHBOURS + 1]]))

    def _scene_of(self, picture: np.ndarray) -> int:
        """The scene of a picture, a new one where none is similar."""
        if len(self.scenes) == _MAX_SCENES:
            return _MAX_SCENES - 1
        differences = [scene.distance(picture) for scene in self.scenes]
        if differences and min(differences) < _SAME_SCENE:
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
        slow = frame_rate < _MIN_RATE
        longest = math.floor(parse_duration(segment) * max(frame_rate, _MIN_RATE) + 1e-6)
    if longest < 1:
        raise ConfigError(f"a segment of {segment} is shorter than a frame")
    longest = min(longest, MAX_SEGMENT_FRAMES)
    count = max(1, frame_count // longest) if slow else -(-frame_count // longest)
    return [(i + 1) * frame_count // count - i * frame_count // count for i in range(count)]
