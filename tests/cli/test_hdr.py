# SPDX-License-Identifier: MIT
"""What decode writes of HDR, by the real entry point."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

import nervcodec
from nervcodec.media.planes import Light, light_of, to_planes
from nervcodec.search.moments import Moment
from nervcodec.search.render import draw_best_frame

LIGHT = Light((0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329, 0.005, 1000.0), (1000, 400))
STATED = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"
SIZE, RATE = (128, 64), 25
PQ, HLG = 16, 18
WHITE, PAPER = 940, 573  # of luma; and of 203 cd/m² in PQ
GREYS = (64, PAPER, 723, WHITE)  # black, white paper, 1,000 and 10,000 cd/m²
NOTE = "tone-mapped to 8-bit BT.709"


def clip(path, transfer=PQ, layout="yuv420p10le", times=range(4)):
    """Four bars of grey, under them one that moves, in 10-bit HEVC."""
    bars = np.repeat(GREYS, SIZE[0] // 4)[None].repeat(SIZE[1], axis=0)
    with av.open(str(path), "w") as file:
        parameters = f"log-level=none:{STATED if transfer == PQ else ''}".rstrip(":")
        stream = file.add_stream("libx265", RATE, options={"crf": "4", "x265-params": parameters})
        codec = stream.codec_context
        codec.width, codec.height, codec.pix_fmt, codec.time_base = *SIZE, layout, Fraction(1, RATE)
        codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range = 9, transfer, 9, 1
        for number, time in enumerate(times):
            luma = bars.copy()
            luma[40:, 8 * number : 8 * number + 24] = 400
            frame = av.VideoFrame(*SIZE, layout)
            for plane, value in zip(frame.planes, (luma, 512, 512), strict=True):
                rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                rows[:, : plane.width] = value
                plane.update(rows.tobytes())
            frame.pts, frame.time_base = time, codec.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module", params=["av1", "copy"])
def nerv(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return encoded(clip(folder / "hdr.mp4"), request.param)


def encoded(source, base):
    crf = {"crf": 10} if base == "av1" else {}
    nervcodec.encode(source, base=base, encoder="none", **crf)
    return source.with_suffix(".nerv")


def decoded(path):
    with av.open(str(path)) as file:
        frames, codec = list(file.decode(video=0)), file.streams.video[0].codec_context
        tags = codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range
        return frames, codec.name, codec.pix_fmt, tags, codec.codec_tag


def near(frames, path):
    """Frames are those of the base, within what coding loses."""
    with nervcodec.open(path) as video:
        form = video.header.base.planes
        pairs = [(to_planes(f, form, SIZE[1], SIZE[0]), p) for f, p in zip(frames, video.planes(), strict=True)]
    return all(np.abs(a.astype(int) - b).mean() < 3 for one, other in pairs for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_video_keeps_hdr(suffix, nerv, run, tmp_path):
    result = run("decode", nerv, "-o", f"a{suffix}")
    assert result.returncode == 0, result.stderr
    assert NOTE not in result.stderr
    frames, codec, layout, tags, tag = decoded(tmp_path / f"a{suffix}")
    assert (codec, layout, tags) == ("hevc", "yuv420p10le", (9, PQ, 9, 1))
    assert suffix == ".mkv" or tag == "hvc1"
    light = light_of(frames[0])
    assert light.display == pytest.approx(LIGHT.display, abs=1e-4)
    assert light.content == LIGHT.content
    assert near(frames, nerv)


def test_tone_map_writes_8_bits(nerv, run, tmp_path):
    result = run("decode", nerv, "-o", "a.mp4", "--tone-map")
    assert result.returncode == 0, result.stderr
    assert NOTE not in result.stderr
    frames, codec, layout, tags, _ = decoded(tmp_path / "a.mp4")
    assert (codec, layout, tags, len(frames)) == ("h264", "yuv420p", (1, 1, 1, 1), 4)
    greys = frames[0].to_ndarray(format="gray8")[20, 16::32].astype(int)
    assert greys[0] <= 4
    assert 222 <= greys[1] <= 242  # PQ values themselves would be 148
    assert greys[2] >= 250


def test_images_and_y4m_are_tone_mapped_with_a_note(nerv, run, tmp_path):
    for arguments in (["--frames", "1:3", "-o", "out"], ["--frames", "0", "--scale", "0.5", "-o", "half"]):
        result = run("decode", nerv, *arguments)
        assert result.returncode == 0, result.stderr
        assert result.stderr.count(NOTE) == 1
    image, half = (np.asarray(Image.open(tmp_path / n)) for n in ("out/frame_00001.png", "half/frame_00000.png"))
    assert half.shape == (32, 64, 3)
    for pixels in (image[20, 16::32], half[10, 8::16]):
        assert np.ptp(pixels, axis=1).max() <= 3
        assert np.abs(pixels[:, 1].astype(int) - [0, 231, 255, 255]).max() <= 4
    for target in ("-", "a.y4m"):
        assert run("decode", nerv, "-o", target, binary=True).stderr.count(NOTE.encode()) == 1


def test_arrays_are_the_values_of_the_source_and_sheets_are_tone_mapped(nerv):
    with nervcodec.open(nerv) as video:
        assert video.hdr == "PQ"
        assert video[0][20, 48, 1] == pytest.approx(255 * (PAPER - 64) / (WHITE - 64), abs=2)
        moment = Moment(1.0, nerv, 0.0, 0.1, 0, 0, 3, (0, 0), (0, 0, 2, 2))
        assert np.asarray(draw_best_frame(video, moment, 128))[20, 48, 1] == pytest.approx(231, abs=3)
        assert next(video.patches([0], 0, 1, tone_map=True)).max() == pytest.approx(231, abs=3)


@pytest.mark.slow
def test_outputs_without_hdr_are_refused(nerv, run, tmp_path):
    for arguments in (["-o", "a.webm"], ["-o", "a.avi"], ["--patch", "0,0", "-o", "a.mp4"]):
        result = run("decode", nerv, *arguments)
        assert result.returncode == 2
        assert "is HDR (PQ)" in result.stderr
        assert "--tone-map writes 8-bit BT.709" in result.stderr
        assert run("decode", nerv, *arguments, "--tone-map").returncode == 0
        assert decoded(tmp_path / arguments[-1])[3] == (1, 1, 1, 1)
    result = run("decode", nerv, "--scale", "0.1", "-o", "small.mp4")
    assert result.returncode == 1
    assert "H.265 takes no frames of 13 x 6" in result.stderr
    assert not (tmp_path / "small.mp4").exists()
    assert "--tone-map has no effect" in run("decode", nerv, "--base-only", "--tone-map").stderr


@pytest.mark.parametrize(("scale", "size", "layout"), [("0.5", (64, 32), "420"), ("0.6", (77, 38), "444")])
def test_a_scaled_video(scale, size, layout, nerv, run, tmp_path):
    result = run("decode", nerv, "--scale", scale, "-o", "a.mp4")
    assert result.returncode == 0, result.stderr
    (frame, *_), _, pixel_format, tags, _ = decoded(tmp_path / "a.mp4")
    assert (frame.width, frame.height) == size
    assert (pixel_format, tags) == (f"yuv{layout}p10le", (9, PQ, 9, 1))
    luma = np.frombuffer(frame.planes[0], np.uint16).reshape(size[1], -1)[size[1] // 4, : size[0]]
    assert np.abs(luma[size[0] // 8 :: size[0] // 4][:4].astype(int) - GREYS).max() <= 8


@pytest.mark.parametrize("layout", ["yuv422p10le", "yuv444p10le"])
def test_other_chroma_stays_in_a_copy(layout, run, tmp_path):
    nerv = encoded(clip(tmp_path / "a.mkv", layout=layout), "copy")
    assert run("decode", nerv, "-o", "b.mp4").returncode == 0
    frames, _, pixel_format, _, _ = decoded(tmp_path / "b.mp4")
    assert pixel_format == layout
    assert near(frames, nerv)


def test_hlg_and_a_variable_rate(run, tmp_path):
    nerv = encoded(clip(tmp_path / "a.mkv", HLG, times=[0, 1, 2, 6]), "av1")
    result = run("decode", nerv, "-o", "b.mp4")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("variable frame rate") == 1
    frames, _, _, tags, _ = decoded(tmp_path / "b.mp4")
    assert tags == (9, HLG, 9, 1)
    assert len(frames) == 7
    assert light_of(frames[0]) is None


def test_a_network_alone_notes_that_it_is_fitted_to_hdr_values(run, tmp_path):
    clip(tmp_path / "a.mp4")
    result = run("encode", "a.mp4", "--epochs", "1", "--encoder", "none")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("is HDR (PQ); a network alone is fitted to its PQ values in 8 bits") == 1
    result = run("decode", "a.nerv", "-o", "b.mp4", "--tone-map")
    assert result.returncode == 0, result.stderr
    assert "--tone-map changes nothing" in result.stderr
    assert decoded(tmp_path / "b.mp4")[3] == (1, 1, 1, 1)
