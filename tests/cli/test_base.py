# SPDX-License-Identifier: MIT
"""Files with a base layer by the real command: what each prints, writes and leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from layers import rewritten, stream_of
from PIL import Image

import nervcodec
from nervcodec.formats.container import Container

NERV = str(Path(sys.executable).with_name("nervcodec"))


@pytest.fixture(scope="module")
def searched(carphone, tmp_path_factory):
    """One second with embeddings."""
    out = tmp_path_factory.mktemp("searched") / "a.nerv"
    nervcodec.encode(carphone, out, base="av1", crf=45, duration_s=1.0, encoder="offline")
    return out


# ------------------------------------------------------------------ reports


def test_encode_and_info_and_verify(carphone, run, tmp_path):
    result = run(
        "encode", carphone, "-o", "a.nerv", "--base", "av1", "--duration", "0.5s", "--encoder", "none", "--json"
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["base"]["psnr"] == pytest.approx(report["psnr"], abs=1e-3)
    assert report["steps"] == 0
    facts = json.loads(run("info", "a.nerv", "--json").stdout)
    assert facts["bytes_by_part"]["base"] == report["base"]["bytes"]
    assert facts["base"]["kind"] == "av1"
    assert "10 bit 420, crf 35, " in run("info", "a.nerv").stdout
    assert "whole (1 tensor, 15 frames)" in run("verify", "a.nerv").stdout


@pytest.mark.slow
def test_ranges(layered_nerv, run, tmp_path):
    frames = nervcodec.open(layered_nerv, "cpu")[:]
    for selection, numbers in (("10:20:3", range(10, 20, 3)), ("0.9s:1.1s", range(27, 33)), ("59", [59])):
        folder = tmp_path / selection.replace(":", "_")
        result = run("decode", layered_nerv, "--frames", selection, "-o", folder, "-q")
        assert result.returncode == 0, result.stderr
        assert sorted(p.name for p in folder.iterdir()) == [f"frame_{number:05d}.png" for number in numbers]
        for number in numbers:
            with Image.open(folder / f"frame_{number:05d}.png") as image:
                assert np.array_equal(np.array(image), frames[number])


def test_a_scaled_patch_as_a_video(layered_nerv, run, tmp_path):
    result = run("decode", layered_nerv, "--patch", "1,2", "--scale", "2", "-o", "a.mp4", "-q")
    assert result.returncode == 0, result.stderr
    info = nervcodec.media.source.scan(tmp_path / "a.mp4")
    assert (info.width, info.height, info.frame_count) == (88, 144, 60)


@pytest.mark.slow
def test_eval_with_a_row_for_the_base_layer(layered_nerv, carphone, run, tmp_path):
    result = run("eval", layered_nerv, carphone)
    assert "base layer\t" in result.stdout
    arguments = ("--per-frame", "a.csv", "--report", "a.html", "--json")
    result = run("eval", layered_nerv, carphone, *arguments)
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 61
    assert (tmp_path / "a.html").stat().st_size > 10_000
    report = json.loads(result.stdout)
    assert report["base"] == {"bytes": sum(len(stream_of(layered_nerv, number)) for number in range(2))}


REFUSED = [
    (["--crf", "30"], "--crf has no effect with --base none"),
    (["--base", "av1", "--crf", "30.1"], "must be a multiple of 0.25"),
    (["--base", "av1", "--crf", "30", "--size", "30KB"], "choose one of --crf and --size"),
    (["--vmaf", "93"], "--vmaf has no effect with --base none; it is for --base av1"),
    (["--base", "copy", "--vmaf", "93"], "--vmaf has no effect with --base copy"),
    (["--base", "av1", "--vmaf", "93", "--psnr", "38"], "choose one of --psnr and --vmaf"),
    (["--base", "av1", "--vmaf", "93", "--crf", "38"], "choose one of --crf and --vmaf"),
    (["--base", "av1", "--percentile", "5"], "--percentile has no effect without --vmaf"),
    (["--base", "av1", "--loss", "l1"], "--loss has no effect with --base av1"),
    (["--base", "av1", "--parameters", "5000"], "--parameters has no effect with --base av1"),
    (["--base", "av1", "--time", "9s", "--lr", "1"], "--lr has no effect with --base av1"),
    (["--base", "av1", "--log-dir", "logs"], "--log-dir has no effect with --base av1"),
    (["--base", "av1", "--epochs", "3"], "--epochs has no effect with --base av1"),
    (["--base", "av1", "--seed", "3"], "--seed has no effect with --base av1"),
    (["--base", "av1", "--split", "6_6_10"], "--split has no effect with --base av1"),
    (["--base", "copy", "--seed", "3"], "--seed has no effect with --base copy"),
    (["--preset", "footage", "--epochs", "3"], "--epochs has no effect with --base av1"),
    (["--base", "copy", "--epochs", "3"], "--epochs has no effect with --base copy"),
    (["--base", "copy", "--batch-size", "3"], "--batch-size has no effect with --base copy"),
    (["--base", "av1", "--embed", "pe_1.25_80"], "--base av1 is for --embed grid"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: " ".join(value))
def test_settings_without_effect_are_refused(carphone, run, tmp_path, arguments, message):
    result = run("encode", carphone, "-o", "a.nerv", "--encoder", "none", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_vmaf_in_report_and_json(carphone, run, tmp_path):
    command = ["encode", carphone, "-o", "a.nerv", "--base", "av1", "--vmaf", "85", "--percentile", "5"]
    result = run(*command, "--duration", "1s", "--encoder", "none", "--json")
    assert result.returncode == 0, result.stderr
    vmaf = json.loads(result.stdout)["vmaf"]
    assert (vmaf["percentile"], vmaf["frames"]) == (5, 30)
    assert vmaf["score"] == pytest.approx(85, abs=0.5)


def test_without_libvmaf_nothing_is_written(carphone, run, tmp_path):
    binary = tmp_path / "ffmpeg"
    binary.write_text("#!/bin/sh\necho ffmpeg version 7.1 Copyright\n")
    binary.chmod(0o755)
    command = ["encode", carphone, "-o", "a.nerv", "--base", "av1", "--vmaf", "85", "-q"]
    result = run(*command, "--encoder", "none", IMAGEIO_FFMPEG_EXE=str(binary))
    assert result.returncode == 1
    assert "has no libvmaf, which --vmaf needs" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


@pytest.mark.parametrize("preset", ["fast", "comparable", "hq"])
def test_settings_of_a_preset_that_have_no_effect_are_left_out(preset, carphone, run, tmp_path):
    command = ["encode", carphone, "-o", "a.nerv", "--preset", preset, "--base", "av1", "--crf", "60"]
    result = run(*command, "--duration", "0.2s", "--encoder", "none")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a.nerv").exists()


# ------------------------------------------------------------------ what is not needed


@pytest.mark.slow  # an encoder is loaded three times
def test_search_never_starts_ffmpeg(searched, run, tmp_path):
    command = ("search", "a man", searched, "--min-score", "-2", "--json")
    result = run(*command, IMAGEIO_FFMPEG_EXE=str(tmp_path / "none"))
    assert result.returncode == 0, result.stderr
    results = json.loads(result.stdout)
    with_ffmpeg = json.loads(run(*command).stdout)
    places = [[(moment["frame"], moment["patch"]) for moment in moments] for moments in (results, with_ffmpeg)]
    assert places[0] == places[1]
    assert places[0]


@pytest.mark.parametrize(
    ("arguments", "never"),
    [
        (["info"], ["av", "torch"]),
        (["verify"], ["av", "torch"]),
        (["decode", "-q", "--frames", "3", "-o", "out"], ["torch", "open_clip", "nervcodec.encoding"]),
        (["decode", "-q", "-o", "a.mp4"], ["torch"]),
        (["decode", "-q", "--patch", "0,1", "--frames", "3:5", "-o", "out"], ["torch"]),
        (["decode", "-q", "--base-only", "-o", "a.mp4"], ["torch"]),
    ],
    ids=" ".join,
)
def test_modules_that_are_not_imported(layered_nerv, tmp_path, arguments, never):
    not_imported(layered_nerv, tmp_path, arguments, never)


@pytest.mark.slow  # a file with embeddings
def test_frames_of_a_base_layer_with_embeddings_need_no_torch(searched, tmp_path):
    not_imported(searched, tmp_path, ["decode", "-q", "--frames", "3", "-o", "out"], ["torch"])


def not_imported(path, tmp_path, arguments, never):
    code = (
        "import sys, nervcodec.cli.main as m\n"
        "try:\n    m.main()\n"
        f"finally:\n    print('FOUND', [name for name in {never} if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, arguments[0], str(path), *arguments[1:]]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "FOUND []" in result.stderr


# ------------------------------------------------------------------ damage


def test_verify_and_decode_of_a_hostile_stream(layered_nerv, run, tmp_path):
    path = rewritten(layered_nerv, tmp_path / "a.nerv", {1: b"\x12\x00" * 300})
    result = run("verify", path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"nervcodec: {path}: segment 1: the AV1 stream is empty\n"
    for arguments in (["-o", "a.mp4"], ["-o", "-"], ["--frames", "40:50", "-o", "png"]):
        result = run("decode", path, "-q", *arguments, binary=True)
        assert result.returncode == 1
        assert result.stderr.decode() == f"nervcodec: {path}: the AV1 stream is empty\n"
    assert not (tmp_path / "a.mp4").exists()
    assert list(tmp_path.glob("png/*.png")) == []
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


# ------------------------------------------------------------------ Ctrl-C


def interrupted(tmp_path, arguments, after, seconds=0.3, times=1):
    """Send Ctrl-C to all processes of a command, as a terminal does, after a number of prints of a text."""
    process = subprocess.Popen(
        [NERV, *map(str, arguments)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    heard = ""
    while heard.count(after) < times:
        line = process.stderr.readline()
        assert line, heard
        heard += line
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    out, rest = process.communicate(timeout=100)
    return process.returncode, out, heard + rest


# With so much time the slowest preset of SVT-AV1 is taken, which codes five seconds of bikes in some ten.
SLOW = ["-o", "a.nerv", "--base", "av1", "--encoder", "none", "--time", "200s", "--segment", "5s"]


@pytest.mark.slow
def test_ctrl_c_in_the_first_segment_leaves_nothing(bikes, tmp_path):
    status, _, err = interrupted(tmp_path, ["encode", bikes, *SLOW], "Coding the base")
    assert status == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_in_a_later_segment_keeps_finished_segments(bikes, tmp_path):
    status, _, err = interrupted(tmp_path, ["encode", bikes, *SLOW, "--scale", "0.5"], "Coding the base", times=2)
    assert status == 130, err
    assert "Traceback" not in err
    assert "stopping" in err
    with Container.open(tmp_path / "a.nerv") as opened:
        opened.verify()
        assert opened.header.video.frame_count == 125
        assert not opened.header.fit.complete
    assert nervcodec.open(tmp_path / "a.nerv", "cpu")[:].shape == (125, 136, 320, 3)
