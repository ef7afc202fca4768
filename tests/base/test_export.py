# SPDX-License-Identifier: MIT
"""Times of an exported base: frames that show at the same time still follow each other."""

import numpy as np

from nervcodec.base.export import growing


def test_equal_times_are_a_tick_apart_and_others_stay():
    assert growing(np.array([0, 0, 0, 500, 500, 1000])).tolist() == [0, 1, 2, 500, 501, 1000]


def test_times_that_grow_are_left_alone():
    ticks = np.cumsum(np.random.default_rng(0).choice([1, 40, 3000], 500))
    assert (growing(ticks) == ticks).all()
