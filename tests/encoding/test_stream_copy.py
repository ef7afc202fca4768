# SPDX-License-Identifier: MIT
"""``base="copy"``: the source's packets bit for bit, and files that decode to exactly what the source gives."""

import subprocess
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from containers import everything

import nervcodec
from nervcodec.base import copy
from nervcodec.colour import to_rgb8
from nervcodec.errors import VideoError
from nervcodec.formats.container import Container, read_header
from nervcodec.media.options import SourceOptions
from nervcodec.media.reader import plane_format, read_planes
from nervcodec.media.source import scan
from nervcodec.tone_mapping import to_screen8

COPY = {"base": "copy", "encoder": "none"}
SMALL = ["-t", "0.8", "-vf", "scale=128:72"]
# How a source is made of a street's first second, and what is special about it.
SOURCES = {
    "plain.mp4": [*SMALL, "-c:v", "libx264", "-bf", "3"],
    "open.mp4": [*SMALL, "-c:v", "libx265", "-x265-params", "log-level=none:open-gop=1:keyint=6"],
    "fields.mp4": [*SMALL[:3], "scale=128:72,tinterlace=interleave_top", "-c:v", "libx264", "-flags", "ilme+ildct"],
    "uneven.mkv": ["-t", "0.4", "-vf", "scale=128:72,settb=1/1000,setpts=10*N*N", "-fps_mode", "passthrough"],
    "pixels.mp4": [*SMALL[:3], "scale=128:72,setsar=4/3", "-c:v", "mpeg4"],
    "stream.ts": [*SMALL, "-c:v", "mpeg2video", "-bf", "2"],
    "camera.avi": [*SMALL, "-c:v", "mjpeg"],
    "late.avi": [*SMALL, "-c:v", "mpeg4", "-bf", "2"],
    "studio.mov": [*SMALL, "-c:v", "prores_ks"],
    "odd.mkv": [*SMALL[:3], "scale=71:53", "-c:v", "ffv1", "-pix_fmt", "yuv444p10le"],
    "picture.mov": [*SMALL, "-c:v", "png", "-pix_fmt", "rgb24"],
    "web.webm": [*SMALL, "-c:v", "libvpx-vp9", "-deadline", "realtime"],
    "raw.y4m": [*SMALL, "-pix_fmt", "yuv420p"],
    "tape.avi": [*SMALL, "-c:v", "utvideo"],
    "editing.mov": ["-t", "0.2", "-vf", "scale=256:144,format=yuv422p", "-c:v", "dnxhd", "-profile:v", "dnxhr_sq"],
    "broadcast.mxf": [*SMALL, "-c:v", "mpeg2video"],
    "old.wmv": [*SMALL, "-c:v", "wmv2"],
}  # fmt: skip


def wanted(source, **options):
    """Frames of a source as they are shown."""
    chosen = SourceOptions(**options)
    info = scan(source, chosen)
    form = plane_format(info, chosen)
    return [to_rgb8(planes, form)[0] for planes in read_planes(info, chosen, form)]


def hashes(path, number=0):
    """Of all packets of a video stream as they are."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-map", f"0:V:{number}", "-c", "copy"]
    said = subprocess.run([*command, "-f", "framehash", "-"], check=True, capture_output=True, text=True).stdout
    return [line.split(",")[5].strip() for line in said.splitlines() if not line.startswith("#")]


def copied(source, **settings):
    """The container of a source, open, once its frames were seen to be the source's."""
    report = nervcodec.encode(source, source.with_suffix(".nerv"), force=True, **{**COPY, **settings})
    frames = wanted(source, **{key: value for key, value in settings.items() if key == "stream"})
    with nervcodec.open(report.path) as video:
        assert len(video) == len(frames)
        assert all(np.array_equal(a, b) for a, b in zip(video, frames, strict=True))
    return report


def stream_of(container: Path) -> Path:
    """The base layer of a container as a file."""
    with Container.open(container) as opened:
        file = container.with_suffix(".stored.mkv")
        file.write_bytes(opened.array("base").tobytes())
    return file


@pytest.mark.parametrize("name", SOURCES)
def test_a_copy_gives_what_its_source_gives(name, bikes, tmp_path, ffmpeg):
    source = tmp_path / name
    ffmpeg("-i", bikes, *SOURCES[name], source)
    report = copied(source)
    header = read_header(report.path)
    assert report.psnr_db == header.fit.psnr_db == header.base.psnr_db == 100
    assert (header.base.kind, header.base.skipped, header.base.flawed) == ("copy", 0, False)
    assert hashes(stream_of(report.path)) == hashes(source)
    beside = report.size_bytes - report.base.size_bytes
    assert 0 < beside < 1_500
    assert report.base.size_bytes - source.stat().st_size < 2_000
    assert not list(tmp_path.glob(".*"))


