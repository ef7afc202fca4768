# SPDX-License-Identifier: MIT
"""Frames above a base layer: what is decoded for a question, and what a damaged or hostile stream gives."""

import pickle
import random
import subprocess
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from containers import everything, write
from layers import Counted, qualities, rewritten, stream_of

import nervcodec
from nervcodec.base import codec, obu
from nervcodec.base.streams import check_base
from nervcodec.decoding.networks import NetworkCache
from nervcodec.errors import ConfigError, ContainerError, NervError
from nervcodec.formats import bitstream
from nervcodec.formats.container import Container, checksum
from nervcodec.formats.header import STREAM, PlaneFormat, StoredTensor, TensorCode

COUNT, HALF = 60, 30


@pytest.fixture
def video(layered_nerv):
    with nervcodec.open(layered_nerv, "cpu", "fp32") as opened:
        yield opened


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


# ------------------------------------------------------------------ only what is needed


def test_only_the_segments_stream_is_decoded_and_only_as_far_as_needed(video, counted):
    counted.since()
    video[0]
    assert counted.since() == (1, 1)
    video[10:20]
    assert counted.since() == (1, 20)
    video[HALF]
    assert counted.since() == (1, 1)
    video[-1]
    assert counted.since() == (1, HALF)
    video[HALF - 1 : HALF + 1]
    assert counted.since() == (2, HALF + 1)
    list(video)
    assert counted.since() == (2, COUNT)
    video[[3, 4, 5, 5]]
    assert counted.since() == (1, 6)
    video[[9, 2]]
    assert counted.since() == (2, 10 + 3)
    video.patch(5, 0, 0)
    assert counted.since() == (1, 6)


def test_one_frame_is_in_memory_at_a_time(layered_nerv, monkeypatch):
    """Of those that were decoded, whatever was done with them."""
    seen, decode = [], codec.decode
    monkeypatch.setattr(codec, "decode", lambda *a: (seen.append(weakref.ref(f.y)) or f for f in decode(*a)))
    with nervcodec.open(layered_nerv, "cpu") as video:
        frames = video.frames()
        for _ in range(20):
            next(frames)
        assert len(seen) == 20
        assert sum(frame() is not None for frame in seen) == 1
        frames.close()


# ------------------------------------------------------------------ the same frames in any order


def test_any_order_gives_the_same_frames(video):
    all_frames = video[:]
    assert all_frames.shape == (COUNT, 144, 176, 3)
    numbers = random.Random(1).sample(range(-COUNT, COUNT), 25)
    for number, frame in zip(numbers, video.frames(numbers), strict=True):
        assert np.array_equal(frame, all_frames[number])
    assert np.array_equal(video[28:33], all_frames[28:33])
    assert np.array_equal(video[::-7], all_frames[::-7])
    assert np.array_equal(video.frame_at(1.5), all_frames[44])


def test_windows_equal_those_of_whole_frames(video):
    for number in (0, 29, 30, 59):
        frame = video[number]
        for row in range(2):
            for column in range(4):
                box = video.grid.patch(row, column)
                expected = frame[box.y : box.y + box.height, box.x : box.x + box.width]
                assert np.array_equal(video.patch(number, row, column), expected)


def test_scaled(video):
    (half,) = video.frames([3], 0.5)
    assert half.shape == (72, 88, 3)
    boxes = video[3].reshape(72, 2, 88, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - boxes).mean() < 3
    (large,) = video.frames([3], 2.0)
    assert large.shape == (288, 352, 3)
    assert np.abs(large.reshape(144, 2, 176, 2, 3).mean(axis=(1, 3)) - video[3]).mean() < 1


def test_an_open_video_is_pickled(video):
    with pickle.loads(pickle.dumps(video)) as again:
        assert np.array_equal(again[31], video[31])


