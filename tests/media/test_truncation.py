# SPDX-License-Identifier: MIT
"""Detection of truncated files in each format, and their duration."""

import os
import random
import re
from pathlib import Path

import pytest

from nervcodec.errors import VideoError
from nervcodec.media.source import scan

X264, MPEG2 = ["-c:v", "libx264", "-pix_fmt", "yuv420p"], ["-c:v", "mpeg2video"]
FILES = {
    "a.mkv": X264,
    "live.mkv": [*X264, "-live", "1"],
    "a.webm": ["-c:v", "libvpx"],
    "front.mp4": [*X264, "-movflags", "+faststart"],
    "fragments.mp4": [*X264, "-movflags", "frag_keyframe+empty_moov", "-g", "10"],
    "a.ts": X264,
    "bluray.m2ts": [*X264, "-mpegts_m2ts_mode", "1"],
    "a.flv": [*X264, "-ar", "44100"],
    "a.avi": ["-c:v", "mpeg4", "-c:a", "mp3"],
    "a.wmv": ["-c:v", "wmv2"],
    "a.ogv": ["-c:v", "libtheora"],
    "a.mpg": MPEG2,
    "a.mxf": [*MPEG2, "-c:a", "pcm_s16le", "-ar", "48000"],
    "a.ivf": ["-c:v", "libvpx", "-an"],
    "a.gif": ["-an"],
    "a.mjpeg": ["-an"],
    "a.y4m": ["-an", "-pix_fmt", "yuv420p"],
    "a.nut": [*X264, "-bf", "0"],
    "a.dv": ["-s", "720x576", "-c:v", "dvvideo", "-pix_fmt", "yuv420p", "-ar", "48000", "-ac", "2"],
}
# Nothing marks a frame in them, or what is appended is taken for one.
NOT_MARKED = {"a.mjpeg", "a.ivf", "a.y4m", "a.dv", "a.nut"}


def made(ffmpeg, path: Path) -> Path:
    source = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=2", "-f", "lavfi", "-i", "sine=d=2"]
    ffmpeg(*source, *FILES[path.name], path)
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_reported(name, tmp_path, ffmpeg):
    path = made(ffmpeg, tmp_path / name)
    info = scan(path)
    assert (info.frame_count, info.complaints) == (50, ())
    size = path.stat().st_size
    for length in (size - 101, size * 8 // 10 + 1):
        os.truncate(path, length)
        info = scan(path)
        assert info.complaints[0].startswith("it is a partial file, which breaks off after ")
        assert info.duration_s <= info.times_s[-1] + 0.09


HELD = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=1,setpts='if(eq(N,24),10/TB,PTS)'", "-fps_mode", "vfr"]


@pytest.mark.parametrize("options", [["a.mkv"], ["a.mp4"], ["-live", "1", "b.mkv"], ["a.webm"], ["a.flv"], ["a.ts"]])
def test_long_held_frames_are_no_truncation(options, tmp_path, ffmpeg):
    codec = ["-c:v", "libvpx"] if options[-1] == "a.webm" else X264
    ffmpeg(*HELD, *codec, *options[:-1], path := tmp_path / options[-1])
    info = scan(path)
    assert not info.complaints
    assert info.times_s[-1] == pytest.approx(10, abs=0.1)


def test_the_last_frame_of_a_truncated_file_is_not_held(tmp_path, ffmpeg):
    """97 frames of a file of varying rate that states ten seconds."""
    source = "testsrc2=s=96x64:r=25:d=10,select='lt(mod(n,5),3)'"
    ffmpeg("-f", "lavfi", "-i", source, "-fps_mode", "vfr", *X264, "-bf", "0", path := tmp_path / "a.mkv")
    assert scan(path).duration_s == pytest.approx(10, abs=0.2)
    os.truncate(path, int(path.stat().st_size * 0.65))
    info = scan(path)
    assert 90 < info.frame_count < 110
    assert info.duration_s == pytest.approx(info.times_s[-1], abs=0.2)


def test_unknown_bytes_are_no_truncation(tmp_path, ffmpeg):
    """What is appended to a file, or damaged within it, does not make it a partial one."""
    for name in FILES.keys() - NOT_MARKED:
        path = made(ffmpeg, tmp_path / name)
        whole = path.read_bytes()
        for more in (bytes(5000), b"and so on. " * 500):
            path.write_bytes(whole + more)
            assert not any("partial" in complaint for complaint in scan(path).complaints), name


def test_an_index_that_is_missing(tmp_path, ffmpeg):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=2", *X264, path := tmp_path / "a.mp4")
    os.truncate(path, path.stat().st_size * 9 // 10 - 2000)
    with pytest.raises(VideoError, match=r"a\.mp4: no frame could be read \(its index \(moov\) is missing"):
        scan(path)
    path.write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"no frame could be read \(Invalid data"):
        scan(path)


def test_a_gif_is_read_up_to_its_damage(tmp_path, ffmpeg):
    path = made(ffmpeg, tmp_path / "a.gif")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 600] = bytes([255]) * 600
    path.write_bytes(data)
    info = scan(path)
    assert info.frame_count < 50
    assert "partial" in info.complaints[0]


