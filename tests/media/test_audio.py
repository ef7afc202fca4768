# SPDX-License-Identifier: MIT
"""Sound: packets are stored unchanged and stay in time."""

import json
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

import nervcodec
from nervcodec.errors import ConfigError, VideoError
from nervcodec.formats.container import read_header
from nervcodec.formats.header import AUDIO
from nervcodec.media.writer import VideoFormat, write_video

SMALL = {"epochs": 1, "scale": 0.1, "encoder": "none"}


@pytest.fixture(scope="module")
def encoded(bunny, tmp_path_factory):
    """All of bunny, small, with its sound."""
    out = tmp_path_factory.mktemp("encoded") / "a.nerv"
    nervcodec.encode(bunny, out, **SMALL)
    return out


def packets(path, *arguments):
    """(time in seconds, size, checksum) of every audio packet."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *arguments, "-i", str(path)]
    command += ["-map", "0:a:0", "-c", "copy", "-copyts", "-f", "framecrc", "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (base,) = [line for line in text.splitlines() if line.startswith("#tb 0")]
    numerator, denominator = map(int, base.split(": ")[1].split("/"))
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")]
    return [(int(r[2]) * numerator / denominator, int(r[4]), r[5].strip()) for r in rows]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_packets_come_back_unchanged(bunny, encoded, tmp_path, suffix, run):
    assert run("decode", encoded, "-o", f"a{suffix}").returncode == 0
    before, after = packets(bunny), packets(tmp_path / f"a{suffix}")
    assert [p[1:] for p in after] == [p[1:] for p in before]
    assert np.allclose([p[0] for p in after], [p[0] for p in before], atol=0.03)
    data = json.loads(run("info", encoded, "--json").stdout)
    assert data["bytes_by_part"]["audio"] > sum(p[1] for p in before)
    assert sum(data["bytes_by_part"].values()) == data["bytes"]


@pytest.mark.slow
def test_a_range_keeps_its_own_sound_in_time(bunny, tmp_path, run):
    out = tmp_path / "a.nerv"
    nervcodec.encode(bunny, out, start_s=1.5, duration_s=2.0, **SMALL)
    assert run("decode", out, "-o", "a.mkv").returncode == 0
    before, after = packets(bunny), packets(tmp_path / "a.mkv")
    expected = [p for p in before if 1.5 <= p[0] < 3.5]
    assert abs(len(after) - len(expected)) <= 2
    starts_s = {p[2]: p[0] for p in before}
    for time_s, _, checksum in after:
        assert time_s == pytest.approx(starts_s[checksum] - 1.5, abs=0.03)
    # A part of it, as the clips of search are.
    video = nervcodec.open(out)
    write_video(
        tmp_path / "b.mkv",
        video.frames(range(25, 38)),
        VideoFormat(128, 72, video.frame_rate),
        sound=video.sound(1.0, 0.5),
    )
    part = packets(tmp_path / "b.mkv")
    assert 0.4 < len(part) * 1024 / 48000 < 0.65
    assert starts_s[part[0][2]] == pytest.approx(2.5, abs=0.06)
    assert run("decode", out, "-o", "c.mp4", "--audio", "none").returncode == 0
    with pytest.raises(subprocess.CalledProcessError):
        packets(tmp_path / "c.mp4")


def test_no_sound_on_request_or_where_the_source_has_none(bunny, bikes, tmp_path):
    nervcodec.encode(bunny, tmp_path / "a.nerv", audio="none", duration_s=0.2, **SMALL)
    nervcodec.encode(bikes, tmp_path / "b.nerv", duration_s=0.2, **SMALL)
    for name in ("a.nerv", "b.nerv"):
        assert AUDIO not in read_header(tmp_path / name).tensors
        assert nervcodec.open(tmp_path / name).sound() is None
    with pytest.raises(ConfigError, match="unknown audio"):
        nervcodec.encode(bunny, tmp_path / "c.nerv", audio="mp3", **SMALL)


@pytest.mark.slow
def test_sound_counts_toward_a_size(bunny, tmp_path):
    with pytest.raises(ConfigError, match="for its sound"):
        nervcodec.encode(bunny, tmp_path / "a.nerv", size_bytes=150_000, **SMALL)
    report = nervcodec.encode(bunny, tmp_path / "a.nerv", size_bytes=350_000, **{**SMALL, "scale": 0.3, "epochs": 4})
    assert 0.9 * 350_000 <= report.size_bytes <= 350_000


def test_sound_that_a_format_cannot_hold_is_encoded_again(encoded, tmp_path):
    video = nervcodec.open(encoded)
    sound = video.sound()
    assert sound.codec == "aac"
    with pytest.raises(VideoError, match="cannot be written"):
        write_video(tmp_path / "a.webm", video.frames([0]), VideoFormat(128, 72, video.frame_rate), sound=sound)
    assert not (tmp_path / "a.webm").exists()
    assert sound.fitting(".mkv").encoder == sound.fitting(".MP4").encoder == "copy"
    assert sound.fitting(".webm").encoder == "libopus"
    write_video(
        tmp_path / "a.webm", video.frames([0]), VideoFormat(128, 72, video.frame_rate), sound=sound.fitting(".webm")
    )
