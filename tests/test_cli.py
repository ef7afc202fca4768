# SPDX-License-Identifier: MIT
"""The command line's promises, each by the real entry point."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import nervcodec
from nervcodec.cli.main import cli
from nervcodec.video.source import scan

COMMANDS = ["encode", "decode", "search", "eval", "info", "verify", "presets"]
NONE = ["--encoder", "none"]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


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


def test_encode_says_what_it_did(run, carphone, tmp_path):
    result = run("encode", carphone, "-o", "a.nerv", "--preset", "debug", "--duration", "1s", "--encoder", "none")
    assert result.returncode == 0, result.stderr
    assert "dB PSNR after quantisation" in result.stdout
    assert "Fitting" in result.stderr
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


def test_an_encoder_that_cannot_be_had_fails_fast(run, carphone):
    start = time.monotonic()
    result = run("encode", carphone, "--encoder", "openclip:ViT-B-32/laion2b_s34b_b79k")
    assert result.returncode == 1
    assert "HF_HUB_OFFLINE" in result.stderr
    assert time.monotonic() - start < 60  # it retries nothing


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


def test_decode_to_video(run, small_nerv, tmp_path):
    result = run("decode", small_nerv, "-o", "a.mp4")
    assert result.returncode == 0, result.stderr
    info = scan(tmp_path / "a.mp4")
    assert (info.frame_count, info.width, info.height, info.frame_rate) == (50, 320, 136, 25)
    assert run("decode", small_nerv, "-o", "a.mp4").returncode == 1
    assert run("decode", small_nerv, "-o", "a.mp4", "--force", "--crf", 40).returncode == 0


def test_default_outputs_stand_beside_the_container(run, small_nerv, tmp_path):
    copy = tmp_path / "street.nerv"
    copy.write_bytes(small_nerv.read_bytes())
    assert run("decode", "street.nerv").returncode == 0
    assert run("decode", "street.nerv", "--frames").returncode == 0
    assert (tmp_path / "street.mp4").exists()
    assert len(list((tmp_path / "street_frames").iterdir())) == 50


def test_decode_some_frames(run, small_nerv, tmp_path):
    assert run("decode", small_nerv, "--frames", "10:20", "-o", "out/").returncode == 0
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [f"frame_{n:05d}.png" for n in range(10, 20)]
    with Image.open(tmp_path / "out" / "frame_00012.png") as image:
        assert np.array_equal(np.asarray(image), nervcodec.open(small_nerv)[12])
    assert run("decode", small_nerv, "--frames", "15", "-o", "out").returncode == 1
    assert run("decode", small_nerv, "--frames", "1s:1.2s", "-o", "times").returncode == 0
    assert len(list((tmp_path / "times").iterdir())) == 5
    for bad in ("50", "20:10", "x"):
        assert run("decode", small_nerv, "--frames", bad, "-o", "bad").returncode == 2
    assert run("decode", small_nerv, "--frames", "1", "-o", "a.mp4").returncode == 2
    assert not (tmp_path / "bad").exists()


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


def test_search_json(run, small_nerv):
    result = run("search", "a bicycle", small_nerv, "--json", "-k", 3, "--min-score", -1)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert 1 <= len(found) <= 3
    for row in found:
        assert set(row) == {"score", "file", "start", "end", "frame", "patch", "box"}
        assert row["file"] == str(small_nerv)
        assert 0 <= row["start"] < row["end"] <= 2.0
        assert len(row["patch"]) == 2
        x, y, w, h = row["box"]
        assert x + w <= 320
        assert y + h <= 136


def test_search_below_the_current_folder(run, small_nerv, tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "one.nerv").write_bytes(small_nerv.read_bytes())
    (tmp_path / "two.nerv").write_bytes(small_nerv.read_bytes())
    (tmp_path / "broken.nerv").write_bytes(small_nerv.read_bytes()[:5000])
    result = run("search", "sink", "--min-score", -1)
    assert result.returncode == 0
    assert {line.split("\t")[1] for line in result.stdout.splitlines()} == {"a/b/one.nerv", "two.nerv"}
    assert result.stderr.count("broken.nerv") == 1
    assert run("search", "sink", "two.nerv", "--min-score", 2).stdout == ""


def test_search_without_a_container(run, tmp_path):
    result = run("search", "sink")
    assert result.returncode == 1
    assert "no .nerv file below the current folder" in result.stderr
    assert run("search", " ").returncode == 2


def test_search_by_image_and_by_patch(run, small_nerv, tmp_path):
    Image.fromarray(nervcodec.open(small_nerv)[30]).save(tmp_path / "like.png")
    result = run("search", "--image", "like.png", small_nerv, "--json", "--per-patch", "-k", 4)
    assert len(json.loads(result.stdout)) == 4
    assert run("search", "--image", "none.png", small_nerv).returncode == 2
    (tmp_path / "no.png").write_text("x")
    result = run("search", "--image", "no.png", small_nerv)
    assert result.returncode == 1
    assert "no.png: is no image" in result.stderr


def test_a_query_that_matches_nothing_says_so(run, small_nerv):
    result = run("search", "a giraffe in a swimming pool", small_nerv)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert 'nothing matches "a giraffe in a swimming pool"' in result.stderr
    assert json.loads(run("search", "a giraffe in a swimming pool", small_nerv, "--json").stdout) == []
    assert run("search", "a giraffe in a swimming pool", small_nerv, "--min-score", -2, "-k", 2).stdout


def test_queries_are_added_and_subtracted(run, small_nerv):
    alone, both, less = (
        json.loads(run("search", *words, small_nerv, "--json", "--per-patch", "-k", 400).stdout)
        for words in (["a car"], ["a car", "+", "a bicycle"], ["a car", "-", "a bicycle"])
    )
    assert len(alone) == len(both) == len(less) == 400
    order = [[(row["frame"], *row["patch"]) for row in rows] for rows in (alone, both, less)]
    assert order[0] != order[1] != order[2]
    assert run("search", "a car", "+").returncode == 2
    cancelled = run("search", "a car", "-", "a car", small_nerv)
    assert cancelled.returncode == 1
    assert "cancel each other out" in cancelled.stderr


def test_words_that_are_no_file_are_a_usage_error(run, small_nerv):
    result = run("search", "a", "red", "car", small_nerv)
    assert result.returncode == 2
    assert "quotation marks" in result.stderr


def test_search_draws_a_sheet_clips_and_a_preview(run, small_nerv, tmp_path):
    arguments = ["search", "a bicycle", small_nerv, "--min-score", -1, "-k", 3]
    result = run(*arguments, "--sheet", "sheet.png", "--clips", "clips", "--preview")
    assert result.returncode == 0, result.stderr
    found = json.loads(run(*arguments, "--json").stdout)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 300 * len(found)
        red = np.asarray(sheet.convert("RGB")).astype(int)
    assert ((red[..., 0] > 200) & (red[..., 1] < 110)).sum() > 300  # outlines
    clips = sorted((tmp_path / "clips").iterdir())
    assert len(clips) == len(found)
    for clip, row in zip(clips, found, strict=True):
        assert scan(clip).frame_count == round((row["end"] - row["start"]) * 25)
    assert result.stdout.count("▀") > 100
    again = run(*arguments, "--sheet", "sheet.png")
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert run(*arguments, "--clips", "clips").returncode == 1
    assert run(*arguments, "--sheet", "sheet.png", "--clips", "clips", "--force").returncode == 0


def test_eval_against_other_codecs(run, small_nerv, bikes, tmp_path):
    (tmp_path / "own.txt").write_text("a car\n\na wheel\n")
    result = run("eval", small_nerv, bikes, "--json", "--against", "x264", "--plot", "rd.png", "--queries", "own.txt")
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)
    best, *others = data["against"]
    assert best["codec"] == "x264 veryslow"
    assert best["bytes"] <= data["bytes"]
    assert {"setting", "bpp", "psnr", "ms_ssim", "vmaf", "encode_s", "decode_s"} <= set(best)
    assert best["psnr"] > data["psnr"]  # two seconds of fitting
    assert 0 < data["vmaf"] <= 100
    assert sorted([best, *others], key=lambda p: p["bytes"]) == sorted([best, *others], key=lambda p: p["psnr"])
    with Image.open(tmp_path / "rd.png") as plot:
        assert plot.width > 500
    assert run("eval", small_nerv, bikes, "--plot", "b.png").returncode == 2
    assert run("eval", small_nerv, bikes, "--against", "h263").returncode == 2
    (tmp_path / "empty.txt").write_text("\n")
    assert "holds no query" in run("eval", small_nerv, bikes, "--queries", "empty.txt").stderr


class Page(HTMLParser):
    """Tags in order, and what is between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


