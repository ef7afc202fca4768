# SPDX-License-Identifier: MIT
"""Times of an exported base: frames that show at the same time still follow each other."""

import numpy as np

from nervcodec.base.export import growing


def test_equal_times_are_a_tick_apart_and_others_stay():
    times = np.array([0.0, 0.0, 0.0, 0.5, 0.5, 1.0])
    grown = growing(times, 1000)
    assert np.allclose(grown, [0, 0.001, 0.002, 0.5, 0.501, 1.0])
    ticks = np.rint(grown * 1000)
    assert (np.diff(ticks) >= 1).all()


def test_times_that_grow_are_left_alone():
    times = np.cumsum(np.random.default_rng(0).choice([0.001, 0.04, 3.0], 500))
    assert np.allclose(growing(times, 90_000), times, atol=1e-9)
