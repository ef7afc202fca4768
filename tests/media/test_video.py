# SPDX-License-Identifier: MIT
import re
import subprocess
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from nervcodec.errors import VideoError
from nervcodec.media.reader import read_frames, read_segment
from nervcodec.media.source import SourceOptions, scan
from nervcodec.media.writer import VideoFormat, write_video, write_y4m


def frames_of(path, **options):
    chosen = SourceOptions(**options)
    info = scan(path, chosen)
    return info, np.stack(list(read_frames(info, chosen)))


def raw_frames(path, width, height, *extra):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), *extra]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)


def test_facts_of_the_clips(bikes, bunny, carphone):
    info = scan(bikes)
    assert (info.width, info.height, info.frame_count, info.frame_rate) == (640, 272, 250, 25)
    assert info.file_bytes == 509_868
    assert not info.variable_frame_rate
    info = scan(bunny)
    assert (info.width, info.height, info.frame_count, info.frame_rate) == (1280, 720, 132, 25)
    info = scan(carphone)
    assert (info.width, info.height, info.frame_count) == (176, 144, 120)
    assert info.frame_rate == Fraction(30000, 1001)
    assert info.sample_aspect_ratio == Fraction(128, 117)


def test_pixels_equal_those_of_ffmpeg(bikes):
    _, frames = frames_of(bikes, duration_s=1.0)
    assert np.array_equal(frames, raw_frames(bikes, 640, 272, "-frames:v", "25"))


def test_crop_is_from_the_middle(bunny):
    info, frames = frames_of(bunny, crop=(640, 1280), duration_s=0.2)
    assert (info.width, info.height) == (1280, 640)
    assert np.array_equal(frames, raw_frames(bunny, 1280, 640, "-frames:v", "5", "-vf", "crop=1280:640"))


def test_start_and_duration(bikes):
    _, everything = frames_of(bikes, duration_s=2.0)
    info, part = frames_of(bikes, start_s=1.0, duration_s=0.48)
    assert info.frame_count == 12
    assert np.array_equal(part, everything[25:37])
    assert info.times_s[0] == 0
    with pytest.raises(VideoError, match="no frame at or after"):
        scan(bikes, SourceOptions(start_s=99.0))


def test_scale_changes_the_shape_of_a_pixel(bikes):
    info, frames = frames_of(bikes, scale=(320, 272), duration_s=0.2)
    assert frames.shape == (5, 272, 320, 3)
    assert info.sample_aspect_ratio == 2
    assert scan(bikes, SourceOptions(scale=0.5)).sample_aspect_ratio == 1
    with pytest.raises(VideoError, match="cannot crop"):
        scan(bikes, SourceOptions(crop=(2000, 2000)))


def test_rotation_is_applied(bikes, tmp_path, ffmpeg):
    turned = tmp_path / "turned.mp4"
    ffmpeg("-i", bikes, "-t", "0.2", "-c:v", "libx264", tmp_path / "plain.mp4")
    ffmpeg("-display_rotation", "90", "-i", tmp_path / "plain.mp4", "-c", "copy", turned)
    info, frames = frames_of(turned)
    assert (info.width, info.height) == (272, 640)
    assert frames.shape[1:] == (640, 272, 3)
    plain = frames_of(tmp_path / "plain.mp4")[1]
    assert np.array_equal(frames, np.rot90(plain, 1, axes=(1, 2)))


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p", "gray", "yuvj420p", "rgb24"])
def test_pixel_formats(pixel_format, bikes, tmp_path, ffmpeg):
    path = tmp_path / "a.mkv"
    ffmpeg("-i", bikes, "-t", "0.2", "-pix_fmt", pixel_format, "-c:v", "ffv1", path)
    _, frames = frames_of(path)
    assert np.array_equal(frames, raw_frames(path, 640, 272))


@pytest.mark.parametrize("size", ["1x1", "3x5", "17x31"])
def test_odd_and_tiny_sizes(size, tmp_path, ffmpeg):
    path = tmp_path / "a.mkv"
    ffmpeg(
        "-f", "lavfi", "-i", f"testsrc=size={size}:rate=10:duration=0.5", "-pix_fmt", "yuv444p", "-c:v", "ffv1", path
    )
    width, height = map(int, size.split("x"))
    info, frames = frames_of(path)
    assert frames.shape == (5, height, width, 3)


def test_variable_frame_rate_keeps_times(bikes, tmp_path, ffmpeg):
    path = tmp_path / "vfr.mkv"
    select = "select='not(mod(n,2))+lt(n,20)',settb=1/1000"
    ffmpeg(
        "-i", bikes, "-t", "2", "-vf", select, "-fps_mode", "passthrough", "-c:v", "libx264", "-preset", "fast", path
    )
    info, frames = frames_of(path)
    assert info.variable_frame_rate
    assert info.frame_count == 35 == len(frames)
    assert info.times_s[19] == pytest.approx(0.76, abs=0.002)
    assert info.times_s[21] == pytest.approx(0.88, abs=0.002)
    assert info.duration_s == pytest.approx(2.0, abs=0.05)


