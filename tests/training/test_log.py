# SPDX-License-Identifier: MIT
"""What --log-dir writes, read back with TensorBoard's own reader."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from fits import begun, random_embeddings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import nervcodec
from nervcodec import sizing
from nervcodec.device import Hardware
from nervcodec.network.build import build
from nervcodec.network.config import Geometry, SemanticConfig
from nervcodec.training.config import FitConfig
from nervcodec.training.datasets import SegmentData
from nervcodec.training.hooks import TensorBoardLog
from nervcodec.training.loop import TrainingLoop
from nervcodec.training.state import FitState


def read(folder) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0})
    events.Reload()
    return events


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A short fit with held-out frames and embeddings, every step of it logged."""
    folder = tmp_path_factory.mktemp("log")
    video = np.full((8, 48, 64, 3), 60, np.uint8)
    for i in range(8):
        video[i, 10:30, 4 + 4 * i : 24 + 4 * i] = (220, 120, 30)
    fitted = np.array([True, True, True, False] * 2)
    field = build(sizing.grid_config(Geometry(8, 48, 64, 2, 4), 30_000, SemanticConfig(12, code_frames=(0, 2, 4, 6))))
    data = SegmentData(
        video, random_embeddings(), np.array([0, 2, 4, 6]), fitted, random_embeddings()[:1], np.array([3])
    )
    config = FitConfig(epochs=20, batch_size=3, pixel_warmup=5)
    state = FitState(field, data, config, Hardware("cpu", "fp32"))
    TrainingLoop(state, hooks=[TensorBoardLog(folder, share=100.0)], measure_every_s=0.0).run()
    return read(folder)


@pytest.mark.slow
def test_at_least_forty_scalars_of_every_kind(logged):
    tags = logged.Tags()["scalars"]
    assert len(tags) >= 40
    for wanted in (
        "loss/total", "loss/pixel", "loss/semantic", "loss/semantic_weighted", "loss/semantic_over_pixel",
        "loss/semantic_active", "gradient/decoder", "gradient/rgb_head", "gradient/semantic_head",
        "gradient/semantic_over_rgb", "weights/decoder_std", "fitted/psnr_by_frame_mean", "fitted/psnr_by_patch_std",
        "held_out/psnr_by_frame_min", "fitted/similarity_by_frame_max", "held_out/similarity_by_patch_min",
        "progress/logging_share", "quality/fitted_less_held_out",
        "counts/frames_fitted", "counts/frames_held_out", "counts/patches", "learning_rate/muon_0_0",
    ):  # fmt: skip
        assert wanted in tags, wanted
    assert any(tag.startswith("activations/") for tag in tags)
    assert logged.Tags()["histograms"]
    assert any(tag.startswith("held_out/frame_") for tag in logged.Tags()["images"])


@pytest.mark.slow
def test_the_semantic_loss_is_zero_during_the_warm_up(logged):
    active = [e.value for e in logged.Scalars("loss/semantic_active")]
    steps = [e.step for e in logged.Scalars("loss/semantic_active")]
    weighted = [e.value for e in logged.Scalars("loss/semantic_weighted")]
    gradient = [e.value for e in logged.Scalars("gradient/semantic_head")]
    for step, on, loss, norm in zip(steps, active, weighted, gradient, strict=True):
        if step <= 10:  # two steps an epoch, five epochs of warm-up
            assert (on, loss, norm) == (0, 0, 0)
    assert max(active[10:]) == 1
    assert max(weighted[10:]) > 0
    assert max(gradient[10:]) > 0


@pytest.mark.slow
def test_counts_and_quality_are_those_of_the_fit(logged):
    assert logged.Scalars("counts/frames_fitted")[0].value == 6
    assert logged.Scalars("counts/frames_held_out")[0].value == 2
    psnr = [e.value for e in logged.Scalars("fitted/psnr_by_frame_mean")]
    assert psnr[-1] > psnr[0] + 3


@pytest.mark.slow
def test_every_tag_is_documented(logged):
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    documented, group = [], ""
    for span in re.findall(r"`([^`]+)`", page.partition("| tags | |")[2].partition("Histograms")[0]):
        group = span.rpartition("/")[0] or group  # a name without a group has that of the name before it
        documented.append(f"{group}/{span.rpartition('/')[2]}")
    assert len(documented) > 30
    wildcards = {"KIND": r"\\w+", "BLOCK": r"\\w+", "PART": r"\\w+", "N": r"\\d+", "ROLE": "(fitted|held_out)"}
    for wildcard, meaning in wildcards.items():
        documented = [re.sub(rf"(?<![A-Z]){wildcard}(?![A-Z])", meaning, tag) for tag in documented]
    for tag in logged.Tags()["scalars"]:
        assert any(re.fullmatch(pattern, tag) for pattern in documented), tag


@pytest.mark.slow
def test_held_out_similarity_of_an_encode(carphone, tmp_path):
    folder = tmp_path / "log"
    nervcodec.encode(
        carphone, tmp_path / "a.nerv", epochs=3, duration_s=0.5, split="6_6_10", encoder="offline", log_dir=str(folder),
    )  # fmt: skip
    values = [e.value for e in read(folder).Scalars("held_out/similarity_by_frame_mean")]
    assert 0.5 < values[-1] < 1


@pytest.mark.slow
def test_every_fit_of_several_segments_has_a_log(carphone, tmp_path, monkeypatch):
    monkeypatch.setattr(sizing, "SAMPLE_BYTES", 0)
    log = tmp_path / "log"
    nervcodec.encode(
        carphone, tmp_path / "a.nerv", epochs=3, duration_s=1.0, segment="0.5s", encoder="none", log_dir=str(log)
    )
    expected = ["segment_0", "segment_1", "segment_2", "shared"]
    assert sorted(folder.name for folder in log.iterdir()) == expected
    for fit in expected:
        assert len(read(log / fit).Tags()["scalars"]) >= 40


@pytest.mark.slow
def test_logging_takes_little_of_the_fit(tmp_path):
    """On a clock of which every look takes as much as a step."""
    state, ticks = begun(FitConfig(time_s=3.0, batch_size=4)), itertools.count()

    def clock() -> float:
        return next(ticks) / 100

    TrainingLoop(state, hooks=[TensorBoardLog(tmp_path, clock=clock)], measure_every_s=0.0, clock=clock).run()
    shares = [event.value for event in read(tmp_path).Scalars("progress/logging_share")]
    assert 1 < len(shares) < state.steps / 10
    assert shares[-1] < 0.03
