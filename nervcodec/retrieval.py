# SPDX-License-Identifier: MIT
"""From patch embeddings and a query vector to moments: what matches, when and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nervcodec.decoding import NervVideo

LONGEST_GAP_S = 0.4  # a moment goes on over frames that match less for so long
_KEEP = 0.5  # a frame belongs to a moment while it scores above this fraction of the way from median to peak


@dataclass(frozen=True)
class Moment:
    """A stretch of video that matches a query.

    Attributes:
        score: dot product of query and patch embedding, both of length 1, at the best frame and patch.
        file: the container.
        start_s, end_s: seconds from the container's first frame.
        frame: number of the best frame.
        patch: (row, column) of the best patch in it.
        box: (x, y, width, height) of that patch in source pixels.
    """

    score: float
    file: Path
    start_s: float
    end_s: float
    frame: int
    patch: tuple[int, int]
    box: tuple[int, int, int, int]

    def to_json(self) -> dict:
        """As ``search --json`` prints it."""
        return {
            "score": round(self.score, 6),
            "file": str(self.file),
            "start": round(self.start_s, 6),
            "end": round(self.end_s, 6),
            "frame": self.frame,
            "patch": list(self.patch),
            "box": list(self.box),
        }


def scores(embeddings: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Dot products of ``(N, P, D)`` embeddings with a ``(D,)`` query: ``(N, P)`` float32."""
    return np.asarray(embeddings @ query, dtype=np.float32)


def find_stretches(per_frame: np.ndarray, times_s: np.ndarray, k: int, floor: float) -> list[tuple[int, int, int]]:
    """Separate stretches of frames around the highest scores, best first.

    The best free frame starts a stretch, which grows to both sides while frames score above the middle between the
    video's median and that frame, bridging short gaps. Then the next best free frame has its turn.

    Args:
        per_frame: ``(N,)`` score of each frame.
        times_s: ``(N,)`` seconds.
        k: at most so many stretches.
        floor: frames below this score start none.

    Returns:
        (first frame, last frame, best frame), not overlapping.
    """
    free = np.ones(len(per_frame), bool)
    median = float(np.median(per_frame))
    found: list[tuple[int, int, int]] = []
    for best in np.argsort(-per_frame, kind="stable"):
        if len(found) == k or per_frame[best] < floor:
            break
        if not free[best]:
            continue
        level = median + _KEEP * (float(per_frame[best]) - median)
        first = _grow(per_frame, times_s, free, int(best), level, -1)
        last = _grow(per_frame, times_s, free, int(best), level, +1)
        free[first : last + 1] = False
        found.append((first, last, int(best)))
    return found


def _grow(per_frame: np.ndarray, times_s: np.ndarray, free: np.ndarray, start: int, level: float, step: int) -> int:
    edge = position = start
    while 0 <= position + step < len(per_frame) and free[position + step]:
        position += step
        if per_frame[position] >= level:
            edge = position
        elif abs(times_s[position] - times_s[edge]) > LONGEST_GAP_S:
            break
    return edge


def rank_moments(video: NervVideo, patch_scores: np.ndarray, k: int, min_score: float = -2.0) -> list[Moment]:
    """Group a video's ``(N, P)`` patch scores into at most ``k`` moments, best first."""
    per_frame = patch_scores.max(axis=1)
    result = []
    for first, last, best in find_stretches(per_frame, video.frame_times_s, k, min_score):
        result.append(_moment(video, patch_scores, first, last, best, int(patch_scores[best].argmax())))
    return result


def rank_patches(video: NervVideo, patch_scores: np.ndarray, k: int, min_score: float = -2.0) -> list[Moment]:
    """The ``k`` best single patches, each as a moment of one frame."""
    flat = patch_scores.ravel()
    order = np.argsort(-flat, kind="stable")[:k]
    patches = patch_scores.shape[1]
    return [
        _moment(video, patch_scores, i // patches, i // patches, i // patches, i % patches)
        for i in map(int, order)
        if flat[i] >= min_score
    ]


def search_video(
    video: NervVideo, query: np.ndarray, k: int, min_score: float = -2.0, per_patch: bool = False
) -> list[Moment]:
    """Moments (or single patches) of one video that match a query vector ``(D,)``, best first."""
    rank = rank_patches if per_patch else rank_moments
    return rank(video, scores(video.embeddings(), query), k, min_score)


def _moment(video: NervVideo, patch_scores: np.ndarray, first: int, last: int, best: int, patch: int) -> Moment:
    row, column = divmod(patch, video.grid.columns)
    times = video.frame_times_s
    end = float(times[last + 1]) if last + 1 < len(times) else video.header.video.duration_s
    return Moment(
        score=float(patch_scores[best, patch]),
        file=video.path,
        start_s=float(times[first]),
        end_s=end,
        frame=best,
        patch=(row, column),
        box=video.grid.box(row, column),
    )
