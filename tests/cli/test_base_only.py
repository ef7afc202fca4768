# SPDX-License-Identifier: MIT
"""``decode --base-only``: the base stream as a file, by the real entry point."""

import json
import subprocess
import sys
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest
from streams import decode_stream, samples_of

import nervcodec
from nervcodec.errors import ConfigError, ContainerError, VideoError
from nervcodec.formats.container import Container
from nervcodec.media.reader import plane_format, read_planes
from nervcodec.media.source import scan

QUICK = {"base": "av1", "encoder": "none", "crf": 50}


@pytest.fixture(scope="module")
def layered(bunny, tmp_path_factory):
    """Kitchen.mp4 with sound, half a second, and its container of two segments beside it."""
    folder = tmp_path_factory.mktemp("layered")
    source = folder / "Kitchen.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(bunny), "-t", "0.5", "-vf", "scale=128:72"]
    subprocess.run([*command, "-c:a", "copy", str(source)], check=True)
    nervcodec.encode(source, segment="6f", **QUICK)
    return folder / "Kitchen.nerv"


def decoded(path):
    """Every frame's planes."""
    info = scan(path)
    return info, [samples_of(p) for p in read_planes(info, None, plane_format(info))]


def stored(path):
    """The packets of a container's base layer, decoded."""
    with Container.open(path) as opened:
        video, form = opened.header.video, opened.header.base.planes
        frames = []
        for segment in opened.header.segments:
            stream = opened.base_stream(segment).data
            frames += decode_stream(stream, form, video.width, video.height, segment.frame_count)
        return [samples_of(frame.padded(form, 72, 128)) for frame in frames]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_the_base_is_written_as_it_is_stored(suffix, layered, run, tmp_path):
    result = run("decode", layered, "--base-only", "-o", f"out{suffix}")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"out{suffix}, 13 frames\n"
    info, frames = decoded(tmp_path / f"out{suffix}")
    assert frames == stored(layered)
    assert info.has_audio
    assert info.frame_rate == 25
    assert ("encoded with libopus" in result.stderr) == (suffix == ".webm")


def test_y4m_leaves_sound_out_with_a_note(layered, run, tmp_path):
    for target in ("-", "a.y4m"):
        result = run("decode", layered, "-o", target, binary=True)
        assert result.returncode == 0, result.stderr
        assert result.stderr.count(b".y4m holds no sound: left out") == 1
        assert b"sound" not in run("decode", layered, "-o", target, "--audio", "none", "--force", binary=True).stderr
    assert scan(tmp_path / "a.y4m").frame_count == 13


def test_the_default_name_is_never_that_of_the_source(layered, run):
    source = layered.with_suffix(".mp4")
    before = source.read_bytes()
    result = run("decode", layered, "--base-only", "--audio", "none", "-q")
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert "writing Kitchen.decoded.mp4" in result.stderr
    written = layered.with_name("Kitchen.decoded.mp4")
    assert not scan(written).has_audio
    assert source.read_bytes() == before
    again = run("decode", layered, "--base-only")
    assert again.returncode == 1
    assert "exists already; use --force" in again.stderr
    assert run("decode", layered, "--base-only", "--force").returncode == 0
    assert scan(written).has_audio


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames"], "--frames has no effect with it"),
        (["--frames", "3"], "--frames has no effect with it"),
        (["--patch", "0,0"], "--patch has no effect with it"),
        (["--scale", "1"], "--scale has no effect with it"),
        (["--crf", "18"], "--crf has no effect with it"),
        (["-o", "-"], "--base-only writes .mp4, .mkv, .webm, but - is none"),
        (["-o", "out.avi"], "--base-only writes .mp4, .mkv, .webm, but out.avi is none"),
        (["-o", "frames/"], "--base-only writes .mp4, .mkv, .webm, but frames/ is none"),
    ],
)
def test_options_without_effect_are_wrong_usage(arguments, message, layered, run, tmp_path):
    result = run("decode", layered, "--base-only", *arguments)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith(message)
    assert not list(tmp_path.iterdir())


def test_a_missing_and_a_damaged_base_layer_are_errors(layered, run, tmp_path):
    golden = __file__.replace("cli/test_base_only.py", "golden/version3_grid.nerv")
    result = run("decode", golden, "--base-only", "-o", "out.mp4")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert "has no base layer (it was encoded without --base)" in result.stderr
    broken = bytearray(layered.read_bytes())
    broken[-1] ^= 1
    (tmp_path / "broken.nerv").write_bytes(broken)
    result = run("decode", "broken.nerv", "--base-only", "-o", "out.mp4")
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert "broken.nerv: tensor audio is damaged" in result.stderr or "base is damaged" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["broken.nerv"]


def test_base_only_needs_no_torch(layered, tmp_path):
    code = (
        "import json, sys\n"
        "from nervcodec.cli.main import main\n"
        f"sys.argv = ['nervcodec', 'decode', {str(layered)!r}, '--base-only', '-o', 'out.mp4']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "torch" not in json.loads(result.stdout.splitlines()[-1])
    assert (tmp_path / "out.mp4").exists()


def test_times_and_shapes_of_pixels(carphone, tmp_path, ffmpeg, run):
    """Two frames at one time, gaps of several lengths, a last frame that is held, pixels that are no squares."""
    source = tmp_path / "uneven.mkv"
    ffmpeg("-i", carphone, "-frames:v", "7", "-vf", "settb=1/1000,setpts=10*N*N", "-fps_mode", "passthrough", source)
    nervcodec.encode(source, **QUICK)
    original = scan(source)
    assert original.variable_frame_rate
    assert original.times_s[1] == original.times_s[0]
    for suffix in (".mp4", ".mkv"):
        result = run("decode", "uneven.nerv", "--base-only", "-o", f"out{suffix}")
        assert result.returncode == 0, result.stderr
        info = scan(tmp_path / f"out{suffix}")
        assert np.allclose(info.times_s, original.times_s, atol=2e-3)
        assert abs(info.duration_s - original.duration_s) < 2e-3
        shape = Fraction(info.width, info.height) * info.sample_aspect_ratio
        assert abs(shape / (Fraction(original.width, original.height) * original.sample_aspect_ratio) - 1) < 0.01


def test_from_python(layered, tmp_path):
    with nervcodec.open(layered) as video:
        assert video.write_base(tmp_path / "a.mp4") == 13
        assert video.write_base(tmp_path / "b.webm", audio=False) == 13
        with pytest.raises(ConfigError, match="exists already"):
            video.write_base(tmp_path / "a.mp4")
        assert video.write_base(tmp_path / "a.mp4", force=True) == 13
        with pytest.raises(VideoError, match="the base goes into"):
            video.write_base(tmp_path / "a.avi")
    assert scan(tmp_path / "a.mp4").has_audio
    assert not scan(tmp_path / "b.webm").has_audio
    golden = __file__.replace("cli/test_base_only.py", "golden/version3_grid.nerv")
    with nervcodec.open(golden) as video, pytest.raises(ContainerError, match="has no base layer"):
        video.write_base(tmp_path / "c.mp4")
