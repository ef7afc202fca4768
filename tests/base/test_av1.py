# SPDX-License-Identifier: MIT
"""The base stream: coding, decoding, sizes, damage, and an ffmpeg that lacks or hangs."""

import os
import subprocess
import time
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest

from nervcodec.base import av1, obu
from nervcodec.base.convert import base_format, to_base
from nervcodec.errors import ContainerError, VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.video.options import SourceOptions
from nervcodec.video.planes import Planes, chroma_size, plane_format, read_planes
from nervcodec.video.source import scan

RATE = Fraction(25)


def moving(form, width, height, count):
    """Smooth frames that move."""
    kind, scale = (np.uint8, 1) if form.depth == 8 else (np.uint16, 4)

    def plane(size, time_):
        y, x = np.mgrid[: size[0], : size[1]]
        return ((128 + 60 * np.sin((x + 2 * time_) / 9 + y / 7)) * scale).astype(kind)[None]

    sizes = ((height, width), *([chroma_size(form, height, width)] * 2))
    return [Planes(*(plane(size, number + i) for i, size in enumerate(sizes))) for number in range(count)]


def psnr(mine, other, form):
    errors = [np.mean((a.y.astype(float) - b.y) ** 2) for a, b in zip(mine, other, strict=True)]
    return 10 * np.log10(((1 << form.depth) - 1) ** 2 / max(np.mean(errors), 1e-9))


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 1), (17, 31), (64, 64), (130, 66), (65, 300)])
@pytest.mark.parametrize("count", [1, 7])
def test_there_and_back(depth, width, height, count):
    form = PlaneFormat(depth, matrix=1)
    frames = moving(form, width, height, count)
    stream = av1.encode(frames, form, width, height, RATE, 10, 10)
    decoded = list(av1.decode(stream, form, width, height, count))
    assert [p.shape for p in decoded[0]] == [p.shape for p in frames[0]]
    assert psnr(decoded, frames, form) > 38


def by_another(stream, pixels):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "obu", "-c:v", "libaom-av1", "-i", "-"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", pixels, "-"]
    return subprocess.run(command, input=b"".join(obu.delimited(stream)), check=True, capture_output=True).stdout


@pytest.mark.parametrize("depth", [8, 10])
def test_a_real_clip_decodes_to_the_same_bits_by_another_decoder(bikes, depth):
    options = SourceOptions(scale=0.5, duration_s=2.0)
    info = scan(bikes, options)
    source = plane_format(info, options)
    form = base_format(source, depth)
    frames = [to_base(frame, source, depth) for frame in read_planes(info, options, source)]
    stream = av1.encode(frames, form, info.width, info.height, RATE, 40, 10)
    decoded = list(av1.decode(stream, form, info.width, info.height, 50))
    data = b"".join(frame.tobytes() for frame in decoded)
    assert data == by_another(stream, "yuv420p" if depth == 8 else "yuv420p10le")
    assert psnr(decoded, frames, form) > 32
    assert len(stream) < 60_000


def test_one_key_frame_and_no_more(bikes, tmp_path):
    """Several shots and 250 frames; packets that are no key frames carry a flag in framecrc."""
    options = SourceOptions(scale=0.2)
    info = scan(bikes, options)
    form = plane_format(info, options)
    stream = av1.encode(read_planes(info, options, form), form, info.width, info.height, RATE, 50, 12)
    path = tmp_path / "a.obu"
    path.write_bytes(b"".join(obu.delimited(stream)))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-c", "copy", "-f", "framecrc", "-"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    packets = [line for line in lines if not line.startswith("#")]
    assert len(packets) == 250
    assert ["F=0x0" in line for line in packets] == [False] + [True] * 249


def test_the_stream_says_its_colours():
    form = PlaneFormat(10, "420", 9, True, "topleft", 9, 16)
    sequence = obu.read_sequence(av1.encode(moving(form, 64, 64, 2), form, 64, 64, RATE, 40, 12))
    assert (sequence.colours, sequence.full_range, sequence.depth) == ((9, 16, 9), True, 10)
    assert not sequence.film_grain
    unknown = PlaneFormat(8, primaries=200, transfer=201)
    sequence = obu.read_sequence(av1.encode(moving(unknown, 64, 64, 1), unknown, 64, 64, RATE, 40, 12))
    assert (sequence.colours, sequence.full_range) == ((2, 2, 2), False)


@pytest.fixture(scope="module")
def stream():
    form = PlaneFormat()
    return av1.encode(moving(form, 80, 70, 12), form, 80, 70, RATE, 40, 12)


@pytest.mark.parametrize(
    ("form", "size", "frames", "message"),
    [
        (PlaneFormat(), (80, 70), 11, "it holds 12 frames and 11 are expected"),
        (PlaneFormat(), (80, 70), 13, "it holds 12 frames and 13 are expected"),
        (PlaneFormat(10), (80, 70), 12, "its frames are 80x70 of 420 with 8 bits, not 80x70 of 420 with 10"),
        (PlaneFormat(), (90, 70), 12, "its frames are 80x70 of 420 with 8 bits, not 90x70"),
    ],
)
def test_a_stream_that_is_another(form, size, frames, message, stream):
    with pytest.raises(ContainerError, match=message):
        list(av1.decode(stream, form, *size, frames))


