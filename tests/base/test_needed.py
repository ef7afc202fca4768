# SPDX-License-Identifier: MIT
"""A frame of an AV1 stream decoded with no more than it hangs on is the frame."""

import contextlib
from fractions import Fraction

import numpy as np
import pytest

from nervcodec.base import av1
from nervcodec.base.needed import Needed
from nervcodec.errors import ContainerError
from nervcodec.formats.header import PlaneFormat
from nervcodec.video.planes import Planes

WIDTH, HEIGHT, COUNT = 64, 64, 70


def moving(form: PlaneFormat):
    """A pattern that moves, under noise, with a cut in the middle."""
    rng, most = np.random.default_rng(0), 256 if form.depth == 8 else 1024
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    kind = np.uint8 if form.depth == 8 else np.uint16
    for number in range(COUNT):
        wave = np.sin((columns + 3 * number) / 7) * np.cos((rows - number) / (5 if number < 40 else 9))
        noisy = (wave / 2 + 0.5) * 0.9 + rng.normal(0, 0.02, wave.shape)
        luma = (noisy.clip(0, 1) * (most - 1)).astype(kind)[None]
        yield Planes(luma, luma[:, ::2, ::2], luma[:, 1::2, 1::2])


@pytest.fixture(scope="module", params=[(8, 8), (10, 8), (10, 12)], ids=["8 bits", "10 bits", "another preset"])
def coded(request):
    """A stream, its format and its frames."""
    depth, preset = request.param
    form = PlaneFormat(depth=depth)
    stream = av1.encode(moving(form), form, WIDTH, HEIGHT, Fraction(25), 30, preset)
    return stream, form, list(av1.decode(stream, form, WIDTH, HEIGHT, COUNT))


def same(one: Planes, other: Planes) -> bool:
    return all((a == b).all() for a, b in zip(one, other, strict=True))


def test_each_frame_alone(coded):
    stream, form, frames = coded
    needed, less = Needed(stream), []
    for number in range(0, COUNT, 3):
        units, places = needed.only([number])
        (found,) = av1.decode_only(units, places, form, WIDTH, HEIGHT)
        assert same(found, frames[number]), number
        less.append(sum(map(len, units)) / len(stream))
    assert np.mean(less) < 0.5
    assert less[0] < 0.5


def test_frames_with_their_neighbours(coded):
    stream, form, frames = coded
    needed = Needed(stream)
    for number in (1, 33, 50, COUNT - 2):
        wanted = range(number - 1, number + 2)
        units, places = needed.only(wanted)
        found = av1.decode_only(units, places, form, WIDTH, HEIGHT)
        assert all(same(one, frames[place]) for one, place in zip(found, wanted, strict=True))


def test_all_frames_are_the_whole_stream(coded):
    stream, _, _ = coded
    units, places = Needed(stream).only(range(COUNT))
    assert b"".join(units) == bytes(stream)
    assert places == list(range(COUNT))


def test_a_damaged_stream_is_said_to_be(coded):
    stream, form, _ = coded
    rng = np.random.default_rng(1)
    for _ in range(200):
        data = bytearray(stream)
        for place in rng.integers(0, len(data), 3):
            data[place] ^= int(rng.integers(1, 256))
        with contextlib.suppress(ContainerError):  # and nothing else comes of it
            Needed(bytes(data)).only([COUNT - 1])
    units, places = Needed(stream).only([COUNT - 1])
    with pytest.raises(ContainerError):
        av1.decode_only(units[: len(units) // 2], places, form, WIDTH, HEIGHT)
