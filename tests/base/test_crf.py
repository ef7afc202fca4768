# SPDX-License-Identifier: MIT
"""The search for a crf: it lands, says what is nearest where nothing lands, and needs few trials."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nervcodec.base.crf import BEST, WORST, Search, preset_for, psnr_aim, round_crf, size_aim

# (crf, bytes, dB) of SVT-AV1, preset 5, measured: bikes at half size, carphone and bunny at a round_crf.
MEASURED = {
    "bikes": ([1, 2.75, 6.5, 11.25, 17.25, 22.25, 35, 47.25, 57.25, 63, 70],
              [1033082, 575838, 218184, 115611, 73950, 58328, 30965, 17191, 9923, 4351, 2659],
              [53.45, 50.62, 45.6, 42.9, 40.6, 39.56, 37.0, 34.1, 31.1, 27.28, 24.17]),
    "carphone": ([1, 5, 10.75, 15, 20, 26.75, 35, 47.5, 57.5, 63, 70],
                 [1805272, 575791, 199307, 127803, 85570, 55961, 33777, 18296, 11366, 6170, 3300],
                 [53.86, 46.6, 42.4, 40.8, 39.5, 38.1, 36.4, 33.99, 31.4, 28.2, 25.5]),
    "bunny": ([1, 11, 16.25, 21, 27.25, 35, 45.25, 57, 61, 63, 70],
              [2945014, 359773, 227221, 167117, 119332, 81130, 50696, 26646, 17661, 11217, 7000],
              [53.22, 43.4, 41.9, 40.7, 39.4, 38.0, 35.7, 31.9, 30.3, 28.5, 26.0]),
}  # fmt: skip


def between(at, places, values):
    for a, b, low, high in zip(places, places[1:], values, values[1:], strict=False):
        if at <= b:
            return low + (high - low) * (at - a) / (b - a)
    return values[-1]


def size_of(clip):
    crfs, sizes, _ = MEASURED[clip]
    return lambda crf: between(crf, crfs, [math.log(size) for size in sizes])


def quality_of(clip):
    crfs, _, qualities = MEASURED[clip]
    return lambda crf: between(crf, crfs, qualities)


def found(curve, aim, over_is_worse):
    """(crf, figure, trials)."""
    tried = []

    def attempt(crf):
        assert crf not in tried
        assert crf == round_crf(crf)
        tried.append(crf)
        return curve(crf)

    crf = Search(attempt, aim, over_is_worse).run(35)
    return crf, curve(crf), len(tried)


@pytest.mark.parametrize("clip", MEASURED)
def test_sizes_are_met_in_few_trials(clip):
    counts = []
    for thousands in (8, 15, 30, 45, 80, 150, 190, 199, 250, 400):
        _, figure, trials = found(size_of(clip), size_aim(thousands * 1000, 0.955), True)
        if clip == "bunny" and thousands == 8:
            continue  # is nearly out of reach
        assert 0.955 <= math.exp(figure) / (thousands * 1000) <= 1
        counts.append(trials)
    assert sum(counts) / len(counts) <= 3.5


@pytest.mark.parametrize("clip", MEASURED)
def test_qualities_are_met_in_few_trials(clip):
    counts = []
    for wanted in (30, 32.5, 34, 36, 38.5, 40, 42, 44):
        _, figure, trials = found(quality_of(clip), psnr_aim(wanted, 0.25), False)
        assert wanted <= figure <= wanted + 0.25
        counts.append(trials)
    assert sum(counts) / len(counts) <= 3.5


def test_what_cannot_be_met():
    assert found(size_of("bikes"), size_aim(100, 0.955), True)[0] == WORST
    assert found(size_of("bikes"), size_aim(1e9, 0.955), True)[0] == BEST
    assert found(quality_of("bikes"), psnr_aim(99, 0.25), False)[0] == BEST
    assert found(quality_of("bikes"), psnr_aim(3, 0.25), False)[0] == WORST


def jump(crf):
    return 10.0 if crf <= 40 else 8.0


def test_a_curve_with_a_jump_over_what_is_wanted():
    """The largest size that fits, and the smallest file that is good enough."""
    crf, figure, trials = found(jump, size_aim(math.exp(9), 0.955), True)
    assert (figure, trials <= 7) == (8.0, True)
    crf, figure, trials = found(jump, psnr_aim(9, 0.25), False)
    assert (figure, trials <= 7) == (10.0, True)


@given(
    st.lists(st.floats(0.001, 2.0), min_size=12, max_size=12),
    st.floats(0, 20),
    st.booleans(),
)
def test_any_curve_that_falls(steps, wanted, over_is_worse):
    """It ends, and gives what fits wherever it has found anything that does."""
    crfs = [1 + 69 * i / 12 for i in range(13)]
    values = [20 - sum(steps[:i]) for i in range(13)]
    aim = psnr_aim(wanted, 0.05)
    _, figure, trials = found(lambda crf: between(crf, crfs, values), aim, over_is_worse)
    assert trials <= 7
    if values[-1] < aim.least and aim.most < values[0]:
        assert figure <= aim.most if over_is_worse else figure >= aim.least


@given(st.lists(st.floats(-5, 5), min_size=280, max_size=280), st.booleans())
def test_a_curve_that_does_as_it_likes(noise, over_is_worse):
    aim = size_aim(math.exp(2), 0.955)
    assert found(lambda crf: noise[round(crf * 4) - 1], aim, over_is_worse)[2] <= 7


def test_presets():
    assert preset_for(None, 1e9) == 5
    assert preset_for(1e9, 1) == 2
    assert preset_for(0.0, 1) == 10
    presets = [preset_for(seconds, 100) for seconds in (1, 2, 4, 8, 16, 32, 64)]
    assert presets == sorted(presets, reverse=True)
    assert (round_crf(-3), round_crf(30.1), round_crf(99)) == (BEST, 30, WORST)