def test_a_damaged_end_is_no_truncation(tmp_path, ffmpeg):
    """Two seconds of HEVC of which no frame comes."""
    source = ["-f", "lavfi", "-i", "testsrc2=s=176x144:r=25:d=4", "-pix_fmt", "yuv420p"]
    ffmpeg(*source, "-c:v", "libx265", "-x265-params", "log-level=none", path := tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    begin, end = len(data) * 9 // 20, len(data) * 8 // 10
    data[begin:end] = bytes([90]) * (end - begin)
    path.write_bytes(data)
    info = scan(path)
    assert info.frame_count < 75
    assert all(complaint.startswith("damaged near frame") for complaint in info.complaints)


def overwritten(path: Path, number: int = 3000) -> None:
    data = bytearray(path.read_bytes())
    begin = len(data) // 2
    data[begin : begin + number] = random.Random(1).randbytes(number)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "codec", [X264, MPEG2, ["-c:v", "libx265", "-x265-params", "log-level=none"]], ids=lambda c: c[1]
)
def test_missing_frames_of_a_damaged_transport_stream(codec, tmp_path, ffmpeg):
    source = ["-f", "lavfi", "-i", "testsrc2=s=176x144:r=25:d=4", "-pix_fmt", "yuv420p"]
    ffmpeg(*source, *codec, path := tmp_path / "a.ts")
    assert (scan(path).frame_count, scan(path).complaints) == (100, ())
    overwritten(path)
    info = scan(path)
    (complaint,) = info.complaints
    missing = re.search(r"damaged near frames \d+ to \d+ .* (\d+) frames? missing there", complaint)
    assert missing is not None, complaint
    assert info.frame_count + int(missing[1]) == 100


def test_packets_without_a_frame_are_counted(tmp_path, ffmpeg):
    """HEVC whose references are lost."""
    source = ["-f", "lavfi", "-i", "testsrc2=s=176x144:r=25:d=4", "-pix_fmt", "yuv420p"]
    for name in ("a.h265", "a.mp4"):
        path = tmp_path / name
        ffmpeg(*source, "-c:v", "libx265", "-x265-params", "log-level=none", "-movflags", "+faststart", path)
        assert scan(path).complaints == ()
        overwritten(path)
        assert " frames missing there" in scan(path).complaints[-1]


def test_joined_transport_streams_are_not_damaged(tmp_path, ffmpeg):
    """The counters of packets step where recordings are joined, with or without a jump of the clock."""
    parts = []
    for number, offset in enumerate((100, 102, 5000)):
        source = ["-f", "lavfi", "-i", "testsrc2=s=176x144:r=25:d=2", "-pix_fmt", "yuv420p", "-bf", "0"]
        ffmpeg(*source, *X264, "-output_ts_offset", offset, part := tmp_path / f"{number}.ts")
        parts.append(part.read_bytes()[188 * number :])  # so that the counters do not fit by chance
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    info = scan(tmp_path / "a.ts")
    assert not any("missing" in complaint for complaint in info.complaints)


def test_frames_hidden_by_an_edit_list_are_no_damage(bunny, tmp_path, ffmpeg):
    """They give no frame; only damaged sources are decoded a second time, in one thread."""
    ffmpeg("-ss", 1.3, "-i", bunny, "-t", 1, "-c", "copy", path := tmp_path / "a.mp4")
    info = scan(path)
    assert info.complaints == ()
    assert info.input.threads
