# SPDX-License-Identifier: MIT
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nervcodec.coordinates import PatchGrid
from nervcodec.search.moments import cut_off_score, find_intervals, find_moments, find_stretches, rank_videos
from nervcodec.search.query import EncodedQuery

TIMES, ONE_SHOT = np.arange(100) / 25, np.zeros(100, int)
VECTOR = np.ones(1, np.float32)


class Video(SimpleNamespace):
    """Embeddings of 100 frames with 8 patches, of which each is its own score."""

    def __init__(self, scores, shots=ONE_SHOT, path="a.nerv", source="a", encoder="toy"):
        super().__init__(
            all=np.repeat(scores[:, None], 8, axis=1) if scores.ndim == 1 else scores, shots=shots, path=Path(path),
            source=source, encoder=encoder, grid=PatchGrid(40, 80, 2, 4), frame_times_s=TIMES, duration_s=4,
            dimension=1,
        )  # fmt: skip

    def scores(self, vector):
        return self.all * vector[0]

    def mean_embedding(self, frame, patch, radius_s):
        return self.all[frame, patch : patch + 1]


def bump(*spans, level=0.1):
    scores = np.full(100, level, np.float32)
    for first, last, height in spans:
        scores[first : last + 1] = height
    return scores


def passing(level):
    """A query that patches of at least this score match."""
    return lambda name: EncodedQuery(VECTOR, lambda patches: patches[:, 0] >= level)


def untested(name):
    return EncodedQuery(VECTOR)


def frames(moments):
    return [(moment.first_frame, moment.last_frame) for moment in moments]


# ---------------------------------------------------------------------- stretches


def test_neighbouring_frames_are_one_interval():
    found = find_intervals(bump((10, 19, 0.8), (60, 64, 0.9)), TIMES, ONE_SHOT, 2, -1)
    assert [(first, last) for first, last, _ in found] == [(60, 64), (10, 19)]


def test_a_short_gap_does_not_split_an_interval():
    scores = bump((10, 20, 0.8))
    scores[14] = 0.1
    assert find_intervals(scores, TIMES, ONE_SHOT, 1, -1)[0][:2] == (10, 20)
    far = bump((10, 20, 0.8), (50, 60, 0.8))
    assert find_intervals(far, TIMES, ONE_SHOT, 2, -1)[0][:2] == (10, 20)
    assert [s[:2] for s in find_stretches(scores, TIMES, ONE_SHOT, 0.5)] == [(10, 20)]
    assert [s[:2] for s in find_stretches(far, TIMES, ONE_SHOT, 0.5)] == [(10, 20), (50, 60)]
    assert find_stretches(far, TIMES, ONE_SHOT, 0.9) == []


@given(
    hnp.arrays(np.float32, 100, elements=st.floats(-1, 1, width=32)),
    st.integers(1, 12),
    st.lists(st.integers(1, 99), max_size=3),
)
def test_intervals_never_overlap_nor_cross_a_cut_and_come_best_first(scores, k, cuts):
    shots = np.searchsorted(sorted(cuts), np.arange(100), "right")
    for found in (
        find_intervals(scores, TIMES, shots, k, -2),
        find_stretches(scores, TIMES, shots, float(scores.max())),
    ):
        assert found
        covered = [f for first, last, _ in found for f in range(first, last + 1)]
        assert len(covered) == len(set(covered))
        peaks = [scores[best] for *_, best in found]
        assert peaks == sorted(peaks, reverse=True)
        assert all(first <= best <= last and shots[first] == shots[last] for first, last, best in found)
    assert len(find_intervals(scores, TIMES, shots, k, -2)) <= k


def test_a_floor_leaves_out_what_is_below():
    assert find_intervals(bump((10, 19, 0.8)), TIMES, ONE_SHOT, 10, 0.5) == [(10, 19, 10)]
    assert find_intervals(bump(), TIMES, ONE_SHOT, 10, 0.5) == []


@pytest.mark.parametrize(("level", "low", "high"), [(0.5, 0.43, 0.57), (-1, -9, 0.05), (2, 1, 9)])
def test_the_cut_off_separates_what_passes_from_what_does_not(level, low, high):
    """Scores rise evenly from 0 to 1."""
    video = Video(np.linspace(0, 1, 100))
    assert low < cut_off_score(video, video.all, passing(level)("toy")) < high


def test_the_cut_off_of_a_rare_thing_is_found():
    """Of 100 frames three show it."""
    video = Video(bump((50, 50, 0.4), (51, 53, 0.9)))
    assert 0.4 < cut_off_score(video, video.all, passing(0.6)("toy")) < 0.9


# ---------------------------------------------------------------------- one scene, one result


def test_a_moment_names_time_frame_patch_and_box():
    scores = np.full((100, 8), 0.1, np.float32)
    scores[50:75, 6] = 0.7
    scores[60, 6] = 0.9
    (moment,) = find_moments([Video(scores)], passing(0.5), 1)
    assert (moment.start_s, moment.end_s) == (2.0, 3.0)
    assert (moment.frame, moment.patch, moment.box) == (60, (1, 2), (40, 20, 20, 20))
    assert set(moment.to_json()) == {"score", "file", "start", "end", "frame", "patch", "box", "also_in"}


