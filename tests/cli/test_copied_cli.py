# SPDX-License-Identifier: MIT
"""``encode --base copy`` and what the other commands make of its files, by the real entry point."""

import json
import subprocess
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import pytest

import nervcodec
from nervcodec.formats.container import read_header
from nervcodec.media.source import scan

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def kitchen(bunny, tmp_path_factory):
    """Kitchen.mp4, half a second with sound."""
    source = tmp_path_factory.mktemp("kitchen") / "Kitchen.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(bunny), "-t", "0.5", "-vf", "scale=128:72"]
    subprocess.run([*command, "-c:a", "copy", str(source)], check=True)
    return source


@pytest.fixture(scope="module")
def container(kitchen, tiny_clip):
    nervcodec.encode(kitchen, base="copy", encoder=tiny_clip)
    return kitchen.with_suffix(".nerv")


def packets(path):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-map", "0:V", "-c", "copy"]
    return subprocess.run([*command, "-f", "streamhash", "-"], check=True, capture_output=True).stdout


def test_a_copy_is_encoded_and_written_out_again(kitchen, run, tmp_path):
    result = run("encode", kitchen, "-o", "a.nerv", "--base", "copy", "--encoder", "none")
    assert result.returncode == 0, result.stderr
    assert "the source's own h264 packets" in result.stdout
    assert "the same pixels as the source" in result.stdout
    assert "larger than its source" not in result.stderr
    result = run("decode", "a.nerv", "--base-only", "-o", "a.mp4")
    assert (result.returncode, result.stdout) == (0, "a.mp4, 13 frames\n"), result.stderr
    assert packets(tmp_path / "a.mp4") == packets(kitchen)
    assert run("verify", "a.nerv").returncode == 0
    facts = json.loads(run("info", "a.nerv", "--json").stdout)
    assert (facts["base"]["kind"], facts["base"]["codec"], facts["fit"]["psnr_db"]) == ("copy", "h264", 100)
    assert "copy, h264, 128x72" in run("info", "a.nerv").stdout


def test_encode_json(kitchen, run):
    result = run("encode", kitchen, "-o", "a.nerv", "--base", "copy", "--encoder", "none", "--json", "-q")
    facts = json.loads(result.stdout)
    assert (facts["psnr"], facts["steps"], facts["parameters"], facts["complete"]) == (100, 0, 0, True)
    assert (facts["base"]["copied"], facts["base"]["psnr"]) == ("h264", 100)
    assert facts["bytes"] > facts["base"]["bytes"]
    assert result.stderr == ""


@pytest.mark.parametrize(
    "option",
    [
        ["--size", "1MB"], ["--bpp", "1"], ["--psnr", "40"], ["--crf", "30"], ["--time", "3s"], ["--epochs", "2"],
        ["--start", "1s"], ["--duration", "1s"], ["--crop", "64_64"], ["--scale", "0.5"], ["--split", "6_6_10"],
    ],
    ids=lambda option: option[0],
)  # fmt: skip
def test_options_that_a_copy_cannot_follow_are_refused(option, kitchen, run, tmp_path):
    result = run("encode", kitchen, "-o", "a.nerv", "--base", "copy", *option)
    assert result.returncode != 0
    assert f"{option[0]} has no effect with --base copy" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_of_images(bikes, run, tmp_path, ffmpeg):
    (tmp_path / "shots").mkdir()
    ffmpeg("-i", bikes, "-frames:v", "2", "-vf", "scale=64:48", tmp_path / "shots" / "%03d.png")
    result = run("encode", "shots", "--base", "copy", "-q")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert "is a folder of images, which has no stream to copy; --base av1 encodes it again" in result.stderr
    assert not (tmp_path / "shots.nerv").exists()


@pytest.mark.slow
def test_search_starts_no_ffmpeg(container, run, tmp_path):
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    trap.chmod(0o755)
    result = run("search", "a rabbit", container, "--json", "--min-score", "-1", IMAGEIO_FFMPEG_EXE=str(trap))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)
    assert not (tmp_path / "started").exists()


def test_a_file_with_the_embeddings_inside(container, run, tmp_path, kitchen):
    header = read_header(container)
    assert header.semantic is not None
    result = run("decode", container, "--frames", "5", "-o", "frames")
    assert result.returncode == 0, result.stderr
    result = run("decode", container, "-o", "again.mkv", "--patch", "0,1")
    assert result.returncode == 0, result.stderr
    assert "128" not in run("info", container, "--json").stderr


