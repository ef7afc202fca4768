# SPDX-License-Identifier: MIT
"""Unusual sources: several streams, odd metadata, held frames, missing frame rates."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nervcodec
from nervcodec.colour import to_rgb8
from nervcodec.errors import VideoError
from nervcodec.media.reader import plane_format, read_frames, read_planes
from nervcodec.media.shots import segment_lengths
from nervcodec.media.source import SourceOptions, scan

NERV = Path(sys.executable).with_name("nervcodec")


def moving(seconds=3, rate=10, size="160x120"):
    return ["-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}"]


X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]


@pytest.fixture(scope="module")
def base(tmp_path_factory, ffmpeg):
    path = tmp_path_factory.mktemp("base") / "base.mp4"
    ffmpeg(*moving(), *X264, path)
    return path


def frames_of(path, **options):
    chosen = SourceOptions(**options)
    info = scan(path, chosen)
    return info, np.stack(list(read_frames(info, chosen)))


# ------------------------------------------------------------------ which stream


def test_the_default_stream_is_that_of_a_player(base, tmp_path, ffmpeg):
    path = tmp_path / "two.mkv"
    preview = ["-map", "0", "-map", "1", "-c:v", "libx264", "-disposition:v:0", "0", "-disposition:v:1", "default"]
    ffmpeg(*moving(1, 1, "64x48"), "-i", base, *preview, path)
    info, frames = frames_of(path)
    assert (info.width, info.height, len(frames)) == (160, 120, 30)
    assert info.notes == ("two.mkv: has 2 video streams (0: 64x48 h264, 1: 160x120 h264); taking 1",)
    info, frames = frames_of(path, stream=0)
    assert (info.width, info.height, len(frames)) == (64, 48, 1)
    with pytest.raises(VideoError, match="no video stream 2; there are 2, counted from 0"):
        scan(path, SourceOptions(stream=2))


def test_without_a_default_the_largest_stream(base, tmp_path, ffmpeg):
    path = tmp_path / "two.mkv"
    ffmpeg(*moving(1, 10, "64x48"), "-i", base, "-map", "0", "-map", "1", "-disposition", "0", "-c:v", "mjpeg", path)
    assert scan(path).width == 160


@pytest.mark.parametrize(("suffix", "codec"), [("mp3", "mjpeg"), ("flac", "png"), ("m4a", "png")])
def test_a_cover_is_no_video(suffix, codec, tmp_path, ffmpeg):
    ffmpeg(*moving(1, 1, "64x64"), "-frames:v", "1", tmp_path / "cover.png")
    path = tmp_path / f"song.{suffix}"
    cover = ["-map", "0", "-map", "1", "-c:v", codec, "-disposition:v", "attached_pic"]
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-i", tmp_path / "cover.png", *cover, path)
    with pytest.raises(VideoError, match="has no video stream"):
        scan(path)


def test_files_without_a_video_stream_are_refused(tmp_path, ffmpeg):
    subtitles = tmp_path / "a.srt"
    subtitles.write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    ffmpeg(*moving(1, 1, "64x64"), "-frames:v", "1", tmp_path / "cover.jpg")
    attached = ["-attach", tmp_path / "cover.jpg", "-metadata:s:t", "mimetype=image/jpeg"]
    ffmpeg("-i", subtitles, *attached, tmp_path / "cover.mkv")
    for path in (subtitles, tmp_path / "cover.mkv"):
        with pytest.raises(VideoError, match="has no video stream"):
            scan(path)


def test_a_cover_beside_a_video_is_ignored(base, tmp_path, ffmpeg):
    ffmpeg(*moving(1, 1, "640x640"), "-frames:v", "1", tmp_path / "cover.png")
    path = tmp_path / "film.mp4"
    cover = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg("-i", tmp_path / "cover.png", "-i", base, *cover, path)
    info = scan(path)
    assert (info.width, info.frame_count, info.notes) == (160, 30, ())


def test_a_folder_has_no_streams(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a1.png")
    with pytest.raises(VideoError, match="--stream is for files"):
        scan(tmp_path, SourceOptions(stream=0))


# ------------------------------------------------------------------ free text


@pytest.mark.parametrize(
    "text",
    [
        "comment=Stream #0:1: Audio: aac, 44100 Hz",
        "title=-map matches no streams",
        "comment=Duration: 00:00:01.00, start",
        "comment=[error] file is corrupt",
        "comment=n: 0 pts: 5 x sar:1/1 s:9x9",
        "comment=a\n[info]   Duration: 09:00:00.00, start: 0\v#tb 0: 1/3\n0,  1,  2,  3,  4, 0x5\u2028DURATION=9:00:00",
        "[info]   Duration: 09:00:00.00, =DURATION=09:00:00.00",
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_metadata_is_escaped(text, suffix, base, tmp_path, ffmpeg):
    path = tmp_path / f"a.{suffix}"
    ffmpeg("-i", base, "-c", "copy", "-movflags", "+use_metadata_tags", "-metadata", text, path)
    info, plain = scan(path), scan(base)
    assert (info.frame_count, info.duration_s, info.complaints, info.notes) == (30, 3, (), ())
    assert info.has_audio is plain.has_audio is False
    cut = scan(path, SourceOptions(start_s=1.0, duration_s=1.0))
    assert cut.source_duration_s == pytest.approx(3.0, abs=0.05)


def test_file_names_are_not_interpreted(base, tmp_path):
    path = tmp_path / "a\n[info]   Duration: 09:00:00.00, start.mp4"
    path.write_bytes(base.read_bytes())
    assert scan(path, SourceOptions(duration_s=1.0)).frame_count == 10


# ------------------------------------------------------------------ time


@pytest.mark.parametrize("suffix", ["gif", "webp", "apng"])
def test_a_last_picture_is_held(suffix, tmp_path):
    images = [Image.new("RGB", (32, 24), (25 * i, 0, 0)) for i in range(10)]
    path = tmp_path / f"a.{suffix}"
    kind = "PNG" if suffix == "apng" else None
    images[0].save(path, kind, save_all=True, append_images=images[1:], duration=[100] * 9 + [3000], loop=0)
    info, frames = frames_of(path)
    assert (len(frames), info.duration_s, info.variable_frame_rate) == (10, pytest.approx(3.9), True)
    assert info.frame_rate == 10


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_last_frame_is_held_in_a_recording(suffix, tmp_path, ffmpeg):
    """Frames at 0 to 2.9, 4.5 and 6 s, the last stated to stay 2 s."""
    path = tmp_path / f"a.{suffix}"
    held = "setts=duration=if(gte(PTS*TB\\,5.9)\\,2/TB\\,DURATION)"
    chosen = ["-vf", "select='lt(n,30)+eq(n,45)+eq(n,60)'", "-fps_mode", "vfr", *X264, "-bf", "0", "-bsf:v", held]
    ffmpeg(*moving(8), *chosen, path)
    info = scan(path)
    assert (info.frame_count, info.variable_frame_rate) == (32, True)
    assert info.duration_s == pytest.approx(8.0, abs=0.02)
    assert scan(path, SourceOptions(duration_s=7.0)).duration_s == pytest.approx(7.0, abs=0.02)


def test_one_picture_every_fifteen_seconds(tmp_path, ffmpeg):
    for gap in (15, 3600):
        path = tmp_path / f"every{gap}.mkv"
        slow = ["-vf", f"setpts=N*{gap}/TB", "-fps_mode", "passthrough", *X264]
        ffmpeg(*moving(4, 1, "64x48"), *slow, path)
        info = scan(path)
        assert (info.frame_count, info.frame_rate, info.duration_s) == (4, Fraction(1, gap), pytest.approx(4 * gap))
        assert segment_lengths(info.frame_count, float(info.frame_rate), "10s") == [4]


def test_segments_of_slow_videos_have_several_frames():
    assert segment_lengths(60, 1 / 9, "10s") == [60]
    assert segment_lengths(125, 1 / 9, "10s") == [62, 63]
    assert segment_lengths(12, 1 / 15, "1s") == [6, 6]
    assert segment_lengths(250, 25.0, "10s") == [250]
    assert segment_lengths(50, 25.0, "1s") == [25, 25]


def test_a_stream_that_states_no_rate(tmp_path, ffmpeg):
    path = tmp_path / "raw.mjpeg"
    ffmpeg(*moving(2, 50), "-c:v", "mjpeg", "-f", "mjpeg", path)
    info = scan(path)
    assert (info.frame_rate, info.frame_count) == (25, 100)
    assert info.notes == ("raw.mjpeg: states no frame rate; 25 frames a second are assumed (--fps)",)
    info, everything = frames_of(path, frame_rate=Fraction(50))
    assert (info.frame_rate, info.duration_s, info.notes) == (50, pytest.approx(2.0), ())
    info, part = frames_of(path, frame_rate=Fraction(50), start_s=1.0, duration_s=0.5)
    assert info.frame_count == 25
    assert np.array_equal(part, everything[50:75])


@pytest.mark.parametrize(("suffix", "codec"), [("h264", "libx264"), ("m2v", "mpeg2video"), ("ts", "libx264")])
def test_a_start_in_a_file_with_a_wrong_index(suffix, codec, tmp_path, ffmpeg):
    path = tmp_path / f"a.{suffix}"
    ffmpeg(*moving(2, 50), "-c:v", codec, "-g", "250", path)
    info, everything = frames_of(path)
    assert (info.frame_rate, len(everything), info.notes) == (50, 100, ())
    info, part = frames_of(path, start_s=1.0)
    assert np.array_equal(part, everything[50:])
    assert not info.input.seeks
    with pytest.raises(VideoError, match="frame rate of its own"):
        scan(path, SourceOptions(frame_rate=Fraction(30)))
    with pytest.raises(VideoError, match="no frame at or after 9 s"):
        scan(path, SourceOptions(start_s=9.0))


def test_a_frame_size_that_changes(tmp_path, ffmpeg):
    parts = [tmp_path / "a.ts", tmp_path / "b.ts"]
    for part, size in zip(parts, ("64x48", "96x96"), strict=True):
        ffmpeg(*moving(1, 10, size), *X264, part)
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    _, frames = frames_of(tmp_path / "both.ts")
    assert frames.shape == (20, 48, 64, 3)


def test_streams_that_begin_at_different_times_have_one_clock(tmp_path, ffmpeg):
    path = tmp_path / "late.ts"
    ffmpeg("-f", "lavfi", "-i", "sine=d=3", "-itsoffset", "0.8", *moving(), "-map", "1", "-map", "0", *X264, path)
    assert scan(path).first_frame_s == pytest.approx(0.8, abs=0.03)


def test_a_clock_that_jumps(tmp_path, ffmpeg):
    """As in joined recordings: the second part begins long after, the third before the first."""
    path = tmp_path / "joined.ts"
    with open(path, "wb") as joined:
        for offset in (100, 5000, 10):
            ffmpeg(*moving(), *X264, "-output_ts_offset", offset, tmp_path / "part.ts")
            joined.write((tmp_path / "part.ts").read_bytes())
    info = scan(path)
    assert (info.frame_count, info.frame_rate, info.variable_frame_rate) == (90, 10, False)


@pytest.fixture(scope="module")
def retagged(tmp_path_factory, ffmpeg):
    """A few frames of H.264 whose stream states one code point of H.273."""
    folder = tmp_path_factory.mktemp("tags")
    ffmpeg(*moving(0.3, 10, "64x48"), "-vf", "gblur=3", *X264, folder / "base.mp4")

    def make(tag: str, value: int) -> Path:
        path = folder / "tagged.mp4"
        ffmpeg("-i", folder / "base.mp4", "-c", "copy", "-bsf:v", f"h264_metadata={tag}={value}", path)
        return path

    return make


def test_transfer_and_primaries_change_no_sample(retagged):
    """Whatever they are: log, reserved or unknown."""
    _, plain = frames_of(retagged("transfer_characteristics", 2))
    for tag, count in (("transfer_characteristics", 19), ("colour_primaries", 23)):
        for value in range(count):
            assert np.array_equal(frames_of(retagged(tag, value))[1], plain), (tag, value)


LUMA = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}  # others: BT.601


def blocks(frame):
    """Means of 8 x 8 pixels, in which it does not matter how chroma is interpolated."""
    return frame.reshape(6, 8, 8, 8, 3).mean((1, 3))


def test_a_matrix_is_known_or_named(retagged):
    info, _ = frames_of(retagged("matrix_coefficients", 2))
    (y, u, v), *_ = (tuple(map(np.squeeze, planes)) for planes in read_planes(info, None, plane_format(info)))
    y, u, v = (y - 16.0) * 255 / 219, *((plane.repeat(2, 0).repeat(2, 1) - 128.0) * 255 / 224 for plane in (u, v))
    for matrix in range(18):
        path = retagged("matrix_coefficients", matrix)
        if matrix in (8, *range(10, 18)):
            for read in (frames_of, lambda path: plane_format(scan(path))):
                with pytest.raises(VideoError, match=rf"its colours are .* \(matrix {matrix} of H.273\)"):
                    read(path)
            continue
        red, blue = LUMA.get(matrix, (0.299, 0.114))
        r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
        right = np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1).clip(0, 255)
        info, (first, *_) = frames_of(path)
        form = plane_format(info)
        for frame, off in ((first, 1.3), (to_rgb8(next(read_planes(info, None, form)), form)[0], 3)):
            assert np.abs(blocks(frame) - blocks(right)).mean() < off  # BT.601 for BT.709 is 3 more


@pytest.mark.parametrize("base", ["av1", "copy"])
def test_a_log_transfer_is_encoded(base, retagged, tmp_path):
    settings = {"base": base, "encoder": "none"} | ({"crf": 10} if base == "av1" else {})
    shown = []
    for transfer in (2, 9):
        nervcodec.encode(retagged("transfer_characteristics", transfer), tmp_path / f"{transfer}.nerv", **settings)
        with nervcodec.open(tmp_path / f"{transfer}.nerv") as video:
            assert video.header.base.planes.transfer == transfer
            shown.append(np.stack([video[n] for n in range(len(video))]))
    assert np.array_equal(*shown)


def test_interlacing_is_noted_once(base, tmp_path, ffmpeg):
    path = tmp_path / "fields.mp4"
    fields = ["tinterlace=interleave_top", *X264, "-flags", "+ilme+ildct"]
    ffmpeg("-i", base, "-vf", *fields, path)
    (note,) = scan(path).notes
    assert note.startswith("fields.mp4: 15 of 15 frames are interlaced; their two fields stay woven")
    assert not scan(base).notes


# ------------------------------------------------------------------ what is no file


def test_frames_that_are_pipes_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    os.mkfifo(tmp_path / "2.png")
    with pytest.raises(VideoError, match=r"2\.png: is no file"):
        scan(tmp_path)


def test_pipes_and_devices_are_refused_at_once(base, tmp_path, run):
    fifo = tmp_path / "p.ts"
    os.mkfifo(fifo)
    for source in (fifo, "/dev/stdin", "-", "/dev/null"):
        result = run("encode", source, "-o", tmp_path / "a.nerv", "--time", "3s", "--encoder", "none")
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert "the source is read more than once and must be a file" in result.stderr
    piped = f"{NERV} encode <(cat {base}) -o a.nerv"
    result = subprocess.run(["bash", "-c", piped], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "must be a file" in result.stderr
    assert not (tmp_path / "a.nerv").exists()
