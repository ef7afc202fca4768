# SPDX-License-Identifier: MIT
"""The library as Python callers use it: indexes, settings, copies, closing."""

import copy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import nervcodec
from nervcodec.coordinates import position, positions
from nervcodec.device import choose
from nervcodec.errors import ConfigError, ContainerError, NervError
from nervcodec.options import PRESETS, from_flat
from nervcodec.ranges import FrameSplit

GOLDEN = Path(__file__).parent / "golden"
COUNT = 15


@pytest.fixture(scope="module")
def video():
    """15 frames of 88 x 72, 1 x 2 patches, embeddings of 384 numbers."""
    return nervcodec.open(GOLDEN / "version3_pe.nerv", "cpu", "fp32")


def alike(a, b):
    """Whether pixels agree but for the last bit, which depends on how many frames are rendered at once."""
    return a.shape == b.shape and np.abs(a.astype(int) - b).max(initial=0) <= 1


# ------------------------------------------------------------------ indexes

ONE = [-1, -COUNT, 3, np.int64(-1), np.uint8(3), np.array(2), torch.tensor(4)]
WRONG_TYPES = [1.5, np.float64(1), True, np.True_, np.array(True), torch.tensor(True), "1", None, b"1"]
OUTSIDE = [COUNT, -COUNT - 1, np.int64(99), 10**30]
ACCESSES = {
    "v[i]": lambda v, i: v[i],
    "frames": lambda v, i: next(v.frames([0, i])),
    "embeddings": lambda v, i: v.embeddings([0, i]),
    "patch": lambda v, i: v.patch(i, 0, 1),
    "patches": lambda v, i: next(v.patches([0, i], 0, 1)),
}


@pytest.mark.parametrize("index", ONE, ids=repr)
def test_an_index_is_the_same_frame_everywhere(video, index):
    number = int(index) % COUNT
    frame = video[number]
    assert np.array_equal(video[index], frame)
    assert np.array_equal(next(video.frames([index])), frame)
    assert np.array_equal(video.patch(index, 0, 1), frame[:, 44:])
    assert np.array_equal(next(video.patches([index], -1, -1)), frame[:, 44:])
    assert np.array_equal(video.embeddings([index]), video.embeddings([number]))


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES)
def test_what_is_no_index_is_refused_in_the_same_words(video, access):
    for wrong in WRONG_TYPES:
        with pytest.raises(TypeError, match=f"^a frame is named by a whole number, not by {type(wrong).__name__}$"):
            access(video, wrong)
    for outside in OUTSIDE:
        with pytest.raises(IndexError, match=rf"^frame {int(outside)} is out of range; there are 15 \(0 to 14\)$"):
            access(video, outside)


def test_wrong_indexes_are_refused_at_the_call(video):
    for call in (video.frames, video.embeddings, lambda n: video.patches(n, 0, 0)):
        with pytest.raises(IndexError, match="frame 15 is out of range"):
            call([*range(COUNT), COUNT])
        for wrong in (5, "12", 1.5):
            with pytest.raises(TypeError, match="a list or array of whole numbers"):
                call(wrong)
    for row, column in ((1, 0), (-2, 0), (0, 2), (0, -3)):
        with pytest.raises(IndexError, match="of patches .* is out of range"):
            video.patch(0, row, column)
    for row, column in ((0.0, 0), (0, True), (0, "1")):
        with pytest.raises(TypeError, match="of patches is named by a whole number"):
            video.patch(0, row, column)
    with pytest.raises(ConfigError, match="a scale of -1 is out of range"):
        video.patches([0], 0, 0, -1)


@pytest.mark.parametrize(
    ("index", "numbers"),
    [
        ([0, 2], [0, 2]),
        ([-1, 0, -1], [14, 0, 14]),
        (np.array([0, 2]), [0, 2]),
        (torch.tensor([1, -2]), [1, 13]),
        (range(3), [0, 1, 2]),
        (range(-2, 0), [13, 14]),
        (np.arange(COUNT) % 7 == 3, [3, 10]),
        ([False] * 14 + [True], [14]),
        (slice(-2, None), [13, 14]),
        (slice(np.int64(2), np.int64(4)), [2, 3]),
        ([], []),
        (np.array([], int), []),
        (slice(3, 3), []),
    ],
    ids=str,
)
def test_lists_and_arrays_give_a_batch(video, index, numbers):
    batch = video[index]
    assert batch.shape == (len(numbers), 72, 88, 3)
    assert batch.dtype == np.uint8
    for frame, number in zip(batch, numbers, strict=True):
        assert alike(frame, video[number])
    if not isinstance(index, slice):
        assert len(list(video.frames(index))) == len(numbers)
        assert video.embeddings(index).shape == (len(numbers), 2, 384)