@pytest.mark.parametrize("limit_bytes", [0, 1 << 30])
def test_eight_threads_on_one_file(layered_nerv, limit_bytes):
    with nervcodec.open(layered_nerv, "cpu", "fp32", cache=NetworkCache(limit_bytes)) as video:
        all_frames = video[:]

        def use(seed):
            mine = random.Random(seed)
            for _ in range(2):
                number = mine.randrange(COUNT)
                assert np.array_equal(video[number], all_frames[number])
                first = mine.randrange(COUNT - 5)
                for frame, expected in zip(video.frames(range(first, first + 5)), all_frames[first:], strict=False):
                    assert np.array_equal(frame, expected)
            return seed

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(use, range(8))) == list(range(8))


def test_the_header_states_the_measured_quality(layered_nerv, carphone):
    with nervcodec.open(layered_nerv, "cpu") as video:
        base, fit = video.header.base, video.header.fit
    assert qualities(layered_nerv, carphone).mean() == pytest.approx(fit.psnr_db, abs=1e-3)
    assert base.psnr_db == fit.psnr_db
    assert base.psnr_db > 33


# ------------------------------------------------------------------ damaged and hostile streams


def other(width=176, height=144, count=HALF, depth=10, crf=40):
    """A stream of noise."""
    form, rng = PlaneFormat(depth), np.random.default_rng(0)
    kind = np.uint8 if depth == 8 else np.uint16
    sizes = (height, width), *[(-(-height // 2), -(-width // 2))] * 2
    frames = [
        codec.Planes(*(rng.integers(300, 700, (1, *size)).astype(kind) >> (10 - depth) for size in sizes))
        for _ in range(count)
    ]
    return codec.encode(frames, form, width, height, codec.Fraction(25), crf, 12)


def coded(codec, form):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=176x144:d=1.2:r=25"]
    return subprocess.run([*command, "-c:v", codec, "-f", form, "-"], check=True, capture_output=True).stdout


def filled(stream):
    data, frames = bytearray(stream), list(obu.obus(stream))[2:]
    largest = max(frames, key=lambda unit: unit.end - unit.body)
    data[largest.body + 8 : largest.end] = b"\xff" * (largest.end - largest.body - 8)
    return bytes(data)


HOSTILE = {
    "empty": (lambda _: b"", "the AV1 stream is empty"),
    "garbage": (lambda _: random.Random(0).randbytes(5000), "no unit begins at byte 0"),
    "zeros": (lambda _: bytes(5000), "no unit begins at byte 0"),
    "cut": (lambda stream: stream[: len(stream) // 2], "ends within"),
    "h264": (lambda _: coded("libx264", "h264"), "no unit begins at byte"),
    "mp4": (lambda _: coded("libx264", "matroska"), "does not begin with a sequence header"),
    "too few": (lambda _: other(count=HALF - 1), "it holds 29 frames and 30 are expected"),
    "too many": (lambda _: other(count=HALF + 1), "it holds 31 frames and 30 are expected"),
    "wrong size": (lambda _: other(width=192), "a frame of 192x144 yuv420p10le, not 176x144 yuv420p10le"),
    "wrong depth": (lambda _: other(depth=8), "a frame of 176x144 yuv420p, not 176x144 yuv420p10le"),
    "no header": (
        lambda stream: b"".join(map(bytes, obu.temporal_units(stream)[1:])),
        "does not begin with a sequence header",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_stream_is_one_error_without_frames(layered_nerv, tmp_path, name):
    made, message = HOSTILE[name]
    path = rewritten(layered_nerv, tmp_path / "a.nerv", {1: made(stream_of(layered_nerv, 1))})
    with Container.open(path) as opened:
        opened.verify()  # checksums are right
        if name not in ("wrong size", "wrong depth"):  # which only a decoder sees
            with pytest.raises(ContainerError, match=message) as caught:
                check_base(opened)
            assert str(caught.value).startswith(f"{path}: segment 1: ")
    with nervcodec.open(path, "cpu") as video:
        assert video[0].shape == (144, 176, 3)  # the other segment is valid
        with pytest.raises(ContainerError, match=message) as caught:
            video[HALF]
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_garbage_within_frames_adds_no_frame(layered_nerv, tmp_path):
    path = rewritten(layered_nerv, tmp_path / "a.nerv", {0: filled(stream_of(layered_nerv))})
    with nervcodec.open(layered_nerv, "cpu") as video:
        all_frames = video[:HALF]
    decoded = []
    with nervcodec.open(path, "cpu") as video, pytest.raises(ContainerError, match=r"only \d+ of 30 frames"):
        decoded.extend(video.frames(range(HALF)))
    assert len(decoded) < HALF
    assert all(np.array_equal(frame, expected) for frame, expected in zip(decoded, all_frames, strict=False))


@pytest.mark.parametrize("form", [PlaneFormat(8), PlaneFormat(10, "444"), PlaneFormat(10, "422")])
def test_a_header_with_other_planes_is_refused(layered_nerv, tmp_path, form):
    with Container.open(layered_nerv) as opened:
        base = replace(opened.header.base, planes=form)
    path = rewritten(layered_nerv, tmp_path / "a.nerv", base=base)
    message = f"{path}: .*a frame of 176x144 yuv420p10le, not"
    with nervcodec.open(path, "cpu") as video, pytest.raises(ContainerError, match=message):
        video[0]


def test_a_network_that_does_not_fit_is_refused_even_if_no_pixel_needs_it(layered_nerv, tmp_path):
    header, arrays = everything(layered_nerv)
    surplus = bitstream.encode({"pixels.weight": np.zeros((3, 4), np.float32)})
    stored = StoredTensor(checksum(surplus), TensorCode(STREAM))
    changed = replace(header, tensors={**header.tensors, "1/more": stored})
    path = write(tmp_path / "a.nerv", changed, {**arrays, "1/more": surplus})
    with nervcodec.open(path, "cpu") as video:
        assert video[0].shape == (144, 176, 3)
        for _ in range(2):
            with pytest.raises(ContainerError, match=r"a\.nerv: tensor 'pixels\.weight': expected none, stored"):
                video[HALF]


def test_a_closed_file_gives_no_more_frames(layered_nerv):
    video = nervcodec.open(layered_nerv, "cpu")
    frames = video.frames()
    next(frames)
    video.close()
    with pytest.raises(ContainerError, match="is closed"):
        list(frames)


def test_a_missing_gpu_is_reported_at_open(layered_nerv):
    for wrong in ({"device": "gpu"}, {"precision": "fp8"}):
        with pytest.raises(ConfigError):
            nervcodec.open(layered_nerv, **wrong)
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="^--device cuda: torch finds no CUDA device; use --device cpu$"):
        nervcodec.open(layered_nerv, "cuda")


def test_exchanged_streams_of_two_segments_still_decode(layered_nerv, tmp_path):
    """Both are whole, of the right size and number: that no checksum of ours can tell."""
    path = rewritten(layered_nerv, tmp_path / "a.nerv", {0: stream_of(layered_nerv, 1), 1: stream_of(layered_nerv, 0)})
    with nervcodec.open(layered_nerv, "cpu") as video, nervcodec.open(path, "cpu") as exchanged:
        assert np.array_equal(exchanged[HALF], video[0])


def test_bits_flipped_at_random(layered_nerv, tmp_path):
    """Whatever a decoder makes of it: a frame of the right size for each that is asked for, or an error of ours."""
    stream, rng = stream_of(layered_nerv), random.Random(3)
    for turn in range(6):
        data = bytearray(stream)
        for _ in range(1 + turn):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path = rewritten(layered_nerv, tmp_path / f"{turn}.nerv", {0: bytes(data)})
        with nervcodec.open(path, "cpu") as video:
            frames, message = [], f"{path}: "
            try:
                frames = list(video[:HALF])
            except NervError as error:
                message = str(error)
        assert len(frames) in (0, HALF)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
