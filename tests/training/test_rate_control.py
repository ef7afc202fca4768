# SPDX-License-Identifier: MIT
"""Rate control: weights stay below a size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nervcodec import sizing
from nervcodec.device import choose
from nervcodec.formats import bitstream
from nervcodec.network.build import build, to_arrays
from nervcodec.network.config import Geometry
from nervcodec.network.field import Inputs
from nervcodec.training.config import FitConfig
from nervcodec.training.datasets import SegmentData
from nervcodec.training.loop import TrainingLoop
from nervcodec.training.quantization import QuantizedField
from nervcodec.training.rate_control import RateControl, SizeGoal, encode_to_size, encode_weights
from nervcodec.training.state import FitState


@pytest.fixture(scope="module")
def fitted(carphone):
    """A field fitted for a moment without a limit, and the steps that came of it."""
    return fit(carphone, None)


def fit(carphone, goal):
    from nervcodec.media.reader import read_frames, read_segment
    from nervcodec.media.source import SourceOptions, scan

    options = SourceOptions(duration_s=0.5)
    info = scan(carphone, options)
    frames = read_segment(read_frames(info, options), info.frame_count)
    geometry = Geometry(*frames.shape[:3], 1, 2)
    torch.manual_seed(0)
    field = build(sizing.grid_config(geometry, 60_000, None))
    state = FitState(field, SegmentData(frames), FitConfig(epochs=150), choose("cpu"), goal)
    return field, TrainingLoop(state).run().quantization_steps, state.rate


def test_lambda_rises_above_the_limit_and_falls_back():
    control = RateControl(0.1, limit_bits=2.0)
    for step in range(100):
        control.update(3.0, step / 1000)
    high = control.weight
    assert high > 0.2
    for step in range(100, 1000):
        control.update(1.0, step / 1000)
    assert control.weight == pytest.approx(0.1)


def test_lambda_is_constant_without_a_limit():
    control = RateControl(0.1, None)
    control.update(100.0, 0.1)
    control.update(100.0, 0.9)
    assert control.weight == 0.1
    assert not control.needs_measurement


@pytest.mark.parametrize(("coded_bits", "times", "price"), [(1.2, 1, 0.1), (1.9, 7, 0.1857)])
def test_the_coded_size_is_measured_near_the_limit(coded_bits, times, price):
    control = RateControl(0.1, limit_bits=2.0)
    requested = 0
    for step in range(100):
        control.update(2.4, step / 100)
        if control.needs_measurement:
            requested += 1
            control.calibrate(coded_bits)  # contexts halve it, or nearly
    assert requested == times
    assert control.weight == pytest.approx(price, rel=1e-3)


@pytest.mark.parametrize("coded_bits", [1.9, 2.03, 2.1])
def test_steps_are_widened_near_the_end_above_the_limit(coded_bits):
    control, factors = RateControl(0.1, limit_bits=2.0, reach=True), []
    for step in range(100):
        control.update(2.0, step / 100)
        if control.needs_measurement:
            factors.append(control.calibrate(coded_bits))
    assert factors[:5] == [1.0] * 5  # there is time enough for the price
    aimed = 0.985 * 2.0
    late = 2 ** (coded_bits - aimed) if coded_bits > 1.02 * 2.0 else 1.0
    assert factors[5:] == pytest.approx([late] * 2)
    assert control.state_dict()["_estimate"] <= 2.0


def test_overdue_measurements_are_combined():
    """Of a rate that comes near its limit late: each takes a second or two, of which a fast fit has few."""
    control, requested = RateControl(0.1, limit_bits=2.0), []
    for step in range(100):
        control.update(1.0 if step < 80 else 4.0, step / 100)
        if control.needs_measurement:
            requested.append(step)
            control.calibrate(1.9)
    assert len(requested) == 4  # for the four that were overdue, and at 0.85, 0.91 and 0.96
    assert 80 <= requested[0] < 85 <= requested[1] < 91 <= requested[2] < 96 <= requested[3]


@pytest.mark.slow
def test_widened_steps_keep_the_estimated_distribution(fitted):
    field, *_ = fitted
    rounded = QuantizedField(field, 0.4, 0)
    before = rounded.steps()
    inputs = Inputs(torch.tensor([0, 1]))
    rounded(inputs, False)
    bits = rounded.bits_per_parameter().item()
    rounded.scale_steps(2.0)
    assert all(np.allclose(step, 2 * before[name]) for name, step in rounded.steps().items())
    rounded(inputs, False)
    assert bits - 1.0 <= rounded.bits_per_parameter().item() < bits - 0.5  # a bit less for twice the step


@pytest.mark.slow
def test_a_fit_keeps_to_its_limit(fitted, carphone):
    field, steps, _ = fitted
    limit = 0.6 * encode_weights(field, steps).size
    limited, its_steps, _ = fit(carphone, SizeGoal(limit))
    assert 0.7 * limit < encode_weights(limited, its_steps).size < 1.1 * limit
    assert encode_to_size(limited, its_steps, SizeGoal(limit)).size <= limit


@pytest.mark.slow
def test_steps_are_widened_no_more_than_needed(fitted):
    field, steps, _ = fitted
    free = encode_weights(field, steps).size
    assert np.array_equal(encode_to_size(field, steps, None), encode_weights(field, steps))
    assert np.array_equal(encode_to_size(field, steps, SizeGoal(1.5 * free)), encode_weights(field, steps))
    for share in (0.95, 0.7, 0.4):
        size = encode_to_size(field, steps, SizeGoal(share * free)).size
        assert 0.9 * share * free < size <= share * free


@pytest.mark.slow
def test_the_smallest_stream_is_returned_where_no_step_suffices(fitted):
    field, steps, _ = fitted
    stream = encode_to_size(field, steps, SizeGoal(10))
    assert set(bitstream.decode(stream)) == set(to_arrays(field))


def test_slightly_large_streams_are_shrunk_towards_0(fitted):
    """By as much as it takes: of the values that change, all are nearer to 0, by one step."""
    field, steps, _ = fitted
    free = encode_weights(field, steps)
    before, least = bitstream.read(free), 1
    for limit in (0.998, 0.99):
        stream = encode_to_size(field, steps, SizeGoal(limit * free.size))
        assert stream.size <= limit * free.size
        changed = 0
        for name, tensor in bitstream.read(stream).items():
            if name in steps:
                apart = before[name].integers - tensor.integers
                assert set(np.unique(apart * np.sign(before[name].integers))) <= {0, 1}
                assert np.array_equal(before[name].steps, tensor.steps)
                changed += int((apart != 0).sum())
        count = sum(before[name].integers.size for name in steps)
        assert least <= changed < 0.2 * count
        least = changed


def test_lambda_falls_to_reach_a_size(fitted):
    control = RateControl(0.1, limit_bits=4.0, reach=True)
    for step in range(200):
        control.update(2.0, step / 1000)
    assert control.weight < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--size", "24KB"), ("--bpp", "0.15")])
def test_an_encode_ends_just_below_the_requested_size(run, carphone, tmp_path, arguments):
    out = tmp_path / "a.nerv"
    options = ["--epochs", "30", "--encoder", "none", "--duration", "1s"]
    assert run("encode", carphone, "-o", out, *arguments, *options).returncode == 0
    frames, height, width = 30, 144, 176
    limit_bytes = 24_000 if arguments[0] == "--size" else 0.15 * frames * height * width / 8
    assert 0.85 * limit_bytes < out.stat().st_size <= limit_bytes  # a fit of few steps


@pytest.mark.slow
def test_impossible_sizes_are_refused(run, carphone, tmp_path):
    cases = (1, ["--size", "2KB"]), (1, ["--bpp", "0.001"]), (2, ["--size", "40KB", "--bpp", "0.1"])
    for status, arguments in cases:
        result = run("encode", carphone, "-o", tmp_path / "a.nerv", "--encoder", "none", *arguments)
        assert result.returncode == status
        *progress, complaint = result.stderr.splitlines()
        assert complaint.startswith("nervcodec: ")
        assert progress in ([], ["Reading ..."])
    assert run("encode", carphone, "--size", "big").returncode == 2
    assert list(tmp_path.iterdir()) == []
