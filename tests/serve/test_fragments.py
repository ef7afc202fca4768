# SPDX-License-Identifier: MIT
"""Fragments stand alone, follow each other without a gap, and show and sound as the container does."""

import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from sites import SOUND_S, TIMES_S, VARIABLE_END_S, changed, serving

import nervcodec
from nervcodec.formats.container import read_header
from nervcodec.metrics import psnr_db
from nervcodec.serve import boxes
from nervcodec.serve.desk import Leave
from nervcodec.serve.fragments import video_fragment


def run(*arguments) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout


def stamps(data: bytes, folder: Path) -> list[tuple[int, int]]:
    """(time, duration) of each packet in ticks of the fragment, as a player reads it."""
    path = folder / "fragment.mp4"
    path.write_bytes(data)
    listed = run("-copyts", "-i", path, "-c", "copy", "-f", "framecrc", "-").decode().splitlines()
    (base,) = [Fraction(line.split(":")[1].strip()) for line in listed if line.startswith("#tb")]
    scale = boxes.timescale(data)
    numbers = [line.split(",") for line in listed if not line.startswith("#")]
    return [(round(int(n[2]) * base * scale), round(int(n[3]) * base * scale)) for n in numbers]


def shown(data: bytes, folder: Path, width: int, height: int) -> np.ndarray:
    """The frames of a fragment."""
    path = folder / "fragment.mp4"
    path.write_bytes(data)
    raw = run("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def every_fragment(site, path: str, kind: str = "video") -> list[bytes]:
    count = site.right(f"/api/file/{path}").json[kind]["count"]
    return [site.right(f"/media/{path}/{kind}/{number}").body for number in range(count)]


def test_fragments_have_the_frames_at_their_times(site, folder, tmp_path):
    facts = site.right("/api/file/grid.nerv").json
    assert facts["video"]["type"] == 'video/mp4; codecs="avc1.64001f"'
    seen, times = [], []
    for number, data in enumerate(every_fragment(site, "grid.nerv")):
        packets = stamps(data, tmp_path)
        scale = boxes.timescale(data)
        assert packets[0][0] == round(number * facts["video"]["fragment_s"] * scale)
        times += [Fraction(time, scale) for time, _ in packets]
        assert packets[-1][1] == packets[0][1] == scale * 1001 // 30000
        seen += list(shown(data, tmp_path, 88, 72))
    assert times == [n * Fraction(1001, 30000) for n in range(15)]
    with nervcodec.open(folder / "grid.nerv") as video:
        assert min(psnr_db(one, other) for one, other in zip(seen, video, strict=True)) > 30


def test_each_fragment_begins_with_a_key_frame(site):
    for data in every_fragment(site, "grid.nerv"):
        (moof,) = [box for box in boxes.boxes(data) if box.kind == b"moof"]
        trun = boxes.inner(data, moof, b"traf", b"trun")
        flags = int.from_bytes(data[trun.body + 1 : trun.body + 4], "big")
        assert flags & 4
        assert not data[trun.body + 12 + 1] & 1  # sample_is_non_sync_sample of the first
        assert [box.kind for box in boxes.boxes(data)] == [b"ftyp", b"moov", b"moof", b"mdat"]


def test_frames_that_do_not_come_evenly(site, folder, tmp_path):
    """Each fragment is filled to its end; a frame that is on show when one begins is shown again."""
    facts = site.right("/api/file/varied.nerv").json
    length = facts["video"]["fragment_s"]
    assert facts["video"]["count"] == -(-VARIABLE_END_S // length)
    begins = {}
    with nervcodec.open(folder / "varied.nerv") as video:
        for number, data in enumerate(every_fragment(site, "varied.nerv")):
            scale, packets = boxes.timescale(data), stamps(data, tmp_path)
            assert packets[0][0] == round(number * length * scale)
            end = min((number + 1) * length, VARIABLE_END_S)
            assert sum(packets[-1]) == pytest.approx(end * scale, abs=2)
            for (time, _), frame in zip(packets, shown(data, tmp_path, 88, 72), strict=True):
                on_show = np.searchsorted(TIMES_S, time / scale + 1e-4, "right") - 1
                assert psnr_db(frame, video[int(on_show)]) > 30
                begins.setdefault(int(on_show), time / scale)
    np.testing.assert_allclose([begins[n] for n in range(15)], TIMES_S, atol=1e-4)


class Odd:
    """As an open video whose sides are odd."""

    path, frame_rate = "odd", Fraction(25)

    def __init__(self, header):
        facts = replace(header.video, width=47, height=33, frame_count=5, duration_s=0.2, frame_rate=(25, 1))
        self.header = replace(header, video=facts, segments=(replace(header.segments[0], frame_count=5),))

    def __len__(self):
        return 5

    def frames(self, numbers, tone_map):
        for number in numbers:
            yield np.full((33, 47, 3), 20 * number, np.uint8)


def test_odd_sides_and_pixels_that_are_not_square(tmp_path, folder):
    data = video_fragment(Odd(read_header(folder / "grid.nerv")), 0, Leave())
    frames = shown(data, tmp_path, 48, 34)
    assert [frame.mean() for frame in frames] == pytest.approx([20 * number for number in range(5)], abs=2)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", tmp_path / "fragment.mp4"]
    assert b"SAR 128:117" in subprocess.run(command, capture_output=True).stderr


@pytest.mark.parametrize("path", ["aac.nerv", "varied.nerv"], ids=["copied", "coded anew"])
def test_sound_follows_without_a_gap(site, tmp_path, path):
    facts = site.right(f"/api/file/{path}").json["audio"]
    assert facts["type"] == 'audio/mp4; codecs="mp4a.40.2"'
    times, whole, length = [], b"", facts["fragment_s"]
    for number, data in enumerate(every_fragment(site, path, "audio")):
        scale = boxes.timescale(data)
        assert scale == 48000
        moofs = [box for box in boxes.boxes(data) if box.kind == b"moof"]
        begins = [boxes.beginning(data, moof) for moof in moofs]
        assert all(number * length <= begin / scale < (number + 1) * length for begin in begins)
        times += begins
        whole += data if not whole else data[moofs[0].begin if moofs else len(data) :]
    assert set(np.diff(times)) == {1024}
    (tmp_path / "whole.mp4").write_bytes(whole)
    heard = np.frombuffer(run("-i", tmp_path / "whole.mp4", "-ac", "1", "-f", "f32le", "-"), np.float32)
    # Of one file the video ends before its sound does.
    end = min(SOUND_S, facts["count"] * length)
    assert len(heard) / 48000 == pytest.approx(end, abs=0.06)
    middle = heard[4800 : int((end - 0.1) * 48000)] if end > 0.3 else heard[2400:-2400]
    # A tone of 440 Hz goes on as it began: what comes a period later is the same, and a click would not be.
    later = np.interp(np.arange(len(middle) - 200) + 48000 / 440, np.arange(len(middle)), middle)
    assert np.abs(later - middle[: len(later)]).max() < 0.1 * np.abs(middle).max()


def test_sound_is_in_time_with_the_first_frame(tmp_path, folder):
    """A tone that begins with the packets, a first frame that shows 0.1 s after them."""
    changed(folder / "aac.nerv", tmp_path / "late.nerv", first_frame_s=0.1)
    with serving(tmp_path) as site:
        late = site.right("/media/late.nerv/audio/0").body
    first = next(box for box in boxes.boxes(late) if box.kind == b"moof")
    assert 0 <= boxes.beginning(late, first) < 1024
    changed(folder / "aac.nerv", tmp_path / "early.nerv", first_frame_s=-0.1)
    with serving(tmp_path) as site:
        early = site.right("/media/early.nerv/audio/0").body
    first = next(box for box in boxes.boxes(early) if box.kind == b"moof")
    assert boxes.beginning(early, first) == pytest.approx(0.1 * 48000, abs=1024)


def test_what_has_no_sound(site):
    assert site.ask("/media/grid.nerv/audio/0").status == 404
    assert site.ask("/media/aac.nerv/audio/1000").status == 404


def test_fragments_above_a_base_layer(layered_nerv, tmp_path):
    shutil.copy(layered_nerv, tmp_path / "a.nerv")
    seen = []
    with serving(tmp_path) as site, nervcodec.open(layered_nerv) as video:
        for data in every_fragment(site, "a.nerv"):
            seen += list(shown(data, tmp_path, 176, 144))
        assert min(psnr_db(one, other) for one, other in zip(seen, video, strict=True)) > 30
