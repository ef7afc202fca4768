# SPDX-License-Identifier: MIT
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nervcodec.coordinates import PatchGrid
from nervcodec.search.moments import find_intervals, rank_moments, rank_patches

TIMES = np.arange(100) / 25


def video(frames=100):
    times = np.arange(frames) / 25
    grid = PatchGrid(40, 80, 2, 4)
    return SimpleNamespace(path=Path("a.nerv"), grid=grid, frame_times_s=times, duration_s=frames / 25)


def bump(*spans, level=0.1):
    scores = np.full(100, level, np.float32)
    for first, last, height in spans:
        scores[first : last + 1] = height
    return scores


def test_neighbouring_frames_are_one_moment():
    found = find_intervals(bump((10, 19, 0.8), (60, 64, 0.9)), TIMES, 2, -1)
    assert [(first, last) for first, last, _ in found] == [(60, 64), (10, 19)]


def test_a_short_gap_does_not_split_a_moment():
    scores = bump((10, 20, 0.8))
    scores[14] = 0.1
    assert find_intervals(scores, TIMES, 1, -1)[0][:2] == (10, 20)
    far = bump((10, 20, 0.8), (50, 60, 0.8))
    assert find_intervals(far, TIMES, 2, -1)[0][:2] == (10, 20)


@given(hnp.arrays(np.float32, st.integers(1, 100), elements=st.floats(-1, 1, width=32)), st.integers(1, 12))
def test_moments_never_overlap_and_come_best_first(scores, k):
    found = find_intervals(scores, np.arange(len(scores)) / 25, k, -2)
    assert 1 <= len(found) <= k
    covered = [f for first, last, _ in found for f in range(first, last + 1)]
    assert len(covered) == len(set(covered))
    peaks = [scores[best] for *_, best in found]
    assert peaks == sorted(peaks, reverse=True)
    assert all(first <= best <= last for first, last, best in found)


def test_a_floor_leaves_out_what_is_below():
    assert find_intervals(bump((10, 19, 0.8)), TIMES, 10, 0.5) == [(10, 19, 10)]
    assert find_intervals(bump(), TIMES, 10, 0.5) == []


def test_a_moment_names_time_frame_patch_and_box():
    scores = np.full((100, 8), 0.1, np.float32)
    scores[50:75, 6] = 0.7
    scores[60, 6] = 0.9
    (moment,) = rank_moments(video(), scores, 1)
    assert (moment.start_s, moment.end_s) == (2.0, 3.0)
    assert (moment.frame, moment.patch, moment.box) == (60, (1, 2), (40, 20, 20, 20))
    assert set(moment.to_json()) == {"score", "file", "start", "end", "frame", "patch", "box"}


def test_every_patch_for_itself():
    scores = np.zeros((100, 8), np.float32)
    scores[3, 1], scores[3, 2], scores[4, 1] = 0.5, 0.9, 0.7
    found = rank_patches(video(), scores, 3)
    assert [(m.frame, m.patch) for m in found] == [(3, (0, 2)), (4, (0, 1)), (3, (0, 1))]