def images(folder, numbers, size=(16, 8), suffix="png"):
    folder.mkdir(exist_ok=True)
    for n in numbers:
        Image.new("RGB", size, (n * 10 % 256, 0, 0)).save(folder / f"shot_{n}.{suffix}")
    return folder


def test_a_folder_of_frames(tmp_path):
    info, frames = frames_of(images(tmp_path / "a", range(8, 13)), frame_rate=Fraction(10))
    assert frames[:, 0, 0, 0].tolist() == [80, 90, 100, 110, 120]  # by number: 8, 9, 10, not 10, 11, 8
    assert info.frame_rate == 10
    assert info.duration_s == pytest.approx(0.5)
    info, frames = frames_of(tmp_path / "a", frame_rate=Fraction(10), start_s=0.1, duration_s=0.2)
    assert frames[:, 0, 0, 0].tolist() == [90, 100]
    assert frames_of(images(tmp_path / "j", range(3), suffix="jpg"))[0].frame_count == 3


def test_a_frame_rate_is_for_folders(bikes):
    with pytest.raises(VideoError, match="--fps is for folders"):
        scan(bikes, SourceOptions(frame_rate=Fraction(30)))


def test_a_photograph_with_a_second_picture_inside(tmp_path):
    """As phones store previews and gain maps: one JPEG file behind the other."""
    folder = images(tmp_path / "a", range(3), suffix="jpg")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes() * 2)
    assert frames_of(folder)[0].frame_count == 3


def test_bad_folders(tmp_path):
    with pytest.raises(VideoError, match="no PNG or JPEG"):
        scan(images(tmp_path / "none", []))
    with pytest.raises(VideoError, match="frame 3 is missing"):
        scan(images(tmp_path / "gap", [1, 2, 4]))
    images(tmp_path / "mixed", [1])
    with pytest.raises(VideoError, match="both PNG and JPEG"):
        scan(images(tmp_path / "mixed", [2], suffix="jpg"))
    images(tmp_path / "sizes", [1, 2])
    with pytest.raises(VideoError, match="differ in size"):
        scan(images(tmp_path / "sizes", [3], size=(20, 20)))
    broken = images(tmp_path / "broken", [1, 2, 3])
    (broken / "shot_2.png").write_bytes(b"not an image")
    with pytest.raises(VideoError, match="could be read"):
        scan(broken)


