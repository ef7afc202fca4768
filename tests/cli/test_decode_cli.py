# SPDX-License-Identifier: MIT
"""Videos, images and streams from containers, by the real entry point."""

import re
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import nervcodec
from nervcodec.cli.main import cli
from nervcodec.media.source import scan


@pytest.mark.slow
def test_decode_to_video(run, small_nerv, tmp_path):
    result = run("decode", small_nerv, "-o", "a.mp4")
    assert result.returncode == 0, result.stderr
    info = scan(tmp_path / "a.mp4")
    assert (info.frame_count, info.width, info.height, info.frame_rate) == (50, 320, 136, 25)
    assert run("decode", small_nerv, "-o", "a.mp4").returncode == 1
    assert run("decode", small_nerv, "-o", "a.mp4", "--force", "--crf", 40).returncode == 0


@pytest.mark.slow
def test_default_outputs_are_beside_the_container(run, small_nerv, tmp_path):
    copy = tmp_path / "street.nerv"
    copy.write_bytes(small_nerv.read_bytes())
    assert run("decode", "street.nerv").returncode == 0
    assert run("decode", "street.nerv", "--frames").returncode == 0
    assert (tmp_path / "street.mp4").exists()
    assert len(list((tmp_path / "street_frames").iterdir())) == 50


@pytest.mark.slow
def test_decode_some_frames(run, small_nerv, tmp_path):
    assert run("decode", small_nerv, "--frames", "10:20", "-o", "out/").returncode == 0
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [f"frame_{n:05d}.png" for n in range(10, 20)]
    with Image.open(tmp_path / "out" / "frame_00012.png") as image:
        assert np.array_equal(np.asarray(image), nervcodec.open(small_nerv)[12])
    assert run("decode", small_nerv, "--frames", "15", "-o", "out").returncode == 1
    assert run("decode", small_nerv, "--frames", "1s:1.2s", "-o", "times").returncode == 0
    assert len(list((tmp_path / "times").iterdir())) == 5
    assert run("decode", small_nerv, "--frames", "-2:", "-o", "last").returncode == 0
    assert run("decode", small_nerv, "--frames=-1", "-o", "last", "--force").returncode == 0
    assert sorted(p.name for p in (tmp_path / "last").iterdir()) == ["frame_00048.png", "frame_00049.png"]
    for bad in ("50", "-51", "20:10", "x"):
        assert run("decode", small_nerv, "--frames", bad, "-o", "bad").returncode == 2
    assert run("decode", small_nerv, "--frames", "1", "-o", "a.mp4").returncode == 2
    assert not (tmp_path / "bad").exists()


@pytest.mark.slow
def test_decode_a_patch_at_half_size(run, small_nerv, tmp_path):
    assert run("decode", small_nerv, "--frames", "3", "--patch", "1,2", "--scale", 0.5, "-o", "p").returncode == 0
    with Image.open(tmp_path / "p" / "frame_00003.png") as image:
        assert image.size == (40, 34)
    assert run("decode", small_nerv, "--patch", "2,0", "-o", "q.mp4").returncode == 2
    assert run("decode", small_nerv, "--patch", "0,0", "-o", "q.mkv", "-q").returncode == 0


def test_y4m_on_stdout_is_readable_by_ffmpeg(small_nerv, tmp_path):
    nerv = Path(sys.executable).with_name("nervcodec")
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    pipeline = f'"{nerv}" decode "{small_nerv}" -o - | "{ffmpeg}" -v error -i - -f framemd5 -'
    result = subprocess.run(["bash", "-o", "pipefail", "-c", pipeline], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len([line for line in result.stdout.splitlines() if line.startswith("0,")]) == 50


def test_a_closed_pipe_is_no_traceback(small_nerv, tmp_path):
    nerv = Path(sys.executable).with_name("nervcodec")
    result = subprocess.run(
        ["bash", "-c", f'"{nerv}" decode "{small_nerv}" -o - | head -c 100 >/dev/null'],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert "Traceback" not in result.stderr


def test_decode_states_its_memory_or_refuses(small_nerv, tmp_path, monkeypatch):
    command = ["decode", str(small_nerv), "--frames", "0:3", "-o", str(tmp_path / "png"), "--force"]
    assert "of memory" not in CliRunner().invoke(cli, command).stderr
    monkeypatch.setattr("nervcodec.cli.decode._NOTE_PIXELS", 1000)
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0
    assert re.search(r"3 frames of 320 x 136: about [\d.]+ MB of memory, 391.7 KB before compression", result.stderr)
    monkeypatch.setattr("nervcodec.device.physical_memory", lambda: 10**6)
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1
    assert "this machine has 1 MB" in refused.stderr
