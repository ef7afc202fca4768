# SPDX-License-Identifier: MIT
"""A fit that was killed goes on where it was."""

import copy
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from fits import begun, moving_square, random_embeddings

import nervcodec
from nervcodec.errors import ConfigError
from nervcodec.fitting.checkpoint import Checkpoint, CheckpointFile, identity
from nervcodec.fitting.config import FitConfig
from nervcodec.fitting.hooks import Hook
from nervcodec.fitting.loop import Loop
from nervcodec.fitting.rate_control import SizeGoal


class TakenAt(Hook):
    """Keeps the state after some steps."""

    def __init__(self, steps):
        self.steps, self.kept = steps, None

    def measured(self, state, facts, done):
        if state.steps == self.steps:
            self.kept = copy.deepcopy(state.to_dict())


def make(config, goal=None):
    return begun(config, embeddings=random_embeddings(), semantic=True, goal=goal)


@pytest.mark.parametrize("at", [7, 31, 58])  # before rounding begins, just after, and near the end
@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_the_rest_of_a_fit_is_the_same(at, optimizer):
    config = FitConfig(epochs=30, batch_size=4, optimizer=optimizer, lr=0.01)
    goal = SizeGoal(9_000, reach=True)
    whole, taken = make(config, goal), TakenAt(at)
    result = Loop(whole, taken, measure_every_s=0.0).run()
    assert result.steps == 60
    torch.manual_seed(99)
    rest = make(config, goal)
    rest.restore(taken.kept)
    again = Loop(rest, measure_every_s=0.0).run()
    assert again.steps == 60
    assert again.elapsed_s > taken.kept["elapsed_s"]
    for (name, a), b in zip(whole.field.named_parameters(), rest.field.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name
    for name, step in result.rounding.items():
        assert np.allclose(step, again.rounding[name], rtol=1e-4), name
    assert rest.rate.weight == pytest.approx(whole.rate.weight, rel=1e-4)


def test_a_state_of_another_network_is_refused():
    state = copy.deepcopy(make(FitConfig(epochs=1)).to_dict())
    other = begun(FitConfig(epochs=1), video=moving_square(6, 32, 32))
    with pytest.raises(ConfigError, match="does not fit"):
        other.restore(state)


def test_checkpoints_are_a_minute_apart(tmp_path):
    now, notes = [0.0], []
    file = CheckpointFile(tmp_path / "a.nerv", Checkpoint("x"), notes.append, clock=lambda: now[0])
    saved = []
    for second in range(0, 200, 10):
        now[0] = float(second)
        saved.append(file.save_if_due(lambda: {"steps": second}))  # noqa: B023 - called at once
    assert [i * 10 for i, done in enumerate(saved) if done] == [10, 70, 130, 190]
    back = CheckpointFile(tmp_path / "a.nerv", Checkpoint("x"), notes.append)
    back.load()
    assert back.current.trainer == {"steps": 190}
    with pytest.raises(ConfigError, match="another source or other options"):
        CheckpointFile(tmp_path / "a.nerv", Checkpoint("y"), notes.append).load()
    file.path.write_bytes(b"junk")
    with pytest.raises(ConfigError, match="cannot be resumed"):
        back.load()
    file.remove()
    with pytest.raises(ConfigError, match="nothing to resume"):
        back.load()
    assert notes == []
    assert identity(1) != identity(2)


def test_a_full_disk_does_not_end_the_fit(tmp_path, monkeypatch):
    now, notes = [0.0], []
    file = CheckpointFile(tmp_path / "a.nerv", Checkpoint("x"), notes.append, clock=lambda: now[0])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    for now[0] in (11.0, 72.0):
        assert not file.save_if_due(dict)
    assert len(notes) == 1
    assert "No space left on device" in notes[0]
    assert list(tmp_path.iterdir()) == []


CHILD = """
import sys
import nervcodec
from nervcodec.fitting import checkpoint
checkpoint.EVERY_S = checkpoint.FIRST_S = 0.3
nervcodec.encode(sys.argv[1], sys.argv[2], duration_s=1.0, segment="0.5s", epochs=60, encoder="none", precision="fp32")
"""


@pytest.mark.slow
def test_killed_and_resumed(carphone, tmp_path):
    options = {"duration_s": 1.0, "segment": "0.5s", "epochs": 60, "encoder": "none", "precision": "fp32"}
    whole = nervcodec.encode(carphone, tmp_path / "whole.nerv", **options)
    out = tmp_path / "killed.nerv"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(carphone), str(out)], env=os.environ.copy())
    checkpoint = tmp_path / "killed.nerv.resume"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    for left in tmp_path.glob(".killed.*"):  # what SIGKILL leaves of a checkpoint that it came in the middle of
        left.unlink()
    with pytest.raises(ConfigError, match="other options"):
        nervcodec.encode(carphone, out, **{**options, "epochs": 61}, resume=True)
    resumed = nervcodec.encode(carphone, out, **options, resume=True)
    assert resumed.steps == whole.steps
    assert resumed.psnr_db == pytest.approx(whole.psnr_db, abs=0.02)
    assert not checkpoint.exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