def test_a_raw_stream_gets_times_where_its_frames_are_in_order(bikes, tmp_path, ffmpeg):
    source = tmp_path / "a.264"
    ffmpeg("-i", bikes, *SMALL, "-c:v", "libx264", "-bf", "0", source)
    stored = scan(stream_of(copied(source).path))
    assert np.allclose(stored.times_s, np.arange(20) / 25, atol=1e-3)


def test_facts_of_a_copy(bikes, tmp_path, ffmpeg):
    source = tmp_path / "a.mp4"
    ffmpeg("-i", bikes, *SMALL, "-c:v", "libx264", "-pix_fmt", "yuv422p10le", "-color_range", "pc", source)
    base = read_header(copied(source).path).base
    assert (base.codec, base.width, base.height) == ("h264", 128, 72)
    assert base.planes == plane_format(scan(source))
    assert (base.planes.depth, base.planes.chroma, base.planes.full_range) == (10, "422", True)


@pytest.mark.parametrize("turn", [["-display_rotation", "90"], ["-display_rotation", "180", "-display_hflip"]])
def test_a_picture_that_is_turned_stays_upright(turn, bikes, tmp_path, ffmpeg):
    ffmpeg("-i", bikes, *SMALL, "-c:v", "libx264", tmp_path / "lying.mp4")
    source = tmp_path / "turned.mp4"
    ffmpeg(*turn, "-i", tmp_path / "lying.mp4", "-c", "copy", source)
    header = read_header(copied(source).path)
    assert (header.base.width, header.base.height) == (128, 72)
    sides = (128, 72) if "180" in turn else (72, 128)
    assert (header.video.width, header.video.height) == sides


def test_frames_that_no_player_shows(bikes, tmp_path, ffmpeg):
    """An edit list that begins within a group of frames: those before it are decoded and not shown."""
    ffmpeg("-i", bikes, "-t", "2", "-vf", "scale=128:72", "-c:v", "libx264", "-g", "10", tmp_path / "whole.mp4")
    source = tmp_path / "cut.mp4"
    ffmpeg("-ss", "0.96", "-i", tmp_path / "whole.mp4", "-c", "copy", source)
    report = copied(source)
    base = read_header(report.path).base
    assert base.skipped == 4
    with nervcodec.open(report.path) as video:
        assert video.write_base(tmp_path / "again.mp4") == len(video)
        with pytest.raises(VideoError, match="before the first that is shown, which .mp4 alone can say"):
            video.write_base(tmp_path / "again.mkv")
    again = wanted(tmp_path / "again.mp4")
    assert all(np.array_equal(a, b) for a, b in zip(again, wanted(source), strict=True))
    assert hashes(tmp_path / "again.mp4") == hashes(source)


def test_one_of_several_streams(bikes, tmp_path, ffmpeg):
    source = tmp_path / "two.mkv"
    chain = "[0:v]split[a][b];[a]scale=128:72[x];[b]scale=64:48,negate[y]"
    ffmpeg("-i", bikes, "-t", "0.4", "-filter_complex", chain, "-map", "[x]", "-map", "[y]", "-c:v", "mpeg4", source)
    report = copied(source, stream=1)
    assert hashes(stream_of(report.path)) == hashes(source, 1)
    assert read_header(report.path).video.width == 64


def test_sound_and_segments(bunny, tmp_path, ffmpeg):
    source = tmp_path / "a.mp4"
    ffmpeg("-i", bunny, *SMALL, "-c:a", "copy", source)
    report = copied(source, segment="8f")
    with nervcodec.open(report.path) as video:
        assert [s.frame_count for s in video.header.segments] == [6, 7, 7]
        assert video.sound() is not None
    assert "audio" not in read_header(copied(source, audio="none").path).tensors


def test_the_second_head_and_nothing_else(bikes, tmp_path, ffmpeg, tiny_clip):
    source = tmp_path / "a.mp4"
    ffmpeg("-i", bikes, *SMALL, "-c:v", "libx264", source)
    report = copied(source, encoder=tiny_clip, segment="10f", semantic_fps=10)
    assert "the source's own h264 packets" in report.base.in_words()
    with nervcodec.open(report.path) as video:
        assert video.embeddings().shape == (20, 8, 24)
        assert [video.embedded_frames(index) for index in (0, 1)] == [(0, 2, 5, 7)] * 2


@pytest.mark.slow
def test_it_is_judged_as_identical(bikes, tmp_path, ffmpeg, tiny_clip):
    source = tmp_path / "a.mp4"
    ffmpeg("-i", bikes, *SMALL, "-c:v", "libx264", "-pix_fmt", "yuv420p10le", source)
    report = copied(source, encoder=tiny_clip)
    facts = nervcodec.evaluate(report.path, source)
    assert facts.psnr_db == 100
    assert facts.semantic["centred_cosine"] > 0.85
    assert facts.base_bytes == report.base.size_bytes


