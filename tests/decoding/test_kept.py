# SPDX-License-Identifier: MIT
"""Frames of a base layer that are kept: the same as decoded alone, in any order, by many threads, within bounds."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from layers import Counted, rewritten, stream_of

import nervcodec
from nervcodec.base import obu
from nervcodec.decoding.kept import KeptVideo, Room
from nervcodec.errors import ContainerError

COUNT, HALF = 60, 30
LARGE = 1 << 30


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


def opened(path, limit_bytes=LARGE):
    video = KeptVideo.at(path, "cpu", "fp32")
    room = Room(limit_bytes)
    video.keep(room)
    return video, room


def test_frames_are_those_decoded_alone(layered_nerv):
    video, _ = opened(layered_nerv)
    with video, nervcodec.open(layered_nerv, "cpu", "fp32") as other:
        whole = list(other.frames())
        for number in random.Random(0).sample(range(COUNT), COUNT):
            np.testing.assert_array_equal(video[number], whole[number])
        np.testing.assert_array_equal(video.patch(3, 0, 1), other.patch(3, 0, 1))


def test_each_frame_is_decoded_once(layered_nerv, counted):
    video, room = opened(layered_nerv)
    with video:
        counted.since()
        video[10]
        assert counted.since() == (1, 11)
        video[20], video[5], video[20]
        assert counted.since() == (0, 10)  # the decoder went on from where it stood
        video[HALF + 3]
        assert counted.since() == (1, 4)
        list(video.frames(range(HALF)))
        assert counted.since() == (0, HALF - 21)
        video.ahead(HALF, lambda: True)
        assert counted.since() == (0, HALF - 4)
        list(video.frames())
        assert counted.since() == (0, 0)
        assert room.used_bytes == COUNT * 176 * 144 * 3  # of 10 bits
    assert room.used_bytes == 0


def test_no_more_is_kept_than_there_is_room_for(layered_nerv):
    size = 176 * 144 * 3
    video, room = opened(layered_nerv, 7 * size)
    with video, nervcodec.open(layered_nerv, "cpu", "fp32") as other:
        for number in (20, 3, 40, 19, 21, 59, 0):
            np.testing.assert_array_equal(video[number], other[number])
            assert room.used_bytes <= 7 * size
        video.ahead(0, lambda: True)
        assert room.used_bytes <= 7 * size
    video, room = opened(layered_nerv, 0)
    with video:
        np.testing.assert_array_equal(video[4], nervcodec.open(layered_nerv, "cpu", "fp32")[4])
        assert room.used_bytes == 0


def test_eight_threads(layered_nerv):
    with nervcodec.open(layered_nerv, "cpu", "fp32") as other:
        whole = list(other.frames())
    video, _ = opened(layered_nerv, 40 * 176 * 144 * 3)

    def scrub(seed):
        chance = random.Random(seed)
        numbers = [chance.randrange(COUNT) for _ in range(15)]
        return all((video[number] == whole[number]).all() for number in numbers)

    with video, ThreadPoolExecutor(8) as threads:
        assert all(threads.map(scrub, range(8)))


def test_decoders_end_when_they_are_idle(layered_nerv, counted):
    video, room = opened(layered_nerv)
    with video:
        counted.since()
        video[3]
        video.rest(1000)
        room.forget(1000)
        assert room.used_bytes
        video[5]
        assert counted.since() == (1, 6)  # the same decoder
        video.rest(0)
        room.forget(0)
        assert room.used_bytes == 0
        assert video[3].shape == (144, 176, 3)
        assert counted.since() == (1, 4)  # a new one


@pytest.fixture(scope="module")
def with_cuts(bikes, tmp_path_factory):
    """Ten seconds of several shots in one segment."""
    out = tmp_path_factory.mktemp("cuts") / "cuts.nerv"
    nervcodec.encode(bikes, out, base="av1", crf=55, scale=0.25, encoder="none", audio="none")
    return out


def test_decoding_begins_at_the_nearest_key_frame(with_cuts, counted):
    keys = obu.key_frames(obu.temporal_units(stream_of(with_cuts)))
    assert keys == [0, 30, 76, 137, 187]
    video, _ = opened(with_cuts)
    with video, nervcodec.open(with_cuts, "cpu") as other:
        whole = other[:]
        counted.since()
        for number, decoded in ((200, 14), (186, 50), (190, 0), (30, 1), (29, 30)):
            np.testing.assert_array_equal(video[number], whole[number])
            assert counted.since()[1] == decoded
        for number in (249, 3, 77, 136):
            np.testing.assert_array_equal(other[number], whole[number])
        assert counted.since() == (4, 63 + 4 + 2 + 61)


def test_going_ahead_stops_when_told(layered_nerv, counted):
    video, _ = opened(layered_nerv)
    with video:
        counted.since()
        left = iter([True] * 5)
        video.ahead(0, lambda: next(left, False))
        assert counted.since() == (1, 6)


def test_a_video_that_nobody_holds_gives_back_its_frames(layered_nerv):
    video, room = opened(layered_nerv)
    assert video[3].shape == (144, 176, 3)
    assert room.used_bytes
    del video
    assert room.used_bytes == 0


def test_a_damaged_stream_is_an_error_each_time(layered_nerv, tmp_path):
    stream = bytearray(stream_of(layered_nerv))
    stream[len(stream) // 2] ^= 255
    path = rewritten(layered_nerv, tmp_path / "damaged.nerv", {0: bytes(stream[: len(stream) // 2])})
    video, _ = opened(path)
    with video:
        for _ in range(2):
            with pytest.raises(ContainerError, match="damaged"):
                video[HALF - 1]
        assert video[HALF].shape == (144, 176, 3)


def test_without_a_base_layer_nothing_is_kept():
    golden = Path(__file__).parents[1] / "golden" / "version3_grid.nerv"
    video, room = opened(golden)
    with video:
        np.testing.assert_array_equal(video[3], nervcodec.open(golden, "cpu", "fp32")[3])
        video.ahead(0, lambda: True)
        video.rest(0)
        assert room.used_bytes == 0
