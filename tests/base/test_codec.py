# SPDX-License-Identifier: MIT
"""The base stream: coding, decoding, sizes, damage, and an ffmpeg that lacks or hangs."""

import io
import os
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from streams import decode_stream, delimited, samples_of

from nervcodec import threads
from nervcodec.base import codec, obu
from nervcodec.base.codec import base_format, to_base
from nervcodec.errors import ContainerError, VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.media.options import SourceOptions
from nervcodec.media.planes import Planes, chroma_size
from nervcodec.media.reader import plane_format, read_planes
from nervcodec.media.source import scan

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
    stream = codec.encode(frames, form, width, height, RATE, 10, 10)
    decoded = decode_stream(stream, form, width, height, count)
    assert [p.shape for p in decoded[0]] == [p.shape for p in frames[0]]
    assert psnr(decoded, frames, form) > 38


def by_another(stream, pixels):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "obu", "-c:v", "libaom-av1", "-i", "-"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", pixels, "-"]
    return subprocess.run(command, input=delimited(stream), check=True, capture_output=True).stdout


@pytest.mark.parametrize("depth", [8, 10])
def test_a_real_clip_decodes_to_the_same_bits_by_another_decoder(bikes, depth):
    options = SourceOptions(scale=0.5, duration_s=2.0)
    info = scan(bikes, options)
    source = plane_format(info, options)
    form = base_format(source, depth)
    frames = [to_base(frame, source, depth) for frame in read_planes(info, options, source)]
    stream = codec.encode(frames, form, info.width, info.height, RATE, 40, 10)
    decoded = decode_stream(stream, form, info.width, info.height, 50)
    data = b"".join(samples_of(frame) for frame in decoded)
    assert data == by_another(stream, "yuv420p" if depth == 8 else "yuv420p10le")
    assert psnr(decoded, frames, form) > 32
    assert len(stream) < 60_000


@pytest.mark.parametrize("keys", [(), (30, 76, 187)])
def test_key_frames_are_those_asked_for_and_no_more(bikes, keys):
    """Several shots and 250 frames, decoded from each key frame on."""
    options = SourceOptions(scale=0.2)
    info = scan(bikes, options)
    form = plane_format(info, options)
    size = info.width, info.height
    stream = codec.encode(read_planes(info, options, form), form, *size, RATE, 50, 12, keys)
    assert obu.key_frames(obu.temporal_units(stream)) == [0, *keys]
    decoded = decode_stream(stream, form, *size, 250)
    for key in keys:
        later = decode_stream(stream, form, *size, 250, key)
        assert [samples_of(f) for f in later] == [samples_of(f) for f in decoded[key:]]


@pytest.mark.parametrize(
    ("frames", "cuts", "keys"),
    [
        (250, (30, 76, 137, 187, 242), [0, 30, 76, 137, 187]),  # no key frame within the last second
        (250, (10, 24, 26, 40), [0, 26, 188]),  # cuts of the same second share one
        (250, (), [0, 162]),
        (500, (), [0, 162, 324]),
        (500, (170,), [0, 162, 324]),
        (1, (), [0]),
        (20, (5,), [0]),
    ],
)
def test_where_key_frames_are(frames, cuts, keys):
    assert codec.key_frames(frames, RATE, cuts) == keys


def colours_of(stream):
    """Primaries, transfer, matrix and range as PyAV has them."""
    with av.open(io.BytesIO(delimited(stream))) as file:
        frame = next(file.decode(video=0))
        return frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range


def test_the_stream_says_its_colours():
    form = PlaneFormat(10, "420", 9, True, "topleft", 9, 16)
    assert colours_of(codec.encode(moving(form, 64, 64, 2), form, 64, 64, RATE, 40, 12)) == (9, 16, 9, 2)
    unknown = PlaneFormat(8, primaries=200, transfer=201)
    assert colours_of(codec.encode(moving(unknown, 64, 64, 1), unknown, 64, 64, RATE, 40, 12)) == (2, 2, 2, 1)


@pytest.fixture(scope="module")
def stream():
    form = PlaneFormat()
    return codec.encode(moving(form, 80, 70, 12), form, 80, 70, RATE, 40, 12)


@pytest.mark.parametrize(
    ("form", "size", "frames", "message"),
    [
        (PlaneFormat(), (80, 70), 11, "it holds 12 frames and 11 are expected"),
        (PlaneFormat(), (80, 70), 13, "it holds 12 frames and 13 are expected"),
        (PlaneFormat(10), (80, 70), 12, "a frame of 80x70 yuv420p, not 80x70 yuv420p10le"),
        (PlaneFormat(), (90, 70), 12, "a frame of 80x70 yuv420p, not 90x70 yuv420p"),
    ],
)
def test_a_stream_that_is_another(form, size, frames, message, stream):
    with pytest.raises(ContainerError, match=message):
        decode_stream(stream, form, *size, frames)


def test_garbage_in_frames_gives_no_invented_frame(stream):
    units = [bytearray(unit) for unit in obu.temporal_units(stream)]
    units[3][6:] = b"\xff" * len(units[3][6:])
    damaged = b"".join(units)
    assert len(obu.temporal_units(damaged)) == 12
    with pytest.raises(ContainerError, match=r"only \d+ of 12 frames could be decoded \(.+\)") as caught:
        decode_stream(damaged, PlaneFormat(), 80, 70, 12)
    assert "\n" not in str(caught.value)


def test_a_size_that_changes_in_the_middle(stream):
    form = PlaneFormat()
    other = codec.encode(moving(form, 66, 64, 2), form, 66, 64, RATE, 40, 12)
    with pytest.raises(ContainerError, match="a frame of 66x64 yuv420p, not 80x70"):
        decode_stream(stream + other, form, 80, 70, 14)


def test_frames_of_another_size_are_refused(stream):
    """Where the sequence header does not tell: frames may state a size of their own."""
    for size in ((66, 70), (90, 70)):
        with pytest.raises(ContainerError, match="only 0 of 12"):
            list(codec.decode(obu.temporal_units(stream), PlaneFormat(), *size))


def test_frames_that_cannot_be_read_are_not_a_shorter_stream():
    form = PlaneFormat()

    def broken():
        yield from moving(form, 64, 64, 3)
        raise VideoError("clip.mp4: only 3 of 9 frames could be read")

    with pytest.raises(VideoError, match="only 3 of 9"):
        codec.encode(broken(), form, 64, 64, RATE, 40, 12)
    with pytest.raises(VideoError, match="no frame"):
        codec.encode([], form, 64, 64, RATE, 40, 12)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
def test_a_limit_of_threads(monkeypatch):
    """Fewer threads, and the same bytes."""
    form, counts, streams = PlaneFormat(), [], set()
    for limit in (1, 6):
        monkeypatch.setattr(threads, "codec_threads", limit)
        running = []
        streams.add(
            codec.encode(
                moving(form, 176, 144, 40), form, 176, 144, RATE, 40, 10,
                reconstructed=lambda _, running=running: running.append(len(os.listdir("/proc/self/task"))),
            )
        )  # fmt: skip
        counts.append(max(running))
    assert counts[0] < counts[1]
    assert len(streams) == 1
