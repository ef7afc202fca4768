# SPDX-License-Identifier: MIT
"""A whole frame has the same bytes alone, in a range, in any order and from any thread of a process."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nervcodec

GOLDEN = Path(__file__).parents[1] / "golden"
NETWORKS = ["version3_pe", "version3_lapped", "version3_sample"]
BASES = ["version3_base", "version3_copy"]
FRAMES = 15  # of a file that are looked at


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def precision(request):
    return request.param


@pytest.fixture(scope="module", params=[*NETWORKS, *BASES])
def video(request, precision):
    with nervcodec.open(GOLDEN / f"{request.param}.nerv", device="cpu", precision=precision) as opened:
        yield opened


@pytest.fixture(scope="module")
def in_sequence(video):
    """The first frames, ``(n, H, W, 3)``, decoded in one go."""
    return video[:FRAMES]


@settings(max_examples=15)
@given(numbers=st.lists(st.integers(0, FRAMES - 1), min_size=1, max_size=9))
def test_frames_in_any_order(video, in_sequence, numbers):
    np.testing.assert_array_equal(np.stack(list(video.frames(numbers))), in_sequence[numbers])


@settings(max_examples=10)
@given(bounds=st.tuples(st.integers(0, FRAMES - 1), st.integers(1, FRAMES), st.integers(1, 4)))
def test_ranges(video, in_sequence, bounds):
    chosen = slice(*bounds)
    np.testing.assert_array_equal(video[chosen], in_sequence[chosen])


def test_frames_alone_and_from_several_threads(video, in_sequence):
    numbers = [*range(FRAMES), *reversed(range(FRAMES))]
    with ThreadPoolExecutor(4) as threads:
        for number, frame in zip(numbers, threads.map(video.__getitem__, numbers), strict=True):
            np.testing.assert_array_equal(frame, in_sequence[number])


def test_scaled_frames(video):
    alone = [next(video.frames([number], 0.5)) for number in range(6)]
    np.testing.assert_array_equal(alone, list(video.frames(range(6), 0.5)))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_patch_alone_differs_by_one_level_at_most(name):
    with nervcodec.open(GOLDEN / f"{name}.nerv", device="cpu", precision="fp32") as video:
        for number in range(FRAMES):
            assert np.abs(video.patch(number, 0, 1).astype(int) - _patch_of(video, video[number])).max() <= 1


@pytest.mark.parametrize("name", BASES)
def test_a_patch_of_a_base_layer_is_exact(name):
    with nervcodec.open(GOLDEN / f"{name}.nerv") as video:
        for number in range(FRAMES):
            np.testing.assert_array_equal(video.patch(number, 0, 1), _patch_of(video, video[number]))


def _patch_of(video, frame):
    window = video.grid.patch(0, 1)
    return frame[window.y : window.y + window.height, window.x : window.x + window.width]
