# SPDX-License-Identifier: MIT
"""A segment's task is plain data: it goes to another process and comes back with the same bytes."""

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import too_small_a_gpu

from nervcodec import sizing
from nervcodec.device import Hardware
from nervcodec.encoding import SegmentTask, fit_segment
from nervcodec.encoding.segment import EncodedSegment
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.formats.weights import EMBEDDED
from nervcodec.network.config import Geometry, SemanticConfig
from nervcodec.training.config import FitConfig
from nervcodec.training.datasets import SegmentData
from nervcodec.training.rate_control import SizeGoal


def task(index=1, epochs=6):
    rng = np.random.default_rng(3)
    frames = np.repeat(rng.integers(0, 256, (1, 48, 64, 3), dtype=np.uint8), 6, axis=0)
    frames[:, 10:20, 10:20] = np.arange(6, dtype=np.uint8)[:, None, None, None] * 40
    embeddings = rng.normal(size=(3, 8, 12)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    data = SegmentData(frames, embeddings, np.array([0, 2, 4]))
    head = SemanticConfig(12, rank=4, code_frames=(0, 2, 4))
    network = sizing.grid_config(Geometry(6, 48, 64, 2, 4), 30_000, head)
    return SegmentTask(
        index, 3, 60, data, network, FitConfig(epochs=epochs, seed=5), SizeGoal(20_000), Hardware("cpu", "fp32")
    )


class Stop(Observer):
    def stop_requested(self):
        return True


def fitted_on_one_thread(sent):
    torch.set_num_threads(1)
    return fit_segment(sent)


@pytest.mark.slow
def test_another_process_gives_the_same_bytes():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(fitted_on_one_thread, (task(),))
        again = pool.apply(fitted_on_one_thread, (task(),))
    assert np.array_equal(there.stream, again.stream)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = fit_segment(task())
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(there.stream, here.stream)
    assert np.array_equal(there.psnr_db, here.psnr_db)
    assert there.segment == here.segment
    assert (here.segment.first_frame, here.segment.prefix, here.embedded_frames) == (60, "1/", (0, 2, 4))


def test_a_fit_that_never_began_gives_nothing_but_for_the_first_segment():
    assert fit_segment(task(index=1), Stop()) is None
    first = fit_segment(task(index=0), Stop())
    assert first is not None
    assert not first.complete
    assert first.steps == 0


def test_what_a_checkpoint_keeps_of_a_segment():
    fitted = fit_segment(task(epochs=1))
    back = EncodedSegment.from_state_dict(fitted.state_dict())
    assert np.array_equal(back.stream, fitted.stream)
    assert np.array_equal(back.psnr_db, fitted.psnr_db)
    assert back.segment == fitted.segment
    assert (back.steps, back.parameters, back.complete) == (fitted.steps, fitted.parameters, True)


def test_what_is_said_of_frames_stands_before_the_weights():
    fitted = fit_segment(task(epochs=1))
    lines, _ = bitstream.read_table(fitted.stream)
    assert [line.name for line in lines][:2] == [EMBEDDED, "semantic.codes"]
    assert fitted.embedded_frames == (0, 2, 4)
    assert replace(fitted, stream=np.empty(0, np.uint8)).embedded_frames == ()


def test_a_gpu_too_small_hands_over_to_the_cpu(monkeypatch):
    said = too_small_a_gpu(monkeypatch)
    asked = replace(task(epochs=1), hardware=Hardware("cpu", "bf16"), precision="fp32")
    assert fit_segment(asked).fell_back
    assert said == ["the GPU's memory does not hold this fit at any batch size; it continues on the CPU"]