def test_garbage_in_frames_gives_no_invented_frame(stream):
    units = [bytearray(unit) for unit in obu.units(stream)]
    units[3][6:] = b"\xff" * len(units[3][6:])
    damaged = b"".join(units)
    assert len(obu.units(damaged)) == 12
    with pytest.raises(ContainerError, match=r"only \d+ of 12 frames could be decoded \(.+\)") as caught:
        list(av1.decode(damaged, PlaneFormat(), 80, 70, 12))
    assert "\n" not in str(caught.value)


def test_a_size_that_changes_in_the_middle(stream):
    form = PlaneFormat()
    other = av1.encode(moving(form, 66, 64, 2), form, 66, 64, RATE, 40, 12)
    with pytest.raises(ContainerError, match="its frames are 66x64"):
        list(av1.decode(stream + other, form, 80, 70, 14))


def test_the_filter_refuses_another_size(stream, monkeypatch):
    """Where the sequence header does not tell: frames may state a size of their own."""
    monkeypatch.setattr(av1, "_check", lambda *_: None)
    for size in ((66, 70), (90, 70)):
        with pytest.raises(ContainerError, match="only 0 of 12"):
            list(av1.decode(stream, PlaneFormat(), *size, 12))


def test_closing_stops_the_decoder(stream, monkeypatch):
    made = []
    process = av1.ffmpeg.Process
    monkeypatch.setattr(av1.ffmpeg, "Process", lambda *a, **k: made.append(process(*a, **k)) or made[-1])
    frames = av1.decode(stream, PlaneFormat(), 80, 70, 12)
    next(frames)
    frames.close()
    assert made[0].wait() is not None


def test_frames_that_cannot_be_read_are_not_a_shorter_stream():
    form = PlaneFormat()

    def broken():
        yield from moving(form, 64, 64, 3)
        raise VideoError("clip.mp4: only 3 of 9 frames could be read")

    with pytest.raises(VideoError, match="only 3 of 9"):
        av1.encode(broken(), form, 64, 64, RATE, 40, 12)
    with pytest.raises(VideoError, match="no frame"):
        av1.encode([], form, 64, 64, RATE, 40, 12)


def helper(tmp_path, monkeypatch, cases):
    """An ffmpeg that does something else where its arguments hold a word."""
    real = imageio_ffmpeg.get_ffmpeg_exe()
    path = tmp_path / "helper"
    text = "".join(f'case "$*" in *{word}*) {does};; esac\n' for word, does in cases.items())
    path.write_text(f'#!/bin/sh\n{text}exec {real} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    return path


def lacks(kind, name):
    return f"echo \"[vost#0:0 @ 0x55] Unknown {kind} '{name}'\" >&2; exit 8"


def test_an_ffmpeg_without_svt_av1(tmp_path, monkeypatch):
    helper(tmp_path, monkeypatch, {"libsvtav1": lacks("encoder", "libsvtav1")})
    message = r"helper \(ffmpeg .*\) cannot encode AV1: it has no libsvtav1; name one .* IMAGEIO_FFMPEG_EXE"
    with pytest.raises(VideoError, match=message) as caught:
        av1.encode(moving(PlaneFormat(), 64, 64, 1), PlaneFormat(), 64, 64, RATE, 40, 12)
    assert "\n" not in str(caught.value)


def test_an_ffmpeg_without_dav1d_or_without_any(tmp_path, monkeypatch, stream):
    expected = [frame.tobytes() for frame in av1.decode(stream, PlaneFormat(), 80, 70, 12)]
    cases = {"libdav1d": lacks("decoder", "libdav1d")}
    helper(tmp_path, monkeypatch, cases)
    assert [frame.tobytes() for frame in av1.decode(stream, PlaneFormat(), 80, 70, 12)] == expected
    helper(tmp_path, monkeypatch, {**cases, "libaom-av1": lacks("decoder", "libaom-av1")})
    with pytest.raises(VideoError, match="cannot decode AV1: it has no libdav1d; name one"):
        list(av1.decode(stream, PlaneFormat(), 80, 70, 12))


def test_a_decoder_that_hangs_is_ended(tmp_path, monkeypatch, stream):
    helper(tmp_path, monkeypatch, {"libdav1d": "exec sleep 60"})
    monkeypatch.setattr(av1, "_STALLS_S", 0.3)
    began = time.monotonic()
    with pytest.raises(ContainerError, match=r"nothing came after frame 0 of 12 for 0\.3 s"):
        list(av1.decode(stream, PlaneFormat(), 80, 70, 12))
    assert time.monotonic() - began < 20
    assert "SVT_LOG" not in os.environ
