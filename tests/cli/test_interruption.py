# SPDX-License-Identifier: MIT
"""Real processes, killed at random moments, starved of disk, or twenty at once: nothing is half-written or lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forks import Forked
from PIL import Image

import nervcodec
from nervcodec.formats.container import Container
from nervcodec.media.source import scan


@pytest.fixture
def start(forks, tmp_path):
    """Starts a command in an empty folder, or in another."""

    def call(*arguments: object, cwd: Path = tmp_path, **more: int) -> Forked:
        return forks.start(list(map(str, arguments)), cwd, **more)

    return call


def kill_after(process: Forked, seconds: float, number: signal.Signals) -> str:
    try:
        process.wait(seconds)
    except TimeoutError:
        process.send_signal(number)
    return process.communicate(60)[1]


def moments(seed: int, count: int, run_s: float) -> list[tuple[float, signal.Signals]]:
    """Random times and signals for runs that take ``run_s`` seconds without one."""
    rng = random.Random(seed)
    kinds = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    return [(run_s * rng.uniform(0.1, 1.1), rng.choice(kinds)) for _ in range(count)]


def undisturbed_s(process: Forked) -> float:
    begin = time.monotonic()
    _, err = process.communicate(200)
    assert process.returncode == 0, err
    return time.monotonic() - begin


@pytest.mark.slow
def test_encode_killed_at_random_moments(start, carphone, tmp_path):
    out = tmp_path / "a.nerv"
    command = ["encode", carphone, "-o", out, "--time", "1s", "--duration", "1s", "--encoder", "none"]
    for seconds, number in moments(1, 5, undisturbed_s(start(*command))):
        out.unlink(missing_ok=True)
        err = kill_after(start(*command), seconds, number)
        assert "Traceback" not in err
        if out.exists():
            with Container.open(out) as opened:
                opened.verify()
            assert nervcodec.open(out)[0].shape == (144, 176, 3)
        if number != signal.SIGKILL:
            assert not [p for p in tmp_path.iterdir() if p != out], err
        for left in tmp_path.glob(".a.*"):  # what SIGKILL leaves has another name
            left.unlink()
    out.unlink(missing_ok=True)
    undisturbed_s(start(*command))  # nothing that the others left is in its way
    assert out.exists()


@pytest.mark.slow
def test_decode_killed_at_random_moments(start, small_nerv, tmp_path):
    run_s = undisturbed_s(start("decode", small_nerv, "-o", "whole.mp4"))
    for turn, (seconds, number) in enumerate(moments(2, 6, run_s)):
        folder = tmp_path / str(turn)
        folder.mkdir()
        arguments = ["--frames", "-o", "png"] if turn % 2 else ["-o", "a.mp4"]
        kill_after(start("decode", small_nerv, *arguments, cwd=folder), seconds, number)
        if (folder / "a.mp4").exists():
            assert scan(folder / "a.mp4").frame_count == 50
        for image in folder.glob("png/frame_*.png"):
            with Image.open(image) as opened:
                opened.load()
                assert opened.size == (320, 136)


@pytest.mark.slow
def test_search_killed_at_random_moments(start, small_nerv, tmp_path, monkeypatch):
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "another"))
    command = ["search", "a car", small_nerv, "--min-score", "-2"]
    run_s = undisturbed_s(start(*command))
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "cache"))
    for seconds, number in moments(3, 4, run_s):
        assert "Traceback" not in kill_after(start(*command), seconds, number)
    process = start(*command, "--json")
    output, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(output)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.parametrize("command", ["encode", "decode", "frames", "sheet"])
def test_a_full_disk_leaves_no_output(command, start, small_nerv, carphone, tmp_path, monkeypatch):
    arguments = {
        "encode": ["encode", carphone, "-o", "a.nerv", "--epochs", "1", "--duration", "0.2s", "--encoder", "none"],
        "decode": ["decode", small_nerv, "-o", "a.mp4"],
        "frames": ["decode", small_nerv, "--frames", "0:2", "-o", "png"],
        "sheet": ["search", "a car", small_nerv, "--min-score", "-2", "--sheet", "a.png"],
    }[command]
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "cache"))
    process = start(*arguments, largest_file=8_000)  # writing more fails as on a full disk
    _, err = process.communicate(120)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "internal error" not in err
    left = [p for p in tmp_path.rglob("*") if p.is_file() and "cache" not in p.parts]
    assert left == []


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("base", ["av1", "copy"])
def test_a_full_disk_leaves_no_base_layer(base, suffix, start, carphone, tmp_path):
    nervcodec.encode(carphone, tmp_path / "a.nerv", base=base, encoder="none", **({"crf": 60} if base == "av1" else {}))
    process = start("decode", "a.nerv", "--base-only", "-o", f"out{suffix}", largest_file=2_000)
    _, err = process.communicate(120)
    if base == "copy" and suffix == ".webm":  # which does not hold H.264
        assert "does not hold this codec" in err
    else:
        assert (process.returncode, "No space left" in err or "File too large" in err) == (1, True), err
    assert len([line for line in err.splitlines() if "cannot be written" in line]) == 1
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a.nerv"]


INTERRUPTED = """
import os, signal, sys
from nervcodec.cli.main import main
from nervcodec.formats.container import Container

