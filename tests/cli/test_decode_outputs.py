# SPDX-License-Identifier: MIT
"""What decode does with names, sound and times, by the real entry point."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nervcodec
from nervcodec.media.source import scan
from nervcodec.search.moments import Moment
from nervcodec.search.render import VideoCache, write_clips

NERV = Path(sys.executable).with_name("nervcodec")
QUICK = {"epochs": 1, "encoder": "none", "scale": 0.5}


@pytest.fixture
def street(bikes, tmp_path, ffmpeg):
    """Kitchen.mp4, a fifth of a second, and its container beside it."""
    source = tmp_path / "Kitchen.mp4"
    ffmpeg("-i", bikes, "-t", "0.2", "-c:v", "libx264", "-preset", "ultrafast", source)
    nervcodec.encode(source, **QUICK)
    return source


@pytest.mark.slow
def test_the_source_is_never_written_over(street, run):
    before = street.read_bytes()
    result = run("decode", "Kitchen.nerv")
    assert result.returncode == 0, result.stderr
    assert "writing Kitchen.decoded.mp4" in result.stderr
    assert scan(street.with_name("Kitchen.decoded.mp4")).frame_count == 5
    assert run("decode", "Kitchen.nerv").returncode == 1  # that one is there now
    assert run("decode", "Kitchen.nerv", "--force").returncode == 0
    assert street.read_bytes() == before
    street.rename(street.with_name("elsewhere.mp4"))
    assert run("decode", "Kitchen.nerv", "--force").returncode == 0
    assert not street.exists()
    container = street.with_name("Kitchen.nerv")
    container.rename(container.with_name("copy.nerv"))
    assert run("decode", "copy.nerv").returncode == 0
    assert container.with_name("copy.mp4").exists()


def test_a_source_folder_of_frames_is_never_written_over(run, tmp_path, bikes, ffmpeg):
    folder = tmp_path / "shots_frames"
    folder.mkdir()
    ffmpeg("-i", bikes, "-frames:v", "3", "-vf", "scale=64:48", folder / "frame_%05d.png")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    nervcodec.encode(folder, tmp_path / "shots.nerv", epochs=1, encoder="none")
    result = run("decode", "shots.nerv", "--frames", "--force")
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "shots.decoded_frames").iterdir())) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "suffix", "encoder"),
    [("pcm_mulaw", ".mp4", "aac"), ("aac", ".webm", "libopus"), ("libopus", ".mov", "aac"), ("aac", ".mp4", "copy")],
)
def test_sound_that_a_format_does_not_hold_is_encoded_again(codec, suffix, encoder, street, run, tmp_path, ffmpeg):
    camera = tmp_path / "cam.mkv"
    rate = ["-ar", "8000"] if codec == "pcm_mulaw" else []
    ffmpeg("-i", street, "-f", "lavfi", "-i", "sine=d=0.4", "-c:v", "copy", "-c:a", codec, *rate, camera)
    nervcodec.encode(camera, **QUICK)
    result = run("decode", "cam.nerv", "-o", f"out{suffix}")
    assert result.returncode == 0, result.stderr
    info = scan(tmp_path / f"out{suffix}")
    assert info.has_audio
    assert info.frame_count == 5
    noted = "it is encoded with" in result.stderr
    assert noted == (encoder != "copy")
    if noted:
        assert f"{suffix} does not hold sound in {codec.removeprefix('lib')}" in result.stderr
        assert f"with {encoder} (-o NAME.mkv keeps it as it is, --audio none leaves it out)" in result.stderr


def test_surround_sound_is_written_to_webm(bunny, run, tmp_path):
    nervcodec.encode(bunny, tmp_path / "a.nerv", duration_s=0.5, **{**QUICK, "scale": 0.1})
    result = run("decode", "a.nerv", "-o", "a.webm")
    assert result.returncode == 0, result.stderr
    assert scan(tmp_path / "a.webm").has_audio


@pytest.mark.slow
def test_a_closed_reader_and_a_full_device(street, tmp_path):
    piped = f"set -o pipefail; {NERV} decode -q Kitchen.nerv -o - | head -c 1000 | wc -c"
    result = subprocess.run(["bash", "-c", piped], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "1000"
    assert result.stderr == ""
    full = f"{NERV} decode -q Kitchen.nerv -o - > /dev/full"
    result = subprocess.run(["bash", "-c", full], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr == "nervcodec: standard output: cannot be written (No space left on device)\n"


@pytest.mark.slow
def test_a_held_frame_lasts_as_long_as_its_sound(tmp_path, run, ffmpeg):
    """A recording of a screen: three seconds of change, then one frame for two seconds."""
    path = tmp_path / "screen.mp4"
    held = "setts=duration=if(gte(PTS*TB\\,2.85)\\,2.1/TB\\,DURATION)"
    picture = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=3", "-f", "lavfi", "-i", "sine=d=5"]
    ffmpeg(*picture, "-c:v", "libx264", "-bf", "0", "-bsf:v", held, "-c:a", "aac", path)
    nervcodec.encode(path, tmp_path / "a.nerv", epochs=1, encoder="none")
    assert run("decode", "a.nerv", "-o", "b.mp4").returncode == 0
    assert scan(path).duration_s == pytest.approx(5.0, abs=0.05)
    assert scan(tmp_path / "b.mp4").duration_s == pytest.approx(5.0, abs=0.11)


def test_clips_of_a_variable_rate_keep_their_times(tmp_path):
    """Frames of 0.1 s, then one that stays for two: what is shown of it, and at least one frame of anything."""
    images = [Image.new("RGB", (32, 24), (20 * i, 0, 0)) for i in range(10)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[100] * 5 + [2000] + [100] * 4)
    nervcodec.encode(tmp_path / "a.gif", tmp_path / "a.nerv", epochs=1, encoder="none")
    video = nervcodec.open(tmp_path / "a.nerv")
    assert video.header.video.variable_frame_rate
    spans = [(5, 5), (4, 6), (0, 0), (9, 9)]
    edges = np.r_[video.frame_times_s, video.header.video.duration_s]
    file, place = tmp_path / "a.nerv", ((0, 0), (0, 0, 8, 8))
    moments = [Moment(1.0, file, edges[a], edges[b + 1], a, b, a, *place) for a, b in spans]
    with VideoCache() as open_file:
        clips = list(write_clips(moments, tmp_path / "clips", open_file))
    lengths = [scan(clip).duration_s for clip in clips]
    assert lengths == pytest.approx([m.end_s - m.start_s for m in moments], abs=0.051)
    assert lengths[0] == pytest.approx(2.0, abs=0.05)
