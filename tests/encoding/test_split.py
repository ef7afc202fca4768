# SPDX-License-Identifier: MIT
"""Holding frames out from the fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nervcodec
from nervcodec.errors import ConfigError
from nervcodec.formats.container import read_header
from nervcodec.ranges import FITTED, HELD_OUT, UNUSED, FrameSplit, parse_split


@pytest.mark.parametrize(
    ("text", "fitted", "held_out", "unused"), [("6_6_10", 6, 4, 0), ("8_9_10", 8, 1, 1), ("9_10_10", 9, 1, 0)]
)
def test_a_pattern_has_as_many_frames_of_each_role_as_it_says(text, fitted, held_out, unused):
    roles = parse_split(text).roles(0, 30)
    assert [roles.count(role) for role in (FITTED, HELD_OUT, UNUSED)] == [3 * fitted, 3 * held_out, 3 * unused]
    assert roles[:10] == roles[10:20]


def test_six_of_ten_never_holds_out_two_in_a_row():
    roles = parse_split("6/6/10").roles(0, 100)
    assert all(FITTED in pair for pair in zip(roles, roles[1:], strict=False))


@given(st.lists(st.integers(1, 60), min_size=3, max_size=3).map(sorted), st.integers(0, 200), st.integers(1, 100))
def test_roles_follow_the_pattern_from_any_frame(numbers, first, count):
    split = FrameSplit(*numbers)
    whole = split.roles(0, first + count)
    assert split.roles(first, count) == whole[first:]
    assert whole[0] == FITTED
    assert split.pattern.count(FITTED) == split.fitted


@pytest.mark.parametrize("text", ["", "6_10", "0_1_2", "7_6_10", "6_11_10", "6_6_2000", "a_b_c", "6_6_10_"])
def test_what_is_no_split_is_refused(text):
    with pytest.raises(ConfigError):
        parse_split(text)


@pytest.mark.slow
def test_held_out_frames_are_not_fitted_and_are_told_apart(run, carphone, tmp_path):
    out = tmp_path / "split.nerv"
    arguments = ["--epochs", "2", "--encoder", "offline", "--duration", "1s", "--split", "6_6_10", "--json"]
    report = json.loads(run("encode", carphone, "-o", out, *arguments).stdout)
    header = read_header(out)
    assert header.split == (6, 6, 10)
    roles = parse_split("6_6_10").roles(0, header.video.frame_count)
    with nervcodec.open(out) as video:
        embedded = video.embedded_frames(0)
    assert embedded
    assert all(roles[i] == FITTED for i in embedded)
    table = tmp_path / "frames.csv"
    judged = json.loads(run("eval", out, carphone, "--per-frame", table, "--json").stdout)
    assert judged["train"]["frames"] == roles.count(FITTED)
    assert judged["val"]["frames"] == roles.count(HELD_OUT)
    assert judged["train"]["psnr"] == pytest.approx(report["psnr"], abs=0.02)
    assert judged["val"]["psnr"] == pytest.approx(report["held_out_psnr"], abs=0.02)
    assert judged["train"]["bytes"] == judged["bytes"] == out.stat().st_size
    assert {"psnr", "ssim", "ms_ssim", "bpp", "bytes"} <= set(judged["val"])
    rows = table.read_text().splitlines()
    assert rows[0] == "frame,psnr_db,ssim,ms_ssim,role,cosine"
    assert rows[3].split(",")[4] == HELD_OUT
    assert "held out" in run("eval", out, carphone).stdout


def test_the_fit_never_sees_a_held_out_frame(carphone):
    import torch

    from nervcodec.device import choose
    from nervcodec.network.build import build, to_arrays
    from nervcodec.network.config import Geometry
    from nervcodec.sizing import SegmentTraits, grid_config
    from nervcodec.training.config import FitConfig
    from nervcodec.training.datasets import SegmentData
    from nervcodec.training.loop import TrainingLoop
    from nervcodec.training.state import FitState

    geometry = Geometry(10, 32, 48, 1, 2)
    fitted = np.array(parse_split("6_6_10").roles(0, 10)) == FITTED
    frames = np.random.default_rng(0).integers(0, 256, (10, 32, 48, 3), dtype=np.uint8)
    other = np.where(fitted[:, None, None, None], frames, 255 - frames)
    weights = []
    for pixels in (frames, other):
        torch.manual_seed(0)
        field = build(grid_config(geometry, 30_000, None, SegmentTraits(int(fitted.sum()))))
        data = SegmentData(pixels, fitted=fitted)
        result = TrainingLoop(FitState(field, data, FitConfig(epochs=3), choose("cpu", "fp32"))).run()
        assert result.steps == 3  # six frames are one batch
        weights.append(to_arrays(field))
    for name, values in weights[0].items():
        np.testing.assert_array_equal(values, weights[1][name])
