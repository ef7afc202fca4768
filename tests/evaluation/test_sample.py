# SPDX-License-Identifier: MIT
"""Evaluation of a sample of the frames."""

import json

import pytest

import nervcodec
from nervcodec.errors import ConfigError


@pytest.fixture(scope="module")
def copied(bikes, tmp_path_factory):
    """bikes.mp4 as it is, without embeddings: several shots."""
    path = tmp_path_factory.mktemp("sample") / "bikes.nerv"
    nervcodec.encode(bikes, path, base="copy", encoder="none")
    return path


def test_a_sample_has_frames_of_every_shot_and_the_figures_of_all_frames(copied, bikes):
    everything = {row.frame: row for row in nervcodec.evaluate(copied, bikes, every=1).per_frame}
    report = nervcodec.evaluate(copied, bikes, every=60)
    sampled = [row.frame for row in report.per_frame]
    assert list(everything) == list(range(250))
    assert report.per_frame == [everything[number] for number in sampled]
    with nervcodec.open(copied) as video:
        (segment,) = video.header.segments
        firsts = [0, *segment.network["cuts"], 250]
    assert len(firsts) > 4
    for first, last in zip(firsts, firsts[1:], strict=False):
        assert sum(first <= number < last for number in sampled) in (1, 2)
    data = report.to_json()
    assert (data["frames"], data["sampled_frames"]) == (250, len(sampled))


def test_all_embeddings_of_a_short_video_are_compared(small_nerv, bikes):
    everything, report = (nervcodec.evaluate(small_nerv, bikes, every=every) for every in (1, 25))
    assert len(report.per_frame) < 10
    assert report.semantic == everything.semantic
    assert report.retrieval == everything.retrieval


def test_every_on_the_command_line(run, copied, bikes):
    result = run("eval", copied, bikes, "--every", "100", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["sampled_frames"] < 20
    assert "of 250 frames, from all shots" in run("eval", copied, bikes, "--every", "100").stdout
    assert run("eval", copied, bikes, "--every", "0").returncode == 2
    with pytest.raises(ConfigError, match="at least 1"):
        nervcodec.evaluate(copied, bikes, every=0)