def test_damage_is_concealed_and_reported(bikes, tmp_path):
    blob = bytearray(bikes.read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    blob[len(blob) // 2 : len(blob) // 2 + 4000] = noise
    (tmp_path / "a.mp4").write_bytes(blob)
    info, frames = frames_of(tmp_path / "a.mp4")
    assert 200 < len(frames) < 250
    assert (match := re.search(r"near frames (\d+) to (\d+) .* (\d+) frames? missing", info.complaints[-1]))
    first, last, missing = map(int, match.groups())
    assert 90 < first <= last < 140
    assert missing == 250 - len(frames)
    whole = frames_of(bikes)[1]
    assert np.array_equal(frames[: first - 20], whole[: first - 20])
    assert np.array_equal(frames[-50:], whole[-50:])  # the time after it is not touched
    assert info.times_s[-1] == pytest.approx(249 / 25)


def test_damaged_files_decode_the_same_every_time(bikes, tmp_path):
    """Frames decoded side by side would be concealed with whatever was decoded by then."""
    blob = bytearray(bikes.read_bytes())
    rng = np.random.default_rng(5)
    for place in rng.integers(20_000, len(blob) - 20_000, 12):
        blob[place] ^= 1 << int(rng.integers(8))
    (tmp_path / "a.mp4").write_bytes(blob)
    info, frames = frames_of(tmp_path / "a.mp4")
    assert info.frame_count == 250
    assert not info.input.threads
    assert "near frames 21 to 2" in info.complaints[-1]
    again, more = frames_of(tmp_path / "a.mp4")
    assert np.array_equal(info.checksums, again.checksums)
    assert np.array_equal(frames, more)


def test_a_truncated_download(bikes, tmp_path, ffmpeg):
    """With its index at the front the frames before the cut can be read; without an index, none."""
    ffmpeg("-i", bikes, "-c", "copy", "-movflags", "+faststart", tmp_path / "front.mp4")
    half = (tmp_path / "front.mp4").read_bytes()[:250_000]
    (tmp_path / "half.mp4").write_bytes(half)
    info, frames = frames_of(tmp_path / "half.mp4")
    assert 90 < len(frames) < 160
    assert "partial file" in " ".join(info.complaints)
    ffmpeg("-i", bikes, "-c", "copy", tmp_path / "front.mkv")
    (tmp_path / "half.mkv").write_bytes((tmp_path / "front.mkv").read_bytes()[:250_000])
    assert "partial file" in " ".join(scan(tmp_path / "half.mkv").complaints)
    (tmp_path / "tail.mp4").write_bytes(bikes.read_bytes()[:250_000])
    with pytest.raises(VideoError, match="no frame could be read"):
        scan(tmp_path / "tail.mp4")


def test_interlaced_alpha_and_huge(bikes, tmp_path, ffmpeg):
    """Fields stay woven into their frame, what is transparent is shown as its colour, 8K is a frame like any other."""
    fields = tmp_path / "fields.mkv"
    ffmpeg("-i", bikes, "-t", "0.2", "-vf", "tinterlace=interleave_top", "-c:v", "ffv1", "-flags", "+ilme", fields)
    assert np.array_equal(frames_of(fields)[1], raw_frames(fields, 640, 272))
    alpha = tmp_path / "alpha.mkv"
    ffmpeg("-i", bikes, "-t", "0.1", "-vf", "format=rgba,colorchannelmixer=aa=0.3", "-c:v", "ffv1", alpha)
    assert np.array_equal(frames_of(alpha)[1], raw_frames(alpha, 640, 272))
    huge = tmp_path / "huge.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=7680x4320:rate=10:duration=0.1", "-c:v", "mjpeg", huge)
    info, frames = frames_of(huge)
    assert frames.shape == (1, 4320, 7680, 3)
    assert info.frame_count == 1


def test_other_files_are_refused(tmp_path, ffmpeg):
    with pytest.raises(VideoError, match="no such file"):
        scan(tmp_path / "none.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    with pytest.raises(VideoError, match="no frame could be read"):
        scan(text)
    sound = tmp_path / "sound.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.2", sound)
    with pytest.raises(VideoError, match="no video stream"):
        scan(sound)
    empty = tmp_path / "empty.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=32x32", "-frames:v", "0", "-c:v", "ffv1", empty)
    with pytest.raises(VideoError, match="no frame"):
        scan(empty)


@pytest.mark.parametrize(
    "name", ["a b.mp4", "-dash.mp4", 'it\'s "q".mp4', "\u6c34 \u00e9.mp4", "100%d.mp4", "a\nb.mp4"]
)
def test_awkward_names(name, carphone, tmp_path):
    path = tmp_path / name
    path.write_bytes(carphone.read_bytes())
    assert scan(path).frame_count == 120


@pytest.mark.parametrize(("suffix", "size"), [(".mp4", (32, 24)), (".mkv", (31, 17)), (".y4m", (31, 17))])
def test_written_frames_are_read_back(suffix, size, tmp_path):
    width, height = size
    ramp = np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)
    frames = [np.stack([np.roll(ramp, i), ramp, ramp[::-1]], axis=-1) for i in range(4)]
    path = tmp_path / f"out{suffix}"
    write_video(path, frames, VideoFormat(width, height, Fraction(30000, 1001), Fraction(4, 3)), crf=1)
    info, back = frames_of(path)
    assert info.frame_count == 4
    assert info.frame_rate == Fraction(30000, 1001)
    assert info.sample_aspect_ratio == Fraction(4, 3)
    tolerance = 3 if width % 2 else 40  # 4:2:0 halves the resolution of colour
    assert np.abs(back.astype(int) - np.stack(frames)).mean() < tolerance
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_y4m_on_a_stream(tmp_path):
    with open(tmp_path / "a.y4m", "wb") as stream:
        write_y4m(stream, [np.zeros((5, 7, 3), np.uint8)] * 2, VideoFormat(7, 5, Fraction(25)))
    assert (tmp_path / "a.y4m").read_bytes().startswith(b"YUV4MPEG2 W7 H5 F25:1")


def test_a_failed_write_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros((16, 16, 3), np.uint8)
        raise RuntimeError("the network went away")

    with pytest.raises(RuntimeError):
        write_video(tmp_path / "a.mp4", frames(), VideoFormat(16, 16, Fraction(25)))
    assert list(tmp_path.iterdir()) == []


def test_segments_are_read_in_order(bikes):
    options = SourceOptions(duration_s=1.0, scale=0.25)
    info = scan(bikes, options)
    frames = read_frames(info, options)
    parts = [read_segment(frames, 10), read_segment(frames, 15)]
    assert np.array_equal(np.concatenate(parts), np.stack(list(read_frames(info, options))))
