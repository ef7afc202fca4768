# SPDX-License-Identifier: MIT
"""From patch scores to moments: time intervals that match a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nervcodec.search.query import EncodedQuery
from nervcodec.search.scores import VideoEmbeddings, encode_for

EXTRA_VIDEOS = 20  # videos beyond ``k`` whose moments are ranked, since some do not pass the test
_EXTRA_MOMENTS = 4  # moments of a video beyond ``k``
_TRIES = 3  # intervals of a shot that are tested before it counts as one without a match
TEST_RADIUS_S = 0.25  # a patch is tested by its mean embedding over this time before and after the best frame
MAX_GAP_S = 0.4  # a moment continues across a gap of lower scores of this length
NO_LIMIT = -1.0  # a minimum score of this or less limits nothing
_THRESHOLD = 0.5  # of the way from median to peak: frames of an interval score above it
_TESTED = 16  # frames that are tested to find the cut-off

Grouping = Literal["scene", "stretch", "patch"]  # what is a result: see :func:`rank_videos`


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
        also_in: other containers of the same video.
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
    also_in: tuple[Path, ...] = ()

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
            "also_in": list(map(str, self.also_in)),
        }


class RankedMoments(NamedTuple):
    """Moments, best first; where nothing matches, what comes nearest (None if the encoders cannot read the query)."""

    moments: list[Moment]
    nearest: Moment | None = None


# ---------------------------------------------------------------------- intervals of a video


class Interval(NamedTuple):
    """Frame numbers."""

    first: int
    last: int
    best: int


def find_intervals(
    per_frame: np.ndarray, times_s: np.ndarray, shots: np.ndarray, k: int, floor: float, per_shot: int | None = None
) -> list[Interval]:
    """Intervals of frames around the highest scores, best first.

    The best free frame starts an interval, which grows to both sides within its shot while frames score above the
    middle between the video's median and that frame, across short gaps. The next best free frame starts the next one.

    Args:
        per_frame: ``(N,)`` score of each frame.
        times_s: ``(N,)`` seconds.
        shots: ``(N,)`` number of the shot of each frame.
        k: maximum number of intervals.
        floor: frames below this score start no interval.
        per_shot: maximum number of intervals in a shot; None: ``k``.

    Returns:
        Intervals that do not overlap.
    """
    free = np.ones(len(per_frame), bool)
    median = float(np.median(per_frame))
    intervals: list[Interval] = []
    for best in map(int, np.argsort(-per_frame, kind="stable")):
        if len(intervals) == k or per_frame[best] < floor:
            break
        if not free[best]:
            continue
        in_shot = shots == shots[best]
        level = median + _THRESHOLD * (float(per_frame[best]) - median)
        first, last = (_grow(per_frame, times_s, free & in_shot, best, level, step) for step in (-1, +1))
        free[first : last + 1] = False
        intervals.append(Interval(first, last, best))
        if sum(bool(in_shot[interval.best]) for interval in intervals) == per_shot:
            free &= ~in_shot
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


def find_stretches(per_frame: np.ndarray, times_s: np.ndarray, shots: np.ndarray, level: float) -> list[Interval]:
    """The stretches of all shots in which the score stays at or above a level, save for short gaps; best first."""
    above = np.flatnonzero(per_frame >= level)
    if not len(above):
        return []
    is_end = (np.diff(times_s[above]) > MAX_GAP_S) | (np.diff(shots[above]) > 0)
    groups = np.split(above, np.flatnonzero(is_end) + 1)
    stretches = [Interval(int(g[0]), int(g[-1]), int(g[per_frame[g].argmax()])) for g in groups]
    return sorted(stretches, key=lambda stretch: -per_frame[stretch.best])


# ---------------------------------------------------------------------- moments of a video


@dataclass
class _Candidate:
    """A video whose moments may be among the best.

    Attributes:
        video, encoded: the embeddings, and the query for their encoder.
        patch_scores: ``(N, P)``.
        number: of the video, in order.
        copies: other containers of the same video.
    """

    video: VideoEmbeddings
    encoded: EncodedQuery
    patch_scores: np.ndarray
    number: int
    copies: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.per_frame = self.patch_scores.max(axis=1)
        self.order = (-float(self.per_frame.max()), self.number)  # best first

    def intervals(self, k: int, floor: float, per_shot: int | None = None) -> list[Interval]:
        """See :func:`find_intervals`."""
        return find_intervals(self.per_frame, self.video.frame_times_s, self.video.shots, k, floor, per_shot)

    def passes(self, frames: Sequence[int]) -> list[bool]:
        """Which frames pass the test of the query with their best patch."""
        return _passes(self.video, self.patch_scores, self.encoded, frames).tolist()

    def moment(self, interval: Interval) -> Moment:
        """An interval with its best patch."""
        return _moment(self.video, self.patch_scores, interval, int(self.patch_scores[interval.best].argmax()))


def _passes(
    video: VideoEmbeddings, patch_scores: np.ndarray, encoded: EncodedQuery, frames: Sequence[int]
) -> np.ndarray:
    if encoded.is_match is None or not len(frames):
        return np.ones(len(frames), bool)
    pairs = ((frame, int(patch_scores[frame].argmax())) for frame in frames)
    return encoded.is_match(np.stack([video.mean_embedding(*pair, TEST_RADIUS_S) for pair in pairs]))


def cut_off_score(video: VideoEmbeddings, patch_scores: np.ndarray, encoded: EncodedQuery) -> float:
    """The score that best separates frames of a video that pass the test of a query from those that do not.

    Frames at even steps of the score are tested. Without a test it is halfway from the median to the best.

    Args:
        video: the embeddings.
        patch_scores: ``(N, P)`` of it.
        encoded: the query.
    """
    per_frame = patch_scores.max(axis=1)
    if encoded.is_match is None:
        return float(np.median(per_frame) + per_frame.max()) / 2
    order = np.argsort(per_frame, kind="stable")
    ranked = per_frame[order]
    positions = np.searchsorted(ranked, np.linspace(ranked[0], ranked[-1], _TESTED)[:-1])
    positions = np.unique(np.append(positions, len(ranked) - 1))
    ranked, passes = ranked[positions], _passes(video, patch_scores, encoded, order[positions].tolist())
    # Frames above the split should pass and others fail; as few as possible do otherwise.
    wrong = np.concatenate([[0], np.cumsum(passes)]) + np.concatenate([np.cumsum(~passes[::-1])[::-1], [0]])
    split = len(wrong) - 1 - int(wrong[::-1].argmin())
    if split == len(ranked):
        return float(ranked[-1]) + 0.01
    return float(ranked[split] + ranked[max(0, split - 1)]) / 2


def _scene_moments(candidate: _Candidate, k: int, min_score: float) -> list[Moment]:
    """At most ``k`` moments of a video, best first: the stretches of each shot whose score stays above the cut-off. In
    a shot that nowhere reaches it, what passes the test nevertheless is one moment."""
    video, per_frame, limit = candidate.video, candidate.per_frame, k + _EXTRA_MOMENTS
    intervals = candidate.intervals(limit, min_score, _TRIES)
    frames = [interval.best for interval in intervals]
    passes = dict(zip(frames, candidate.passes(frames), strict=True))
    if not any(passes.values()):
        return []
    level = min_score
    if candidate.encoded.is_match is not None or min_score <= NO_LIMIT:
        level = max(level, cut_off_score(video, candidate.patch_scores, candidate.encoded))
    stretches = find_stretches(per_frame, video.frame_times_s, video.shots, level)[:limit]
    frames = [stretch.best for stretch in stretches if stretch.best not in passes]
    passes |= zip(frames, candidate.passes(frames), strict=True)
    kept = [stretch for stretch in stretches if passes[stretch.best]]
    shots = {int(video.shots[stretch.best]) for stretch in kept}
    for interval in intervals:
        if passes[interval.best] and (shot := int(video.shots[interval.best])) not in shots:
            shots.add(shot)
            kept.append(interval)
    kept.sort(key=lambda interval: -per_frame[interval.best])
    return [candidate.moment(interval) for interval in kept[:k]]


def _stretch_moments(candidate: _Candidate, k: int, min_score: float) -> list[Moment]:
    """At most ``k`` intervals that match, best first, also several of one scene."""
    intervals = candidate.intervals(k + _EXTRA_MOMENTS, min_score)
    passes = candidate.passes([interval.best for interval in intervals])
    kept = [interval for interval, is_match in zip(intervals, passes, strict=True) if is_match]
    return [candidate.moment(interval) for interval in kept[:k]]


def _patch_moments(candidate: _Candidate, k: int, min_score: float) -> list[Moment]:
    """The ``k`` best single patches, tested or not, each as a moment of one frame."""
    flat = candidate.patch_scores.ravel()
    order = np.argsort(-flat, kind="stable")[:k]
    pairs = (divmod(int(i), candidate.patch_scores.shape[1]) for i in order if flat[i] >= min_score)
    return [
        _moment(candidate.video, candidate.patch_scores, Interval(frame, frame, frame), patch) for frame, patch in pairs
    ]


def _moment(video: VideoEmbeddings, patch_scores: np.ndarray, interval: Interval, patch: int) -> Moment:
    first, last, best = interval
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


# ---------------------------------------------------------------------- moments of several videos

_MOMENTS = {"scene": _scene_moments, "stretch": _stretch_moments, "patch": _patch_moments}


def find_moments(
    videos: Iterable[VideoEmbeddings],
    encode: Callable[[str], EncodedQuery],
    k: int,
    min_score: float = -2.0,
    grouping: Grouping = "scene",
) -> list[Moment]:
    """The moments of :func:`rank_videos`."""
    return rank_videos(videos, encode, k, min_score, grouping).moments


def rank_videos(
    videos: Iterable[VideoEmbeddings],
    encode: Callable[[str], EncodedQuery],
    k: int,
    min_score: float = -2.0,
    grouping: Grouping = "scene",
) -> RankedMoments:
    """The best moments of any number of videos.

    Those of one encoder are ordered by score. Scores of different encoders cannot be compared: there moments are
    ordered by how far the query stands above neutral prompts.

    Args:
        videos: read one after the other; ``k + EXTRA_VIDEOS`` of each encoder stay in memory.
        encode: gives the query for the encoder of a name, such as a :class:`nervcodec.search.query.QueryEncoder`.
        k: maximum number of moments.
        min_score: leave out lower scores.
        grouping: ``scene``: a moment for each scene, containers of one video folded into one; ``stretch``: every
            stretch of every container; ``patch``: single patches, which are not tested.

    Raises:
        ContainerError: the embeddings of a video have another dimension than its encoder.
        EncoderError, ConfigError: as ``encode``.
    """
    groups = _best_videos(videos, encode, k + EXTRA_VIDEOS, grouping == "scene")
    ranked: list[tuple[float, Moment, _Candidate]] = []
    for candidates in groups:
        found: list[tuple[float, Moment, _Candidate]] = []
        for candidate in candidates:
            if len(found) >= k and found[k - 1][0] >= -candidate.order[0]:
                break  # no moment of the videos that follow scores higher
            found += ((m.score, m, candidate) for m in _MOMENTS[grouping](candidate, k, min_score))
            found.sort(key=lambda item: -item[0])
        ranked += found[:k]
    if len(groups) > 1:
        ranked = sorted(((c.encoded.standing(_best_embedding(c, m)), m, c) for _, m, c in ranked), key=lambda x: -x[0])
    moments = _fold(ranked) if grouping == "scene" else [moment for _, moment, _ in ranked]
    return RankedMoments(moments[:k], None if moments else _nearest([group[0] for group in groups]))


def _best_videos(
    videos: Iterable[VideoEmbeddings], encode: Callable[[str], EncodedQuery], limit: int, fold: bool
) -> list[list[_Candidate]]:
    """The ``limit`` videos of each encoder whose best patches score highest, best first. With ``fold``, of several
    containers of one video the best one."""
    # The best moment of a video scores as its best patch does, so the best k moments lie in the k videos with the best
    # patches; a few more are kept, since some moments do not pass the test.
    groups: dict[str, dict[object, _Candidate]] = {}
    for number, video in enumerate(videos):
        encoded = encode_for(video, encode)
        candidate = _Candidate(video, encoded, video.scores(encoded.vector), number)
        group = groups.setdefault(video.encoder, {})
        key = video.source if fold else number
        if (known := group.get(key)) is not None:
            candidate, worse = sorted((known, candidate), key=lambda c: c.order)
            candidate.copies += [worse.video.path, *worse.copies]
        group[key] = candidate
        if len(group) > limit:
            del group[max(group, key=lambda key: group[key].order)]
    return [sorted(group.values(), key=lambda c: c.order) for group in groups.values()]


def _fold(ranked: Iterable[tuple[float, Moment, _Candidate]]) -> list[Moment]:
    """Moments with the other containers of their video; of the same stretch of one video only the first."""
    kept: list[tuple[Moment, str, set[Path]]] = []
    for _, moment, candidate in ranked:
        files = {moment.file, *candidate.copies}
        for other, source, others in kept:
            overlaps = moment.start_s < other.end_s and other.start_s < moment.end_s
            if source == candidate.video.source and overlaps and moment.file != other.file:
                others |= files
                break
        else:
            kept.append((moment, candidate.video.source, files))
    return [replace(moment, also_in=tuple(sorted(files - {moment.file}))) for moment, _, files in kept]


def _nearest(candidates: Sequence[_Candidate]) -> Moment | None:
    """The best interval of the best video, tested or not."""
    readable = [candidate for candidate in candidates if not candidate.encoded.unsupported_texts]
    pairs = [(candidate, candidate.moment(candidate.intervals(1, -np.inf)[0])) for candidate in readable]
    if len(pairs) > 1:
        pairs.sort(key=lambda pair: -pair[0].encoded.standing(_best_embedding(*pair)))
    return pairs[0][1] if pairs else None


def _best_embedding(candidate: _Candidate, moment: Moment) -> np.ndarray:
    row, column = moment.patch
    return candidate.video.mean_embedding(moment.frame, row * candidate.video.grid.columns + column, TEST_RADIUS_S)
