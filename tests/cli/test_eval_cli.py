# SPDX-License-Identifier: MIT
"""What eval measures and writes, by the real entry point."""

import csv
import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
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


@pytest.mark.slow
def test_eval_writes_a_self_contained_page(run, small_nerv, bikes, tmp_path):
    result = run("eval", small_nerv, bikes, "--report", "r.html")
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert page.tags.count("img") == 1 + 3 * 6 + 3
    assert {"table", "figure"} <= set(page.tags)
    assert "script" not in page.tags
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert sources.pop(0).startswith("data:image/png;base64,")  # PSNR over frames
    assert all(value.startswith("data:image/jpeg;base64,") for value in sources)
    for expected in ("Worst frames", "Best frames", "Bytes by part", "nDCG@10", "What search finds"):
        assert expected in page.text
    again = run("eval", small_nerv, bikes, "--report", "r.html")
    assert again.returncode == 1


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
@pytest.mark.parametrize("option", [["--report", "r.html"], ["--against", "x264", "--plot", "rd.png"]], ids=str)
def test_plots_and_reports_without_their_extra_fail_before_any_work(carphone, tmp_path, option, missing):
    golden = Path(__file__).parents[1] / "golden" / "version3_lapped.nerv"
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {missing!r} else find(name, *rest)\n"
        "from nervcodec.cli.main import main\n"
        "sys.exit(main())\n"
    )
    arguments = ["eval", str(golden), str(carphone), *option]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 1
    expected = "nervcodec: plots and reports need matplotlib and Jinja2: pip install 'nervcodec[plots]'\n"
    assert (result.stdout, result.stderr) == ("", expected)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
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
        pixels = np.asarray(image.convert("RGB")).astype(int)
    blue = (abs(pixels - (0x3B, 0x6E, 0xA8)).max(axis=2) < 12).sum()
    assert blue > 2000  # the curve and the bars of bytes by part
    written = (pixels.max(axis=2) < 80).sum()
    assert written > 5000
    colours = np.unique(pixels.reshape(-1, 3) // 8, axis=0)
    assert len(colours) > 1000  # photographs, not broken pictures


@pytest.mark.slow
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
    assert run("eval", small_nerv).returncode == 2
