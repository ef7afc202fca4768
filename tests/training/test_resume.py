# SPDX-License-Identifier: MIT
"""Checkpoints: a killed fit is resumed."""

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
from nervcodec.training.checkpoint import Checkpoint, identity
from nervcodec.training.config import FitConfig
from nervcodec.training.hooks import Hook
from nervcodec.training.loop import TrainingLoop
from nervcodec.training.rate_control import SizeGoal


class TakenAt(Hook):
    """Keeps the state after some steps."""

    def __init__(self, steps):
        self.steps, self.kept = steps, None

    def measured(self, state, facts, done):
        if state.steps == self.steps:
            self.kept = copy.deepcopy(state.state_dict())


def make(config, goal=None):
    return begun(config, embeddings=random_embeddings(), semantic=True, goal=goal)


@pytest.mark.parametrize("at", [7, 31, 58])  # before rounding begins, just after, and near the end
@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_a_resumed_fit_equals_an_uninterrupted_one(at, optimizer):
    config = FitConfig(epochs=30, batch_size=4, optimizer=optimizer, lr=0.01)
    goal = SizeGoal(9_000, reach=True)
    whole, taken = make(config, goal), TakenAt(at)
    result = TrainingLoop(whole, hooks=[taken], measure_every_s=0.0).run()
    assert result.steps == 60
    torch.manual_seed(99)
    rest = make(config, goal)
    rest.load_state_dict(taken.kept)
    again = TrainingLoop(rest, measure_every_s=0.0).run()
    assert again.steps == 60
    assert again.elapsed_s > taken.kept["elapsed_s"]
    for (name, a), b in zip(whole.field.named_parameters(), rest.field.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name
    for name, step in result.quantization_steps.items():
        assert np.allclose(step, again.quantization_steps[name], rtol=1e-4), name
    assert rest.rate.weight == pytest.approx(whole.rate.weight, rel=1e-4)


def test_a_state_of_another_network_is_refused():
    state = copy.deepcopy(make(FitConfig(epochs=1)).state_dict())
    other = begun(FitConfig(epochs=1), video=moving_square(6, 32, 32))
    with pytest.raises(ConfigError, match="does not fit"):
        other.load_state_dict(state)


def checkpoint(folder, identity="x", warn=pytest.fail, **more):
    return Checkpoint(folder / "a.nerv", identity, warn, **more)


def test_checkpoints_are_a_minute_apart(tmp_path):
    now = [0.0]
    kept = checkpoint(tmp_path, clock=lambda: now[0])
    saved = []
    for second in range(0, 200, 10):
        now[0] = float(second)
        saved.append(kept.save_if_due(lambda: {"steps": second}))  # noqa: B023 - called at once
    assert [i * 10 for i, done in enumerate(saved) if done] == [10, 70, 130, 190]
    back = checkpoint(tmp_path)
    back.load()
    assert back.trainer == {"steps": 190}
    with pytest.raises(ConfigError, match="another source or other options"):
        checkpoint(tmp_path, "y").load()
    (kept.path / "fit").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="cannot be resumed"):
        back.load()
    kept.remove()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="nothing to resume"):
        back.load()
    assert identity(1) != identity(2)


def test_a_file_for_each_finished_segment(tmp_path):
    """None of them is written a second time, and none is kept in memory."""
    kept, now = checkpoint(tmp_path, clock=lambda: 100.0), {}
    assert not kept.save_if_due(dict)
    for number in range(3):
        facts = kept.finish_segment(number, {"stream": torch.full((1000,), number, dtype=torch.uint8), "steps": number})
        assert facts["stream"].tolist() == [number] * 1000
        found = {place.name: place.stat().st_mtime_ns for place in kept.path.iterdir()}
        assert now.items() <= found.items()
        now = found
    assert sorted(now) == ["segment_0", "segment_1", "segment_2"]
    back = checkpoint(tmp_path)
    back.load()
    assert {number: facts["steps"] for number, facts in back.finished.items()} == {0: 0, 1: 1, 2: 2}
    assert back.trainer is None
    (kept.path / "segment_1").unlink()  # those that others made at the same time need not be in order
    back.load()
    assert {number: facts["steps"] for number, facts in back.finished.items()} == {0: 0, 2: 2}