def test_batches_that_are_none(video):
    for wrong in ([0, 1.0], [0, True], np.array([0.0, 2.0]), np.eye(2, dtype=int), (0, 1), ["0"]):
        with pytest.raises(TypeError, match="named by a whole number"):
            video[wrong]
    for mask in ([True, False], np.ones(COUNT + 1, bool)):
        with pytest.raises(IndexError, match="a mask of .* frames does not fit; there are 15"):
            video[mask]
    assert positions(iter([0, -1]), 3) == [0, 2]
    assert position(-1, 3) == 2


def test_all_frames_come_one_by_one(video):
    frames = list(video)
    assert len(frames) == COUNT == len(list(video.frames()))
    assert np.array_equal(np.stack(frames), video[:])
    assert alike(next(reversed(video)), frames[-1])


# ------------------------------------------------------------------ an open video


def test_a_video_is_a_context_manager_and_closes():
    with nervcodec.open(str(GOLDEN / "version3_plain.nerv"), "cpu") as video:
        video[0]
        begun = video.frames()
        next(begun)
        assert "15 frames of 88x72, 29.97" in repr(video)
        assert repr(video).endswith("no embeddings>")
    assert len(video) == 15
    assert video.header.video.width == 88
    assert repr(video) == f"<NervVideo {str(GOLDEN / 'version3_plain.nerv')!r}: closed>"
    for use in (
        lambda: video[0], video.frames, video.sound, lambda: video.patch(0, 0, 0), lambda: copy.copy(video),
    ):  # fmt: skip
        with pytest.raises(ContainerError, match=r"version3_plain\.nerv: is closed; open it again"):
            use()
    video.close()
    again = nervcodec.open(GOLDEN / "version3_pe.nerv")
    again.embeddings([0])
    again.close()
    with pytest.raises(NervError, match="is closed"):
        again.embeddings([0])


def test_copies_open_the_file_again(monkeypatch, tmp_path):
    monkeypatch.chdir(GOLDEN)
    video = nervcodec.open("version3_pe.nerv", "cpu", "fp32")
    assert str(video.path) == "version3_pe.nerv"
    monkeypatch.chdir(tmp_path)
    for other in (copy.copy(video), copy.deepcopy(video)):
        assert other is not video
        assert other.hardware == video.hardware
        assert np.array_equal(other[7], video[7])


@pytest.mark.parametrize("context", ["spawn", "fork"])
def test_a_loader_with_workers(video, context):
    loader = DataLoader(video, batch_size=8, num_workers=1, multiprocessing_context=context)
    batches = list(loader)
    assert [tuple(batch.shape) for batch in batches] == [(8, 72, 88, 3), (7, 72, 88, 3)]
    assert alike(torch.cat(batches).numpy(), video[:])


def test_unknown_hardware():
    for wrong in ({"device": "gpu"}, {"device": None}, {"precision": "fp16"}):
        with pytest.raises(ConfigError, match="unknown (device|precision) .*; there are auto"):
            choose(**wrong)


# ------------------------------------------------------------------ settings


def test_numbers_of_numpy_are_numbers():
    given = {
        "seed": np.int64(1), "crop": np.array([100, 60]), "scale": np.float32(0.5), "time_s": np.float64(3),
        "patches": [2, 4], "start_s": np.int32(1), "epochs": np.array(2), "size_bytes": torch.tensor(3e5),
        "segment": "1s", "duration_s": Fraction(1, 2), "resume": np.True_, "log_dir": Path("logs"),
    }  # fmt: skip
    plain = {
        "seed": 1, "crop": (100, 60), "scale": 0.5, "time_s": 3.0, "patches": (2, 4), "start_s": 1, "epochs": 2,
        "size_bytes": 3e5, "segment": "1s", "duration_s": 0.5, "resume": True, "log_dir": "logs",
    }  # fmt: skip
    assert repr(from_flat(**given)) == repr(from_flat(**plain))  # which a checkpoint knows an encode by
    assert from_flat(scale=np.array([1280, 720])).source.scale == (1280, 720)
    assert from_flat(embed="pe_1.25_8", strides=np.array([3, 2]), fc_hw=[3, 4]).network.strides == (3, 2)
    assert from_flat(frame_rate=29.97).source.frame_rate == Fraction(2997, 100)
    assert from_flat(frame_rate="30000/1001").source.frame_rate == Fraction(30000, 1001)
    assert all(from_flat(preset=name).fit for name in PRESETS)