def interrupted(self, *parts, chunks=Container.chunks):
    for piece in chunks(self, *parts):
        os.kill(os.getpid(), signal.SIGINT)
        yield piece

Container.chunks = interrupted
sys.argv = ["nervcodec", "decode", "a.nerv", "--base-only", "-o", sys.argv[1]]
main()
"""


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_ctrl_c_while_a_base_layer_is_written(name, bikes, tmp_path):
    """In the middle of FFmpeg's reading, which hands on no exception."""
    nervcodec.encode(bikes, tmp_path / "a.nerv", base="copy", encoder="none")
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 130, result.stderr
    assert "Traceback" not in result.stderr
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a.nerv"]


@pytest.mark.slow
def test_twenty_processes_at_once(start, small_nerv, tmp_path, monkeypatch):
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    searches = [start("search", "a car", small_nerv, "--json", "--min-score", "-2") for _ in range(5)]
    decodes = [start("decode", small_nerv, "--frames", "10", "-o", f"out{n}") for n in range(15)]
    answers = set()
    for process in searches:
        out, err = process.communicate(280)
        assert process.returncode == 0, err
        answers.add(out)
    assert len(answers) == 1
    for process in decodes:
        _, err = process.communicate(280)
        assert process.returncode == 0, err
    images = {next((tmp_path / f"out{n}").iterdir()).read_bytes() for n in range(15)}
    assert len(images) == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_two_thousand_containers_some_damaged(small_nerv, tmp_path):
    """One pass over a folder; every damaged file is named; memory stays below 1 GB."""
    blob = small_nerv.read_bytes()
    for number in range(2000):
        damaged = number % 100 == 99
        (tmp_path / f"{number:04d}.nerv").write_bytes(blob[: len(blob) // 2] if damaged else blob)
    stamp = time.time()
    for file in tmp_path.iterdir():  # equal contents and times share one entry of the cache
        os.utime(file, (stamp, stamp))
    env = {**os.environ, "NERVCODEC_CACHE": str(tmp_path / "cache")}
    # Not getrusage: after a fork its peak begins at that of the parent, which is pytest here.
    code = (
        "import re, sys, nervcodec.cli.main as m\n"
        "try:\n    m.main()\n"
        "finally:\n    status = open('/proc/self/status').read()\n"
        "    print('PEAK', re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, "search", "a car", str(tmp_path), "--min-score", "-2", "-k", "3"]
    result = subprocess.run(command, capture_output=True, text=True, env=env, timeout=280)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3
    named = {line.split("/")[-1].split(":")[0] for line in result.stderr.splitlines() if "skipped" in line}
    assert named == {f"{n:04d}.nerv" for n in range(99, 2000, 100)}
    peak_kb = int(result.stderr.split("PEAK ")[1].split()[0])
    assert peak_kb < 1_000_000


def test_a_half_written_copy_is_refused(small_nerv, tmp_path):
    """Every prefix is refused with an error of ours."""
    blob = small_nerv.read_bytes()
    target = tmp_path / "a.nerv"
    for length in [0, 1, 7, 8, 9, 100, *random.Random(4).sample(range(len(blob)), 40)]:
        target.write_bytes(blob[:length])
        with pytest.raises(nervcodec.NervError):
            Container.open(target)