def test_only_frames_that_are_embedded_become_rgb(bikes, tmp_path, ffmpeg, tiny_clip, monkeypatch):
    from nervcodec.encoding import embeddings as module

    source, seen = tmp_path / "a.mp4", []
    ffmpeg("-i", bikes, *SMALL, "-c:v", "libx264", source)
    monkeypatch.setattr(module, "to_screen8", lambda *a, **more: seen.append(1) or to_screen8(*a, **more))
    nervcodec.encode(source, **{**COPY, "encoder": tiny_clip, "semantic_fps": 5})
    assert len(seen) == 4
    nervcodec.encode(source, force=True, **COPY)
    assert len(seen) == 4


def test_the_same_file_twice(bikes, tmp_path, ffmpeg):
    source = tmp_path / "a.mp4"
    ffmpeg("-i", bikes, *SMALL, "-c:v", "libx264", source)
    first, again = (everything(copied(source).path) for _ in range(2))
    assert replace(first[0], fit=again[0].fit) == again[0]
    assert all(np.array_equal(array, again[1][name]) for name, array in first[1].items())


def test_damaged_sources_are_kept_as_they_are(bikes, tmp_path, ffmpeg):
    source = tmp_path / "a.ts"
    ffmpeg("-i", bikes, *SMALL, "-c:v", "mpeg2video", "-g", "5", source)
    data = bytearray(source.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xaa" * 40
    source.write_bytes(data)
    assert read_header(copied(source).path).base.flawed


REFUSED = {
    "raw.h264": ("cannot go into Matroska as they are", ["-c:v", "libx264", "-bf", "2"]),
    "%02d.png": ("is a folder of images, which has no stream to copy; --base av1", []),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_copied_is_one_line(name, bikes, tmp_path, ffmpeg):
    message, how = REFUSED[name]
    folder = tmp_path / "in"
    folder.mkdir()
    ffmpeg("-i", bikes, *SMALL, *how, folder / name)
    source = folder if "png" in name else folder / name
    with pytest.raises(VideoError, match=message) as caught:
        nervcodec.encode(source, tmp_path / "a.nerv", **COPY)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_frames_that_change_their_size(bikes, tmp_path, ffmpeg):
    for name, size in (("a", "128:72"), ("b", "64:48")):
        ffmpeg("-i", bikes, "-t", "0.4", "-vf", f"scale={size}", "-c:v", "mpeg2video", tmp_path / f"{name}.mpg")
    source = tmp_path / "both.mpg"
    source.write_bytes((tmp_path / "a.mpg").read_bytes() + (tmp_path / "b.mpg").read_bytes())
    message = r"both\.mpg: its mpeg2video packets decode to other frames .* --base av1"
    with pytest.raises(VideoError, match=message) as caught:
        nervcodec.encode(source, **COPY)
    assert "\n" not in str(caught.value)


def test_packets_that_decode_to_something_else(bikes, tmp_path, ffmpeg):
    source = tmp_path / "a.mp4"
    ffmpeg("-i", bikes, *SMALL, "-c:v", "libx264", source)
    info = scan(source)
    found = copy.Packets.of(info, plane_format(info), tmp_path / "packets.mkv")
    assert len(list(found.frames())) == 20
    assert not found.tolerates_errors
    sums = info.checksums
    for other, message in (
        (np.r_[sums[:7], 0, sums[8:]], "frame 7 is another, and the source has 20"),
        (np.r_[sums, sums[-1]], "they give 20 frames, and the source 21"),
        (sums[:-1], "they give more than the 19 frames of the source"),
    ):
        changed = replace(info, checksums=other, times_s=np.arange(len(other)) / 25)
        with pytest.raises(VideoError, match=message):
            list(copy.Packets.of(changed, found.form, tmp_path / "packets.mkv").frames())


@pytest.mark.parametrize(
    ("how", "is_clean"),
    [
        (["libx264", "-g", "10"], True),
        (["libx264", "-x264-params", "open-gop=1:keyint=10:min-keyint=10"], None),
        (["libx264", "-x264-params", "intra-refresh=1:keyint=10:bframes=0"], False),
        (["mpeg2video", "-g", "10", "-bf", "2"], True),
    ],
)
def test_places_where_decoding_may_begin(how, is_clean, bikes, tmp_path, ffmpeg, monkeypatch):
    """Every one of them was tried, and gives the frames that decoding from the beginning gives."""
    monkeypatch.setattr(copy, "_APART_S", 0.3)
    source = tmp_path / "a.mp4"
    ffmpeg("-i", bikes, "-t", "2", "-vf", "scale=320:136", "-c:v", *how, source)
    report = copied(source)
    entries = read_header(report.path).base.entries
    if is_clean is not None:
        assert (len(entries) > 2) == is_clean
    frames = wanted(source)
    with nervcodec.open(report.path) as video:
        for number in {49, 20, *(n + d for n, _ in entries for d in (-1, 0) if n + d >= 0)}:
            assert np.array_equal(video[number], frames[number]), number