def test_texts_as_the_command_line_has_them():
    options = from_flat(
        scale="1280x720", time_s="3m", crop="640_1280", patches="1x2", size_bytes="400KB", split="6_6_10"
    )
    assert (options.source.scale, options.source.crop, options.patches) == ((1280, 720), (640, 1280), (1, 2))
    assert (options.fit.time_s, options.size_bytes, options.split) == (180.0, 400_000.0, FrameSplit(6, 6, 10))


WRONG = [
    {"seed": 1.5}, {"seed": True}, {"seed": "1"}, {"seed": -1}, {"seed": np.float64(1)}, {"seed": [1]},
    {"crop": 5}, {"crop": (1, 2, 3)}, {"crop": "x"}, {"crop": (1.5, 2)}, {"crop": (0, 2)}, {"crop": np.eye(2)},
    {"scale": "big"}, {"scale": (1,)}, {"scale": 0}, {"scale": float("nan")}, {"scale": True},
    {"time_s": [3]}, {"time_s": b"3"}, {"time_s": float("inf")}, {"time_s": 1j}, {"start_s": -1}, {"duration_s": 0},
    {"patches": np.zeros((2, 2), int)}, {"patches": (2, -4)}, {"patches": {2, 4.0}}, {"loss": 3}, {"split": 5},
    {"split": "x"}, {"resume": 1}, {"debug_run": "yes"}, {"epochs": "2"}, {"frame_rate": "1/0"}, {"frame_rate": [1]},
    {"encoder": 5}, {"segment": 10}, {"psnr_db": "x"}, {"log_dir": 3}, {"lr_type": None, "lr": "fast"},
    {"strides": (), "embed": "pe_1.25_8"}, {"strides": 5, "embed": "pe_1.25_8"}, {"preset": ["default"]},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_setting_is_named_before_any_work(wrong, tmp_path):
    name = next(name for name, value in wrong.items() if value is not None)
    with pytest.raises(ConfigError, match=f"^{name}\\b|^unknown {name}"):
        nervcodec.encode(tmp_path / "no such video.mp4", **wrong)


def test_paths_are_texts_or_paths(carphone, tmp_path):
    class Place:
        def __init__(self, path):
            self.path = path

        def __fspath__(self):
            return str(self.path)

    out = tmp_path / "a.nerv"
    report = nervcodec.encode(
        Place(carphone), Place(out), duration_s=np.float64(0.2), epochs=np.int64(1), encoder="none",
        scale=np.float32(0.25), seed=np.int64(3),
    )  # fmt: skip
    assert report.path == out
    plain = nervcodec.encode(
        str(carphone), str(tmp_path / "b.nerv"), duration_s=0.2, epochs=1, encoder="none", scale=0.25, seed=3
    )
    assert report.size_bytes == plain.size_bytes
    found = nervcodec.evaluate(Place(out), Place(carphone), dump_images=str(tmp_path / "pairs"), queries="a man")
    assert found.psnr_db == pytest.approx(report.psnr_db, abs=0.01)
    assert len(list((tmp_path / "pairs").iterdir())) == report.frames
    for wrong in ({"dump_images": str(out)}, {"against": "h263"}, {"against": ["x264", "h263"]}):
        with pytest.raises(ConfigError, match="is a file|unknown codec 'h263'"):
            nervcodec.evaluate(out, carphone, **wrong)


@pytest.mark.parametrize(("query", "k"), [("", 1), ("  ", 1), (3, 1), ("a", 0), ("a", 1.5), ("a", True)])
def test_what_cannot_be_searched_for(query, k):
    with pytest.raises(ConfigError):
        nervcodec.open(GOLDEN / "version3_pe.nerv").search(query, k)
