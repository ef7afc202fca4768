# SPDX-License-Identifier: MIT
"""One output is written by one process at a time, and what others put there meanwhile stays."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nervcodec
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.formats.container import read_header
from nervcodec.outputs import locked

SETTINGS = {"duration_s": 0.4, "epochs": 2, "encoder": "none"}


@pytest.fixture
def target(tmp_path):
    return tmp_path / "a.nerv"


def lock_of(target):
    return target.with_name(f".{target.name}.lock")


def test_a_lock_names_its_holder_and_is_gone_afterwards(target):
    with locked(target):
        record = json.loads(lock_of(target).read_text())
        assert (record["host"], record["process"]) == (platform.node(), os.getpid())
        assert abs(record["start"] - time.time()) < 60
        with pytest.raises(ConfigError, match=rf"a\.nerv: is being written by process {os.getpid()}$"), locked(target):
            pass
        assert lock_of(target).exists()
    assert not list(target.parent.iterdir())
    with pytest.raises(SystemExit), locked(target):
        raise SystemExit
    assert not list(target.parent.iterdir())


def ended_process():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize(
    ("host", "process", "age_s", "holder"),
    [
        (platform.node(), os.getppid(), 0, f"process {os.getppid()}"),
        (platform.node(), os.getppid(), 400, None),
        (platform.node(), None, 0, "another process"),
        ("elsewhere", 7, 200, "process 7 of elsewhere"),
        ("elsewhere", 7, 400, None),
    ],
)
def test_a_lock_is_abandoned_when_it_is_not_renewed(host, process, age_s, holder, target):
    lock_of(target).write_text(json.dumps({"host": host, "process": process, "start": 0}))
    then = time.time() - age_s
    os.utime(lock_of(target), (then, then))
    if holder is None:
        with locked(target):
            assert json.loads(lock_of(target).read_text())["process"] == os.getpid()
        assert not lock_of(target).exists()
        return
    with pytest.raises(ConfigError, match=f"is being written by {holder}$"), locked(target):
        pass
    assert lock_of(target).exists()


def test_the_lock_of_a_process_that_is_gone_or_was_killed_while_writing_it(target):
    lock_of(target).write_text(json.dumps({"host": platform.node(), "process": ended_process(), "start": 0}))
    with locked(target):
        pass
    lock_of(target).write_text('{"host": ')
    with pytest.raises(ConfigError, match="is being written by another process$"), locked(target):
        pass


class Acting(Observer):
    """Writes a file where the container will be, once the fit has begun."""

    def __init__(self, target):
        self.target = target

    def step(self, event):
        self.target.write_text("mine")


@pytest.mark.slow
@pytest.mark.parametrize("segment", ["6f", "none"])
def test_a_file_that_appears_meanwhile_is_not_overwritten(segment, carphone, target):
    settings = {**SETTINGS, "segment": segment}
    with pytest.raises(ConfigError, match=r"a\.nerv: appeared during the encode .*; --resume --force writes what is"):
        nervcodec.encode(carphone, target, observer=Acting(target), **settings)
    assert target.read_text() == "mine"
    steps = []
    observer = Observer()
    observer.step = steps.append
    report = nervcodec.encode(carphone, target, observer=observer, resume=True, force=True, **settings)
    assert not steps
    assert read_header(target).video.frame_count == report.frames
    assert os.listdir(target.parent) == ["a.nerv"]
    report = nervcodec.encode(carphone, target, observer=Acting(target), force=True, **settings)
    assert read_header(target).video.frame_count == report.frames


@pytest.mark.slow
def test_two_at_once(carphone, run, tmp_path):
    """Of two encodes of one output the second is refused; of two runs over a folder the second leaves it out."""
    shutil.copy(carphone, tmp_path / "a.mp4")
    script = Path(sys.executable).with_name("nervcodec")
    first = subprocess.Popen(
        [script, "encode", "a.mp4", "--epochs", "100000", "--encoder", "none"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert any(line.startswith("Fitting") for line in first.stderr)
        for more in ([], ["--force"]):
            second = run("encode", "a.mp4", *more)
            assert (second.returncode, second.stdout) == (1, "")
            assert second.stderr == f"nervcodec: a.nerv: is being written by process {first.pid}\n"
        folder = run("encode", ".", "--recursive", "--json")
        assert folder.returncode == 0
        assert f"nervcodec: a.nerv: is being written by process {first.pid}; a.mp4 is skipped\n" in folder.stderr
        (file,) = json.loads(folder.stdout)["files"]
        assert (file["status"], file["reason"]) == ("skipped", f"a.nerv: is being written by process {first.pid}")
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(60)
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "a.nerv"]
