# SPDX-License-Identifier: MIT
"""The command line's promises, each by the real entry point."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nervcodec

COMMANDS = ["encode", "decode", "search", "eval", "info", "verify", "presets"]
NONE = ["--encoder", "none"]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
def test_version_and_module(run, tmp_path):
    assert run("--version").stdout.strip() == f"nervcodec, version {nervcodec.__version__}"
    result = subprocess.run(
        [sys.executable, "-m", "nervcodec", "--version"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert nervcodec.__version__ in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run, command):
    result = run(command, "--help")
    assert result.returncode == 0
    assert f"Example: nervcodec {command}" in result.stdout
    assert "--debug" in result.stdout


def test_help_names_all_commands(run):
    text = run("--help").stdout
    assert all(f"\n  {command} " in text for command in COMMANDS)


@pytest.mark.slow
def test_encode_reports_size_and_quality(run, carphone, tmp_path):
    result = run("encode", carphone, "-o", "a.nerv", "--preset", "debug", "--duration", "1s", "--encoder", "none")
    assert result.returncode == 0, result.stderr
    assert "dB PSNR as it is decoded" in result.stdout
    assert "Fitting" in result.stderr
    assert "--base av1" in result.stderr  # a note on so poor a picture
    assert (tmp_path / "a.nerv").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.nerv"]
    again = run("encode", carphone, "-o", "a.nerv", "--encoder", "none")
    assert again.returncode == 1
    assert again.stderr.strip() == "nervcodec: a.nerv: exists already; use --force to overwrite it"
    forced = run("encode", carphone, "-o", "a.nerv", "--encoder", "none", "--epochs", 1, "--force", "--json", "-q")
    assert forced.returncode == 0
    assert forced.stderr == ""
    data = json.loads(forced.stdout)
    assert data["bytes"] == (tmp_path / "a.nerv").stat().st_size
    assert data["complete"] is True


@pytest.mark.slow
def test_encode_options_reach_the_network(run, carphone, tmp_path):
    result = run(
        "encode", carphone, "-o", "a.nerv", "--embed", "pe_1.25_10", "--fc-dim", 8, "--fc-hw", "3_4", "--strides",
        "2,2", "--reduce", 1.5, "--lower-width", 6, "--patches", "1x2", "--crop", "64_96", "--scale", "48x32",
        "--epochs", 1, "--start", "1s", "--duration", "0.5s", "--encoder", "none", "--loss", "Fusion6", "--seed", 3,
        "--lr-type", "cosine_0.1_1_0.1", "--batch-size", 3, "--precision", "fp32", "--device", "cpu",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    header = json.loads(run("info", "a.nerv", "--json").stdout)
    assert header["segments"][0]["network"]["strides"] == [2, 2]
    assert (header["video"]["width"], header["video"]["height"]) == (48, 32)
    assert header["video"]["crop"] == [64, 96]
    assert header["patch_grid"] == [1, 2]
    assert header["video"]["source_start_s"] == 1.0
    assert header["video"]["frame_count"] == 15


@pytest.mark.parametrize(
    "arguments",
    [
        ["--time", "soon"],
        ["--patches", "2"],
        ["--crop", "0_5"],
        ["--scale", "big"],
        ["--loss", "l9"],
        ["--strides", "a"],
        ["--epochs", "0"],
        ["--fps", "1/0"],
        ["--fps", "0"],
        ["--bogus"],
    ],
)
def test_wrong_usage_is_status_2(run, carphone, arguments, tmp_path):
    result = run("encode", carphone, *arguments)
    assert result.returncode == 2
    assert "Error:" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_errors_are_one_line_without_a_traceback(run, tmp_path):
    (tmp_path / "a.mp4").write_text("not a video")
    result = run("encode", "a.mp4")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "a.mp4: no frame could be read" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("nervcodec: ")
    assert "Traceback" in run("encode", "a.mp4", "--debug").stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.slow
def test_an_unavailable_encoder_fails_fast(run, carphone):
    with socket.create_server(("127.0.0.1", 0)) as hub:  # where the command would ask
        hub.setblocking(False)
        address = f"http://127.0.0.1:{hub.getsockname()[1]}"
        result = run("encode", carphone, "--encoder", "openclip:ViT-B-32/laion2b_s34b_b79k", HF_ENDPOINT=address)
        with pytest.raises(BlockingIOError):
            hub.accept()
    assert result.returncode == 1
    assert "HF_HUB_OFFLINE" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_writes_the_best_state_so_far(carphone, tmp_path, name):
    command = [Path(sys.executable).with_name("nervcodec"), "encode", carphone, "-o", "a.nerv", "--time", "10m"]
    process = subprocess.Popen(
        [*map(str, command), "--encoder", "none", "--scale", "0.5"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("Fitting"):
            break
    time.sleep(4)
    process.send_signal(name)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "best state so far" in err
    video = nervcodec.open(tmp_path / "a.nerv")
    assert len(video) == 120
    assert not video.header.fit.complete
    assert [p.name for p in tmp_path.iterdir()] == ["a.nerv"]


@pytest.mark.slow
def test_an_interrupt_while_reading_leaves_nothing(bunny, tmp_path):
    command = [Path(sys.executable).with_name("nervcodec"), "encode", bunny, "-o", "a.nerv", "--encoder", "offline"]
    process = subprocess.Popen(list(map(str, command)), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("Reading"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().endswith("interrupted")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_debug_run_takes_seconds(run, carphone, tmp_path):
    for preset, *arguments in (("default", "--encoder", "offline"), ("comparable", "--fc-dim", 8, *NONE)):
        result = run(
            "encode", carphone, "-o", f"{preset}.nerv", "--preset", preset, "--debug-run", "--json", *arguments
        )
        assert result.returncode == 0, result.stderr
        data = json.loads(result.stdout)
        assert data["frames"] <= 8
        assert data["steps"] <= 20
        assert "epoch 1: fitted" in result.stderr
        assert run("verify", f"{preset}.nerv").returncode == 0


@pytest.mark.slow
def test_encode_stops_at_a_quality(run, carphone):
    result = run("encode", carphone, "-o", "a.nerv", "--psnr", 24, "--time", "60s", "--duration", "1s", "--json", *NONE)
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)
    assert 24 <= data["psnr"] < 28
    assert data["fit_s"] < 50
    assert data["complete"]
    far = run("encode", carphone, "-o", "b.nerv", "--psnr", 60, "--epochs", 2, "--duration", "1s", *NONE)
    assert far.returncode == 0
    assert "dB of the 60 asked for" in far.stderr


def test_presets_need_no_torch(run, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not installed')")
    result = run("presets", "--json", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    data = json.loads(run("presets", "--json").stdout)
    assert {"default", "comparable", "balanced", "fast", "full", "hq"} <= set(data)
    assert data["hq"]["strides"] == "5_3_2_2_2_2"
    assert data["comparable"]["parameters"] > 1_000_000
    assert len(run("presets").stdout.splitlines()) == len(data)


def test_info_adds_up_and_needs_no_torch(run, small_nerv, tmp_path):
    data = json.loads(run("info", small_nerv, "--json").stdout)
    assert sum(data["bytes_by_part"].values()) == data["bytes"] == small_nerv.stat().st_size
    assert {"grids 1/16", "grids 1/8", "grids 1/4", "decoder", "RGB head", "semantic head", "header and tables"} <= set(
        data["bytes_by_part"]
    )
    assert sum(data["parameters_by_part"].values()) == data["parameters"]
    weights = sum(data["bytes_by_part"][part] for part in data["parameters_by_part"])
    assert data["bits_per_parameter"] == pytest.approx(8 * weights / data["parameters"])
    # Contexts and tables: no further than this from what an ideal coder of single values would take.
    assert 0.8 < weights / data["fit"]["entropy_bytes"] < 1.1
    assert "each tensor alone" in run("info", small_nerv).stdout
    assert data["video"]["source_name"] == "bikes.mp4"
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not installed')")
    for command in ("info", "verify"):
        result = run(command, small_nerv, PYTHONPATH=str(tmp_path))
        assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_verify(run, small_nerv, tmp_path):
    assert run("verify", small_nerv).returncode == 0
    blob = bytearray(small_nerv.read_bytes())
    blob[-100] ^= 4
    (tmp_path / "bad.nerv").write_bytes(blob)
    result = run("verify", "bad.nerv")
    assert result.returncode == 1
    assert "damaged (checksum differs)" in result.stderr
    assert run("verify", "none.nerv").returncode == 1
    for command in (["decode", "bad.nerv"], ["info", "bad.nerv"], ["search", "sink", "bad.nerv"]):
        assert run(*command).returncode == 1
    assert sorted(os.listdir(tmp_path)) == ["bad.nerv"]


def test_control_characters_do_not_reach_the_terminal(run, tmp_path):
    name = "evil\x1b[31m.mp4"
    (tmp_path / name).write_text("x")
    assert "\x1b" not in run("encode", name).stderr
