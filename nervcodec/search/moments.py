# SPDX-License-Identifier: MIT
"""From patch scores to moments: time intervals that match a query."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nervcodec.search.query import EncodedQuery
from nervcodec.search.scores import VideoEmbeddings, encode_for

EXTRA_VIDEOS = 20  # videos beyond ``k`` whose moments are ranked, since some do not pass the test
_EXTRA_MOMENTS = 4  # moments of a video beyond ``k``
_BATCH = 32  # moments tested at once
TEST_RADIUS_S = 0.25  # a patch is tested by its mean embedding over this time before and after the best frame
MAX_GAP_S = 0.4  # a moment continues across a gap of lower scores of this length
_THRESHOLD = 0.5  # of the way from median to peak: frames of a moment score above it


@dataclass(frozen=True)
class Moment:
    """A time interval of a video that matches a query.

    Attributes:
        score: dot product of query and patch embedding, both of length 1, at the best frame and patch.
        file: the container.
        start_s, end_s: seconds since the first frame.
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


def find_intervals(per_frame: np.ndarray, times_s: np.ndarray, k: int, floor: float) -> list[tuple[int, int, int]]:
    """Intervals of frames around the highest scores, best first.

    The best free frame starts an interval, which grows to both sides while frames score above the middle between the
    video's median and that frame, across short gaps. The next best free frame starts the next one.

    Args:
        per_frame: ``(N,)`` score of each frame.
        times_s: ``(N,)`` seconds.
        k: maximum number of intervals.
        floor: frames below this score start no interval.

    Returns:
        (first frame, last frame, best frame), not overlapping.
    """
    free = np.ones(len(per_frame), bool)
    median = float(np.median(per_frame))
    intervals: list[tuple[int, int, int]] = []
    for best in np.argsort(-per_frame, kind="stable"):
        if len(intervals) == k or per_frame[best] < floor:
            break
        if not free[best]:
            continue
        level = median + _THRESHOLD * (float(per_frame[best]) - median)
        first = _grow(per_frame, times_s, free, int(best), level, -1)
        last = _grow(per_frame, times_s, free, int(best), level, +1)
        free[first : last + 1] = False
        intervals.append((first, last, int(best)))
    return intervals


def _grow(per_frame: np.ndarray, times_s: np.ndarray, free: np.ndarray, start: int, level: float, step: int) -> int:
    edge = position = start
    while 0 <= position + step < len(per_frame) and free[position + step]:
        position += step
        if per_frame[position] >= level:
            edge = position
        elif abs(times_s[position] - times_s[edge]) > MAX_GAP_S:
            break
    return edge


def find_moments(
    videos: Iterable[VideoEmbeddings],
    encode: Callable[[str], EncodedQuery],
    k: int,
    min_score: float = -2.0,
    per_patch: bool = False,
) -> list[Moment]:
    """The best moments (or single patches) of any number of videos, best first.

    Args:
        videos: read one after the other; ``k + EXTRA_VIDEOS`` stay in memory.
        encode: gives the query for the encoder of a name, such as a :class:`nervcodec.search.query.QueryEncoder`.
        k: maximum number of moments.
        min_score: leave out lower scores.
        per_patch: rank single patches instead of moments.

    Raises:
        ContainerError: the embeddings of a video have another dimension than its encoder.
        EncoderError, ConfigError: as ``encode``.
    """
    # The best moment of a video scores as its best patch does, so the best k moments lie in the k videos with the best
    # patches; a few more are kept, since some moments do not pass the test.
    best: list[tuple[float, int, VideoEmbeddings, np.ndarray]] = []
    for number, video in enumerate(videos):
        patch_scores = video.scores(encode_for(video, encode).vector)
        entry = (float(patch_scores.max()), -number, video, patch_scores)
        if len(best) < k + EXTRA_VIDEOS:
            heapq.heappush(best, entry)
        elif entry[:2] > best[0][:2]:
            heapq.heapreplace(best, entry)
    rank = rank_patches if per_patch else rank_moments
    candidates: list[tuple[VideoEmbeddings, Moment]] = []
    for _, _, video, patch_scores in sorted(best, key=lambda entry: (-entry[0], -entry[1])):
        candidates += ((video, moment) for moment in rank(video, patch_scores, k + _EXTRA_MOMENTS, min_score))
    candidates.sort(key=lambda candidate: -candidate[1].score)
    moments: list[Moment] = []
    for start in range(0, len(candidates), _BATCH):
        moments += _matching(candidates[start : start + _BATCH], encode)
        if len(moments) >= k:
            break
    return moments[:k]


def _matching(candidates: list[tuple[VideoEmbeddings, Moment]], encode: Callable[[str], EncodedQuery]) -> list[Moment]:
    """Moments whose best patch passes the test of the query, in the same order."""
    is_match = np.ones(len(candidates), bool)
    for encoder in {video.encoder for video, _ in candidates}:
        if (test := encode(encoder).is_match) is not None:
            rows = [row for row, (video, _) in enumerate(candidates) if video.encoder == encoder]
            is_match[rows] = test(np.stack([_mean_embedding(*candidates[row]) for row in rows]))
    return [moment for (_, moment), matches in zip(candidates, is_match, strict=True) if matches]


def _mean_embedding(video: VideoEmbeddings, moment: Moment) -> np.ndarray:
    row, column = moment.patch
    return video.mean_embedding(moment.frame, row * video.grid.columns + column, TEST_RADIUS_S)


def rank_moments(video: VideoEmbeddings, patch_scores: np.ndarray, k: int, min_score: float = -2.0) -> list[Moment]:
    """Group a video's ``(N, P)`` patch scores into at most ``k`` moments, best first."""
    per_frame = patch_scores.max(axis=1)
    return [
        _moment(video, patch_scores, first, last, best, int(patch_scores[best].argmax()))
        for first, last, best in find_intervals(per_frame, video.frame_times_s, k, min_score)
    ]


def rank_patches(video: VideoEmbeddings, patch_scores: np.ndarray, k: int, min_score: float = -2.0) -> list[Moment]:
    """The ``k`` best single patches, each as a moment of one frame."""
    flat = patch_scores.ravel()
    order = np.argsort(-flat, kind="stable")[:k]
    patches = patch_scores.shape[1]
    return [
        _moment(video, patch_scores, i // patches, i // patches, i // patches, i % patches)
        for i in map(int, order)
        if flat[i] >= min_score
    ]


def _moment(video: VideoEmbeddings, patch_scores: np.ndarray, first: int, last: int, best: int, patch: int) -> Moment:
    row, column = divmod(patch, video.grid.columns)
    times = video.frame_times_s
    end = float(times[last + 1]) if last + 1 < len(times) else video.duration_s
    return Moment(
        score=float(patch_scores[best, patch]),
        file=video.path,
        start_s=float(times[first]),
        end_s=end,
        first_frame=first,
        last_frame=last,
        frame=best,
        patch=(row, column),
        box=video.grid.box(row, column),
    )