def test_eval_writes_one_page_that_needs_no_network(run, small_nerv, bikes, tmp_path):
    result = run("eval", small_nerv, bikes, "--report", "r.html")
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert page.tags.count("img") == 3 * 6 + 3
    assert {"svg", "polyline", "table", "figure"} <= set(page.tags)
    assert "script" not in page.tags
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert all(value.startswith("data:image/jpeg;base64,") for value in sources)
    for wanted in ("Worst frames", "Best frames", "Bytes by part", "nDCG@10", "What search finds"):
        assert wanted in page.text
    again = run("eval", small_nerv, bikes, "--report", "r.html")
    assert again.returncode == 1


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; on Debian: apt-get install chromium")
def test_a_browser_shows_the_page_with_its_pictures(run, small_nerv, bikes, tmp_path):
    assert run("eval", small_nerv, bikes, "--report", "r.html").returncode == 0
    result = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,3600",
            f"--screenshot={tmp_path / 'page.png'}", (tmp_path / "r.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (tmp_path / "page.png").exists(), result.stderr
    with Image.open(tmp_path / "page.png") as image:
        shown = np.asarray(image.convert("RGB")).astype(int)
    blue = (abs(shown - (0x3B, 0x6E, 0xA8)).max(axis=2) < 12).sum()
    assert blue > 2000  # the curve and the bars of bytes by part
    written = (shown.max(axis=2) < 80).sum()
    assert written > 5000
    colours = np.unique(shown.reshape(-1, 3) // 8, axis=0)
    assert len(colours) > 1000  # photographs, not broken pictures


def test_a_debug_run_takes_seconds(run, carphone, tmp_path):
    for preset in ("default", "comparable"):
        result = run(
            "encode", carphone, "-o", f"{preset}.nerv", "--preset", preset, "--debug-run", "--encoder", "offline",
            "--json",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        data = json.loads(result.stdout)
        assert data["frames"] <= 8
        assert data["steps"] <= 20
        assert "epoch 1: fitted" in result.stderr
        assert run("verify", f"{preset}.nerv").returncode == 0


def test_encode_stops_at_a_quality(run, carphone):
    result = run("encode", carphone, "-o", "a.nerv", "--psnr", 24, "--time", "60s", "--duration", "1s", "--json", *NONE)
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)
    assert 24 <= data["psnr"] < 28
    assert data["fit_s"] < 50
    assert data["complete"]
    far = run("encode", carphone, "-o", "b.nerv", "--psnr", 60, "--time", "2s", "--duration", "1s", *NONE)
    assert far.returncode == 0
    assert "dB of the 60 asked for" in far.stderr


def test_presets(run):
    data = json.loads(run("presets", "--json").stdout)
    assert {"default", "comparable", "balanced", "fast", "full", "hq"} <= set(data)
    assert data["hq"]["strides"] == "5_3_2_2_2_2"
    assert data["comparable"]["parameters"] > 1_000_000
    assert len(run("presets").stdout.splitlines()) == len(data)


def test_eval_json(run, small_nerv, bikes, tmp_path):
    result = run(
        "eval", small_nerv, bikes, "--json", "--per-frame", "t.csv", "--per-patch", "p.csv", "--dump-images", "pairs"
    )
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)
    assert {"psnr", "ssim", "ms_ssim", "bpp", "bytes", "semantic", "retrieval", "decode_fps"} <= set(data)
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 51
    with (tmp_path / "p.csv").open() as file:
        patches = list(csv.DictReader(file))
    assert len(patches) == 50 * 8
    assert {row["role"] for row in patches} == {"train"}
    assert sum(row["cosine"] != "" for row in patches) == 8 * 10  # five frames a second are embedded
    assert all(0 < float(row["ssim"]) < 1 and 5 < float(row["psnr_db"]) < 60 for row in patches)
    with Image.open(next((tmp_path / "pairs").iterdir())) as image:
        assert image.size == (960, 136)
        source, decoded, difference = np.split(np.asarray(image).astype(int), 3, axis=1)
    assert (difference == np.minimum(8 * abs(source - decoded), 255)).all()
    assert data["between_patches"]["positions"] == 4 * 13
    assert abs(data["between_patches"]["drop_db"]) < 0.05  # a window of the same field
    assert run("eval", small_nerv).returncode == 2


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


def test_decode_says_what_it_takes_or_that_it_cannot(small_nerv, tmp_path, monkeypatch):
    command = ["decode", str(small_nerv), "--frames", "0:3", "-o", str(tmp_path / "png"), "--force"]
    assert "of memory" not in CliRunner().invoke(cli, command).stderr
    monkeypatch.setattr("nervcodec.cli.decode._MANY_PIXELS", 1000)
    said = CliRunner().invoke(cli, command)
    assert said.exit_code == 0
    assert re.search(r"3 frames of 320 x 136: about [\d.]+ MB of memory, 391.7 KB before compression", said.stderr)
    monkeypatch.setattr("nervcodec.device.physical_memory", lambda: 10**6)
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1
    assert "this machine has 1 MB" in refused.stderr


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
