# SPDX-License-Identifier: MIT
"""Scenes of a whole video: shots that show the same place, found while its segments come one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervcodec.media.shots import AROUND, find_cuts, seen_small

_LINES, _MOST = 48, 400  # of a small picture, about; scenes that are told apart
_ALIKE = 0.15  # mean squared difference of two pictures over the variance within one, up to which they are one scene


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
        """How much a picture is another one: 0 for the same."""
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
        """Look at the next segment.

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
        self._tail = small[-AROUND:].copy()
        return cuts

    @property
    def too_many(self) -> bool:
        """Whether there are more than are told apart."""
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
        return len(self._tail) not in find_cuts(np.concatenate([self._tail, small[: AROUND + 1]]))

    def _like(self, picture: np.ndarray) -> int:
        """The scene that a picture shows, a new one if need be."""
        if len(self.scenes) == _MOST:
            return _MOST - 1
        differences = [scene.differs(picture) for scene in self.scenes]
        if differences and min(differences) < _ALIKE:
            return int(np.argmin(differences))
        self.scenes.append(Scene(picture))
        return len(self.scenes) - 1
