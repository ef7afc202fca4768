# SPDX-License-Identifier: MIT
"""From patch scores to moments: what matches, when and where."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nervcodec.search.ask import Answer
from nervcodec.search.index import EmbeddingIndex

SPARE = 20  # containers looked into beyond the number of moments asked for
_SPARE_MOMENTS = 4  # moments of a container looked at beyond it
_BATCH = 32  # moments tested at once
REACH_S = 0.25  # before and after the best frame: a patch is tested by its mean embedding over this time
LONGEST_GAP_S = 0.4  # a moment goes on over frames that match less for so long
_KEEP = 0.5  # a frame belongs to a moment while it scores above this fraction of the way from median to peak


@dataclass(frozen=True)
class Moment:
    """A stretch of video that matches a query.

    Attributes:
        score: dot product of query and patch embedding, both of length 1, at the best frame and patch.
        file: the container.
        start_s, end_s: seconds from the container's first frame.
        first_frame, last_frame: numbers of its frames.
        frame: number of the best frame.
        patch: (row, column) of the best patch in it.
        box: (x, y, width, height) of that patch in source pixels.
    """

    score: float
    file: Path
    start_s: float
    end_s: float
    first_frame: int
    last_frame: int
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


def find_moments(
    indexes: Iterable[EmbeddingIndex],
    ask: Callable[[str], Answer],
    k: int,
    min_score: float = -2.0,
    per_patch: bool = False,
) -> list[Moment]:
    """The best moments (or single patches) of any number of containers, best first.

    Args:
        indexes: read one after the other; no more than a few stay in memory.
        ask: from an encoder's name to what the query asks of its embeddings (:func:`nervcodec.search.ask.answer`).
        k: at most so many.
        min_score: leave out what scores below this.
        per_patch: every patch for itself, not grouped into moments.
    """
    # Every container has a moment that scores as its best patch does, so the best k moments of all lie in the k
    # containers with the best patches; a few more are kept for what does not pass the test.
    kept: list[tuple[float, int, EmbeddingIndex, np.ndarray]] = []
    for number, index in enumerate(indexes):
        patch_scores = index.scores(ask(index.encoder).vector)
        entry = (float(patch_scores.max()), -number, index, patch_scores)
        if len(kept) < k + SPARE:
            heapq.heappush(kept, entry)
        elif entry[:2] > kept[0][:2]:
            heapq.heapreplace(kept, entry)
    rank = rank_patches if per_patch else rank_moments
    candidates: list[tuple[EmbeddingIndex, Moment]] = []
    for _, _, index, patch_scores in sorted(kept, key=lambda entry: (-entry[0], -entry[1])):
        candidates += ((index, moment) for moment in rank(index, patch_scores, k + _SPARE_MOMENTS, min_score))
    candidates.sort(key=lambda candidate: -candidate[1].score)
    found: list[Moment] = []
    for start in range(0, len(candidates), _BATCH):
        found += _passing(candidates[start : start + _BATCH], ask)
        if len(found) >= k:
            break
    return found[:k]


def _passing(candidates: list[tuple[EmbeddingIndex, Moment]], ask: Callable[[str], Answer]) -> list[Moment]:
    """Those whose best patch shows what is asked for, in the same order."""
    passing = np.ones(len(candidates), bool)
    for encoder in {index.encoder for index, _ in candidates}:
        if (shows := ask(encoder).shows) is not None:
            rows = [row for row, (index, _) in enumerate(candidates) if index.encoder == encoder]
            passing[rows] = shows(np.stack([_around(*candidates[row]) for row in rows]))
    return [moment for (_, moment), passes in zip(candidates, passing, strict=True) if passes]


def _around(index: EmbeddingIndex, moment: Moment) -> np.ndarray:
    row, column = moment.patch
    return index.around(moment.frame, row * index.grid.columns + column, REACH_S)


def rank_moments(index: EmbeddingIndex, patch_scores: np.ndarray, k: int, min_score: float = -2.0) -> list[Moment]:
    """Group a container's ``(N, P)`` patch scores into at most ``k`` moments, best first."""
    per_frame = patch_scores.max(axis=1)
    result = []
    for first, last, best in find_stretches(per_frame, index.frame_times_s, k, min_score):
        result.append(_moment(index, patch_scores, first, last, best, int(patch_scores[best].argmax())))
    return result


def rank_patches(index: EmbeddingIndex, patch_scores: np.ndarray, k: int, min_score: float = -2.0) -> list[Moment]:
    """The ``k`` best single patches, each as a moment of one frame."""
    flat = patch_scores.ravel()
    order = np.argsort(-flat, kind="stable")[:k]
    patches = patch_scores.shape[1]
    return [
        _moment(index, patch_scores, i // patches, i // patches, i // patches, i % patches)
        for i in map(int, order)
        if flat[i] >= min_score
    ]


def _moment(index: EmbeddingIndex, patch_scores: np.ndarray, first: int, last: int, best: int, patch: int) -> Moment:
    row, column = divmod(patch, index.grid.columns)
    times = index.frame_times_s
    end = float(times[last + 1]) if last + 1 < len(times) else index.duration_s
    return Moment(
        score=float(patch_scores[best, patch]),
        file=index.path,
        start_s=float(times[first]),
        end_s=end,
        first_frame=first,
        last_frame=last,
        frame=best,
        patch=(row, column),
        box=index.grid.box(row, column),
    )