def test_a_damaged_stream_is_one_line(container, run, tmp_path):
    data = bytearray(container.read_bytes())
    data[-1000] ^= 255  # the base layer lies last
    (tmp_path / "broken.nerv").write_bytes(data)
    for more in (["-o", "a.mp4"], ["-o", "a.mp4", "--base-only"], ["--frames", "3", "-o", "frames"]):
        result = run("decode", "broken.nerv", *more, "-q")
        assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
        assert "broken.nerv: tensor" in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["broken.nerv"]


def test_a_container_is_no_source(run, tmp_path):
    result = run("encode", GOLDEN / "version3_grid.nerv", "-o", "again.nerv")
    assert result.returncode == 1
    assert "is a container already; nervcodec decode makes a video of it" in result.stderr
    assert not (tmp_path / "again.nerv").exists()


@pytest.mark.slow
def test_transparency(ffmpeg, run, tmp_path):
    """A copy of VP9 with alpha stays switched on; elsewhere it is left out with a note."""
    graph = "testsrc2=s=160x120:d=0.4,format=yuva420p,geq=lum='lum(X,Y)':a='if(gt(X,80),255,60)'"
    ffmpeg("-f", "lavfi", "-i", graph, "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", tmp_path / "a.webm")
    result = run("encode", "a.webm", "-o", "copy.nerv", "--base", "copy", "--encoder", "none")
    assert (result.returncode, "transparent" in result.stderr) == (0, False), result.stderr
    for name in ("out.webm", "out.mkv"):
        assert run("decode", "copy.nerv", "--base-only", "-o", name).returncode == 0
        assert packets(tmp_path / name) == packets(tmp_path / "a.webm")
        assert b"\x53\xc0\x81\x01" in (tmp_path / name).read_bytes()[:2000]  # AlphaMode of Matroska
        assert "alpha" not in run("decode", "copy.nerv", "--base-only", "-o", name, "--force").stderr
    result = run("decode", "copy.nerv", "--base-only", "-o", "out.mp4")
    assert (result.returncode, result.stderr.count(".mp4 holds no alpha plane")) == (0, 1), result.stderr
    ffmpeg("-f", "lavfi", "-i", graph, "-c:v", "png", tmp_path / "a.mov")
    for source in ("a.webm", "a.mov"):
        result = run("encode", source, "-o", "av1.nerv", "--base", "av1", "--encoder", "none", "--force")
        assert result.returncode == 0, result.stderr
        assert f"{source}: is transparent in places, which is left out (--base copy keeps it)" in result.stderr


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "b.mkv"])
def test_the_shape_of_a_pixel(name, bunny, ffmpeg, run, tmp_path):
    codec = "libvpx-vp9" if name == "b.mkv" else "libx264"
    ffmpeg("-i", bunny, "-t", 0.4, "-an", "-vf", "scale=128:72,setsar=4/3", "-c:v", codec, tmp_path / name)
    assert run("encode", name, "-o", "a.nerv", "--base", "copy", "--encoder", "none").returncode == 0
    assert run("decode", "a.nerv", "--base-only", "-o", "out.mkv").returncode == 0
    assert scan(tmp_path / "out.mkv").sample_aspect_ratio == scan(tmp_path / name).sample_aspect_ratio == Fraction(4, 3)


def test_a_codec_that_no_format_holds(run, tmp_path, ffmpeg):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=5:d=1", tmp_path / "a.gif")
    assert run("encode", "a.gif", "--base", "copy", "--encoder", "none").returncode == 0
    for suffix in (".mp4", ".mkv", ".webm"):
        result = run("decode", "a.nerv", "--base-only", "-o", f"b{suffix}")
        assert result.returncode == 1
        assert "none of .mp4, .mkv, .webm holds gif: decode without --base-only encodes it again" in result.stderr
    assert run("decode", "a.nerv", "-o", "b.mkv").returncode == 0


def test_packets_that_need_their_own_format(run, tmp_path, ffmpeg):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:r=10:d=1", "-c:v", "qtrle", "-pix_fmt", "argb", tmp_path / "a.mov")
    result = run("encode", "a.mov", "--base", "copy", "--encoder", "none")
    assert result.returncode == 1
    assert "its qtrle packets decode to other frames in Matroska than in its own file" in result.stderr
    assert "--base av1 encodes it again" in result.stderr