def test_lower_frames_beside_a_peak_are_of_the_same_moment():
    scores = bump((10, 19, 0.4), (20, 29, 0.9), (30, 39, 0.45))
    assert frames(find_moments([Video(scores)], passing(0.3), 10)) == [(10, 39)]
    every = find_moments([Video(scores)], passing(0.3), 10, grouping="stretch")
    assert frames(every) == [(20, 29), (30, 39), (10, 19)]


def test_three_humps_above_the_cut_off_are_three_moments():
    scores = bump((5, 20, 0.6), (12, 13, 0.9), (40, 60, 0.8), (80, 90, 0.7))
    assert frames(find_moments([Video(scores)], passing(0.5), 10)) == [(5, 20), (40, 60), (80, 90)]
    assert frames(find_moments([Video(scores)], passing(0.05), 10)) == [(0, 99)]  # the score never falls below it


def test_a_cut_ends_a_moment():
    shots = (np.arange(100) >= 50).astype(int)
    found = find_moments([Video(bump((40, 69, 0.8), (45, 45, 0.9)), shots)], passing(0.5), 10)
    assert frames(found) == [(40, 49), (50, 69)]


def test_a_shot_below_the_cut_off_that_passes_the_test_is_one_moment():
    """The score does not rank the frames of the second shot as the test does."""
    scores = bump((10, 29, 0.9), (70, 74, 0.3), (90, 94, 0.28))
    video = Video(scores, (np.arange(100) >= 50).astype(int))
    encoded = EncodedQuery(VECTOR, lambda p: (p[:, 0] > 0.5) | (p[:, 0] < 0.31) & (p[:, 0] > 0.29))
    assert frames(find_moments([video], lambda name: encoded, 10)) == [(10, 29), (70, 74)]


def test_what_no_test_cuts_off_is_one_moment_a_shot_or_a_hump():
    shots = (np.arange(100) >= 50).astype(int)
    scores = bump((10, 19, 0.9), (30, 39, 0.8), (70, 74, 0.3))
    assert frames(find_moments([Video(scores, shots)], untested, 10)) == [(10, 19), (30, 39), (70, 74)]
    assert frames(find_moments([Video(scores, shots)], untested, 10, 0.2)) == [(10, 19), (30, 39), (70, 74)]
    assert frames(find_moments([Video(scores, shots)], untested, 10, 0.05)) == [(0, 49), (50, 99)]
    assert frames(find_moments([Video(scores, shots)], untested, 10, 0.85)) == [(10, 19)]


def test_every_patch_for_itself():
    scores = np.zeros((100, 8), np.float32)
    scores[3, 1], scores[3, 2], scores[4, 1] = 0.5, 0.9, 0.7
    found = find_moments([Video(scores)], passing(2), 3, grouping="patch")
    assert [(m.frame, m.patch) for m in found] == [(3, (0, 2)), (4, (0, 1)), (3, (0, 1))]


# ---------------------------------------------------------------------- several videos


def test_containers_of_one_video_are_folded():
    scores = bump((10, 19, 0.8))
    videos = [Video(scores * 0.9, path="b.nerv"), Video(scores, path="c.nerv"), Video(scores, path="a.nerv")]
    videos += [Video(scores * 0.95, path="other.nerv", source="other")]
    found = find_moments(videos, passing(0.5), 10)
    assert [(str(m.file), [str(file) for file in m.also_in]) for m in found] == [
        ("c.nerv", ["a.nerv", "b.nerv"]),
        ("other.nerv", []),
    ]
    assert len(find_moments(videos, passing(0.5), 10, grouping="stretch")) == 4


def test_what_comes_nearest_is_named_where_nothing_matches():
    videos = [Video(bump((10, 19, 0.4))), Video(bump((30, 39, 0.6)), path="b.nerv", source="b")]
    moments, nearest = rank_videos(videos, passing(0.9), 10)
    assert moments == []
    assert (str(nearest.file), nearest.first_frame) == ("b.nerv", 30)
    assert rank_videos(videos, passing(0.5), 10).nearest is None
    assert rank_videos(videos, untested, 10, 0.9).nearest == nearest
    unread = EncodedQuery(np.zeros(1, np.float32), lambda patches: np.zeros(len(patches), bool), ("собака",))
    assert rank_videos(videos, lambda name: unread, 10) == ([], None)


def test_moments_of_several_encoders_are_ordered_by_how_they_stand_among_neutral_prompts():
    """Everything scores high with one encoder, its neutral prompts as well."""
    neutral = {"high": np.linspace(0.8, 1, 9)[:, None], "low": np.linspace(0, 0.2, 9)[:, None]}
    vectors = {"high": 1.0, "low": 0.5}

    def encode(name):
        return EncodedQuery(np.full(1, vectors[name], np.float32), neutral=lambda: neutral[name])

    videos = [
        Video(bump((10, 19, 0.9)), path="high.nerv", source="1", encoder="high"),
        Video(bump((10, 19, 0.8)), path="low.nerv", source="2", encoder="low"),
    ]
    assert [str(m.file) for m in find_moments(videos, encode, 1)] == ["low.nerv"]
    found = find_moments(videos, encode, 10)
    assert [str(m.file) for m in found] == ["low.nerv", "high.nerv"]
    assert found[0].score < found[1].score
    videos[1].source = "1"  # the same video, embedded by both
    (moment,) = find_moments(videos, encode, 10)
    assert (str(moment.file), [str(file) for file in moment.also_in]) == ("low.nerv", ["high.nerv"])
