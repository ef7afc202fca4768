# SPDX-License-Identifier: MIT
"""Samples of a source: their format, and that they are kept bit for bit."""

import subprocess
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest
from streams import samples_of

from nervcodec.errors import VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.media import planes
from nervcodec.media.options import SourceOptions
from nervcodec.media.reader import plane_format, read_frames, read_planes
from nervcodec.media.source import scan
from nervcodec.media.writer import write_pngs


def raw(path, pixels, *filters):
    """All frames by ffmpeg alone."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-fps_mode", "passthrough", *filters]
    command += ["-f", "rawvideo", "-pix_fmt", pixels, "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def read(path, options=None):
    """(format, bytes of all frames) as the library reads them."""
    info = scan(path, options)
    form = plane_format(info, options)
    return form, b"".join(samples_of(frame) for frame in read_planes(info, options, form))


def test_a_real_clip_is_kept_bit_for_bit(bikes):
    form, data = read(bikes)
    assert form == PlaneFormat(8, "420", 2, False, "left")
    assert data == raw(bikes, "yuv420p")


def test_a_crop_is_kept_bit_for_bit(bunny):
    options = SourceOptions(crop=(640, 1280), duration_s=1.0)
    form, data = read(bunny, options)
    assert len(data) == 25 * 640 * 1280 * 3 // 2
    assert data == raw(bunny, "yuv420p", "-t", "1", "-vf", "crop=1280:640")


def made(ffmpeg, path, filters, *output, size="64x48", source="testsrc2="):
    ffmpeg("-f", "lavfi", "-i", f"{source}s={size}:d=0.2:r=25", "-vf", filters, *output, path)
    return path


TAGS = "setparams=range={}:colorspace={}:color_primaries={}:color_trc={}"


@pytest.mark.parametrize(
    ("pixels", "tags", "expected"),
    [
        ("yuv420p", ("tv", "bt709", "bt709", "bt709"), PlaneFormat(8, "420", 1, False, "left", 1, 1)),
        ("yuv422p", ("tv", "bt470bg", "bt470bg", "bt470bg"), PlaneFormat(8, "422", 5, False, "left", 5, 5)),
        ("yuv444p", ("pc", "smpte170m", "smpte170m", "smpte170m"), PlaneFormat(8, "444", 6, True, "left", 6, 6)),
        ("yuv420p10le", ("pc", "bt2020nc", "bt2020", "smpte2084"), PlaneFormat(10, "420", 9, True, "left", 9, 16)),
        ("yuv422p10le", ("tv", "bt709", "bt709", "bt709"), PlaneFormat(10, "422", 1, False, "left", 1, 1)),
        ("yuv444p10le", ("tv", "bt2020nc", "bt2020", "bt709"), PlaneFormat(10, "444", 9, False, "left", 9, 1)),
        ("gbrp", ("pc", "gbr", "bt709", "bt709"), PlaneFormat(8, "444", 0, True, "left", 1, 1)),
        ("gbrp10le", ("pc", "gbr", "bt709", "bt709"), PlaneFormat(10, "444", 0, True, "left", 1, 1)),
    ],
)
def test_pixel_formats_that_are_kept(pixels, tags, expected, tmp_path, ffmpeg):
    filters = f"format={pixels},{TAGS.format(*tags)}"
    output = ("-c:v", "libx264", "-qp", "0") if pixels != "gbrp" else ("-c:v", "libx264rgb", "-qp", "0")
    output = ("-c:v", "ffv1") if pixels == "gbrp10le" else output
    path = made(ffmpeg, tmp_path / "a.mkv", filters, *output)
    form, data = read(path)
    assert form == expected
    assert planes.pixel_format(form) == pixels
    assert data == raw(path, pixels)


@pytest.mark.parametrize("pixels", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_a_jpeg_s_full_range_is_not_converted(pixels, tmp_path, ffmpeg):
    path = made(ffmpeg, tmp_path / "a.avi", f"scale=out_range=pc,format={pixels}", "-c:v", "mjpeg", "-q:v", "2")
    form, data = read(path)
    assert (form.depth, form.chroma, form.matrix, form.full_range) == (8, pixels[4:7], 5, True)
    assert form.chroma_place == "center"
    assert data == raw(path, pixels)


def test_top_left_chroma_siting(tmp_path, ffmpeg):
    x265 = ("-c:v", "libx265", "-x265-params", "log-level=none:chromaloc=2")
    form, _ = read(made(ffmpeg, tmp_path / "a.mp4", "format=yuv420p", *x265))
    assert form.chroma_place == "topleft"


@pytest.mark.parametrize(
    ("pixels", "codec", "expected"),
    [
        ("yuyv422", "rawvideo", PlaneFormat(8, "422")),
        ("nv12", "rawvideo", PlaneFormat(8, "420")),
        ("yuv420p12le", "ffv1", PlaneFormat(10, "420")),
        ("yuv444p16le", "ffv1", PlaneFormat(10, "444")),
        ("yuva420p", "ffv1", PlaneFormat(8, "420")),
        ("yuv410p", "ffv1", PlaneFormat(8, "420")),
        ("yuv411p", "ffv1", PlaneFormat(8, "422")),
        ("yuv440p", "ffv1", PlaneFormat(8, "444")),
        ("gray", "ffv1", PlaneFormat(8, "420", full_range=True)),
        ("gray10le", "ffv1", PlaneFormat(10, "420", full_range=True)),
        ("monob", "rawvideo", PlaneFormat(8, "420", full_range=True)),
        ("pal8", "gif", PlaneFormat(8, "444", 0, True)),
        ("rgb24", "rawvideo", PlaneFormat(8, "444", 0, True)),
        ("bgr0", "ffv1", PlaneFormat(8, "444", 0, True)),
        ("rgb48le", "rawvideo", PlaneFormat(10, "444", 0, True)),
    ],
)
def test_pixel_formats_that_are_converted(pixels, codec, expected, tmp_path, ffmpeg):
    suffix = ".gif" if codec == "gif" else ".nut"
    path = tmp_path / f"a{suffix}"
    ffmpeg("-f", "lavfi", "-i", "gradients=s=64x48:d=0.2:r=25:n=2:seed=3", "-pix_fmt", pixels, "-c:v", codec, path)
    info = scan(path)
    form = plane_format(info)
    assert (form.depth, form.chroma, form.matrix == 0, form.full_range) == (
        expected.depth,
        expected.chroma,
        expected.matrix == 0,
        expected.full_range,
    )
    for frame, rgb in zip(read_planes(info, None, form), read_frames(info), strict=True):
        assert np.abs(colours(frame, form) - rgb).mean() < 2.5


def colours(frame, form):
    """A frame in RGB by the formulas of the standards, each chroma sample repeated."""
    down, across = form.chroma_step
    y, *chroma = (plane[0].astype(float) / (1 << form.depth - 8) for plane in frame)
    u, v = (plane.repeat(down, 0).repeat(across, 1)[: y.shape[0], : y.shape[1]] for plane in chroma)
    if form.matrix == 0:
        return np.stack([v, y, u], -1)
    red, blue = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}.get(form.matrix, (0.299, 0.114))
    if not form.full_range:
        y, u, v = (y - 16) * 255 / 219, (u - 128) * 255 / 224 + 128, (v - 128) * 255 / 224 + 128
    r, b = y + 2 * (1 - red) * (v - 128), y + 2 * (1 - blue) * (u - 128)
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1)


def test_equivalent_pixel_formats_give_the_same_samples(tmp_path, ffmpeg):
    for pixels, plain in (("nv12", "yuv420p"), ("yuyv422", "yuv422p"), ("yuva420p", "yuv420p")):
        codec = "ffv1" if pixels == "yuva420p" else "rawvideo"
        path = made(ffmpeg, tmp_path / f"{pixels}.nut", f"format={plain},format={pixels}", "-c:v", codec)
        assert read(path)[1] == raw(path, plain)


def test_grey_keeps_its_luma(tmp_path, ffmpeg):
    for pixels, of_one in (("gray", 1), ("gray10le", 2)):
        path = made(ffmpeg, tmp_path / f"{pixels}.mkv", f"format={pixels}", "-c:v", "ffv1")
        _, data = read(path)
        luma = 64 * 48 * of_one
        grey = raw(path, pixels)
        assert data[:luma] == grey[:luma]
        assert set(np.frombuffer(data, np.uint8 if of_one == 1 else "<u2")[64 * 48 : 64 * 48 * 3 // 2]) == {
            128 if of_one == 1 else 512
        }


def test_a_folder_of_images_is_planes_of_rgb(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3)).astype(np.uint8)
    for number, picture in enumerate(pictures):
        write_pngs(tmp_path, [(number, picture)], 1)
    info = scan(tmp_path)
    form = plane_format(info)
    assert form.matrix == 0
    frames = list(read_planes(info, None, form))
    green, blue, red = (np.concatenate(plane) for plane in zip(*frames, strict=True))
    assert (np.stack([red, green, blue], -1) == pictures).all()


def test_odd_sides_and_scaling(bikes):
    options = SourceOptions(scale=(31, 17), duration_s=0.2)
    info = scan(bikes, options)
    form = plane_format(info, options)
    frames = list(read_planes(info, options, form))
    assert len(frames) == 5
    assert [plane.shape for plane in frames[0]] == [(1, 17, 31), (1, 9, 16), (1, 9, 16)]
    for frame, rgb in zip(frames, read_frames(info, options), strict=True):
        assert np.abs(colours(frame, form) - rgb).mean() < 4


def test_a_frame_one_pixel_high_or_wide(tmp_path, ffmpeg):
    path = made(ffmpeg, tmp_path / "a.mkv", "format=yuv420p", "-c:v", "ffv1", size="1x1", source="color=teal:")
    form, data = read(path)
    assert data == raw(path, "yuv420p")
    assert len(data) == 5 * 3


def test_frames_that_change_their_size_and_range(tmp_path, ffmpeg):
    """Two MPEG-TS streams one after the other; the second is of another size and of full range."""
    first = made(ffmpeg, tmp_path / "a.ts", "format=yuv420p", "-c:v", "libx264")
    second = "scale=out_range=pc,format=yuv420p,setparams=range=pc"
    second = made(ffmpeg, tmp_path / "b.ts", second, "-c:v", "libx264", size="128x96")
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    info = scan(both)
    form = plane_format(info)
    frames = list(read_planes(info, None, form))
    assert len(frames) == info.frame_count == 10
    assert not form.full_range
    for frame, rgb in zip(frames, read_frames(info), strict=True):
        assert np.abs(colours(frame, form) - rgb).mean() < 5


def test_fewer_frames_than_were_counted(bikes):
    info = scan(bikes, SourceOptions(duration_s=0.2))
    with pytest.raises(VideoError, match=r"more than 5 frames could be read"):
        list(read_planes(info, None, plane_format(info)))


def test_padding_and_cropping_are_inverse():
    form = PlaneFormat()
    rng = np.random.default_rng(1)
    frame = planes.Planes(*(rng.integers(0, 256, (2, *size), np.uint8) for size in ((7, 5), (4, 3), (4, 3))))
    large = frame.padded(form, 16, 12)
    assert [plane.shape for plane in large] == [(2, 16, 12), (2, 8, 6), (2, 8, 6)]
    assert (large.y[:, 7:, :5] == frame.y[:, -1:]).all()
    assert (large.y[:, :, 5:] == large.y[:, :, 4:5]).all()
    assert (large.u[:, 4:, :3] == frame.u[:, -1:]).all()
    for mine, other, (h, w) in zip(large, frame, ((7, 5), (4, 3), (4, 3)), strict=True):
        assert (mine[:, :h, :w] == other).all()


def test_a_source_without_a_frame_is_refused(bikes, tmp_path):
    info = scan(bikes)
    gone = tmp_path / "gone.mp4"
    moved = type(info)(**{**vars(info), "input": type(info.input)(gone)})
    with pytest.raises(VideoError, match=r"gone.mp4: no frame could be read"):
        plane_format(moved)
    assert info.frame_rate == Fraction(25)