def test_a_checkpoint_of_an_earlier_version_is_refused_and_kept(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("nervcodec.training.checkpoint._VERSION", 1)
        earlier = checkpoint(tmp_path, identity("options"))
        earlier.finish_segment(0, {"steps": 1})
    with pytest.raises(ConfigError, match="belongs to another source or other options; run without --resume"):
        checkpoint(tmp_path, identity("options")).load()
    assert (earlier.path / "segment_0").exists()


def flip(place):
    """Change a byte of a tensor."""
    data = bytearray(place.read_bytes())
    data[data.index(bytes([7]) * 1000) + 500] ^= 1
    place.write_bytes(data)


def test_a_damaged_segment_of_a_checkpoint_is_fitted_again(tmp_path):
    kept = checkpoint(tmp_path, clock=iter([0.0, 99.0, 99.0]).__next__)
    for number in range(3):
        kept.finish_segment(number, {"stream": torch.full((1000,), 7, dtype=torch.uint8), "steps": number})
    flip(kept.path / "segment_1")
    notes = []
    back = checkpoint(tmp_path, warn=notes.append)
    back.load()
    assert {number: facts["steps"] for number, facts in back.finished.items()} == {0: 0, 2: 2}
    assert notes == [f"{kept.path / 'segment_1'}: is damaged; it is fitted again"]
    # Two segments were finished when this was written, but not these two.
    kept.finished.popitem()
    assert kept.save_if_due(lambda: {"steps": 5})
    back.load()
    assert back.trainer is None
    kept.finish_segment(1, {"stream": torch.zeros(1000), "steps": 1})
    kept.finish_shared({"stream": torch.full((1000,), 7, dtype=torch.uint8)})
    flip(kept.path / "shared")
    with pytest.raises(ConfigError, match="is damaged and cannot be resumed"):
        back.load(shares_network=True)


def test_a_damaged_state_of_a_fit_keeps_the_segments(tmp_path):
    kept = checkpoint(tmp_path, clock=iter([0.0, 99.0, 99.0]).__next__)
    kept.finish_segment(0, {"steps": 1})
    assert kept.save_if_due(lambda: {"stream": torch.full((1000,), 7, dtype=torch.uint8)})
    flip(kept.path / "fit")
    notes = []
    back = checkpoint(tmp_path, warn=notes.append)
    back.load()
    assert (back.finished, back.trainer) == ({0: {"steps": 1}}, None)
    assert "fit: is damaged" in notes[0]


def test_an_outdated_state_of_a_fit_is_ignored(tmp_path):
    clock = iter([0.0, 99.0, 99.0]).__next__
    kept = checkpoint(tmp_path, clock=clock)
    assert kept.save_if_due(lambda: {"steps": 5})
    kept.finish_segment(0, {"steps": 9})
    back = checkpoint(tmp_path)
    back.load()
    assert back.trainer is None
    assert back.finished == {0: {"steps": 9}}


def test_a_checkpoint_of_another_encode(tmp_path):
    """Without --resume it is overwritten; what is not ours stays."""
    checkpoint(tmp_path, "old").finish_segment(0, {"steps": 1})
    again = checkpoint(tmp_path, "new")
    again.finish_segment(0, {"steps": 2})
    back = checkpoint(tmp_path, "new")
    back.load()
    assert back.finished == {0: {"steps": 2}}
    (again.path / "notes.txt").write_text("mine")
    again.remove()
    assert [place.name for place in again.path.iterdir()] == ["notes.txt"]


def test_a_file_in_the_way_stays(tmp_path):
    notes = []
    (tmp_path / "a.nerv.resume").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="nothing to resume"):
        checkpoint(tmp_path).load()
    kept = checkpoint(tmp_path, warn=notes.append)
    assert kept.finish_segment(0, {"steps": 1}) == {"steps": 1}
    kept.remove()
    assert len(notes) == 1
    assert "a file of that name is in the way" in notes[0]
    assert kept.path.read_bytes() == b"mine"


def test_a_full_disk_does_not_end_the_fit(tmp_path, monkeypatch):
    now, notes = [0.0], []
    kept = checkpoint(tmp_path, warn=notes.append, clock=lambda: now[0])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    for now[0] in (11.0, 72.0):
        assert not kept.save_if_due(dict)
    assert kept.finish_segment(0, {"steps": 1}) == {"steps": 1}  # kept in memory
    assert len(notes) == 1
    assert "No space left on device" in notes[0]
    assert list(tmp_path.iterdir()) == []


CHILD = """
import sys
import nervcodec
from nervcodec.training import checkpoint
checkpoint.EVERY_S = checkpoint.FIRST_S = 0.3
nervcodec.encode(sys.argv[1], sys.argv[2], duration_s=1.0, segment="0.5s", epochs=60, encoder="none", precision="fp32")
"""


@pytest.mark.slow
def test_killed_and_resumed(carphone, tmp_path):
    options = {"duration_s": 1.0, "segment": "0.5s", "epochs": 60, "encoder": "none", "precision": "fp32"}
    whole = nervcodec.encode(carphone, tmp_path / "whole.nerv", **options)
    out = tmp_path / "killed.nerv"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(carphone), str(out)], env=os.environ.copy())
    left_there = tmp_path / "killed.nerv.resume"
    deadline = time.monotonic() + 60
    while not left_there.exists() and time.monotonic() < deadline:
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
    assert not left_there.exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
