# SPDX-License-Identifier: MIT
"""Files with a copied base layer: any frame, patch or window, no more decoded than needed, and hostile ones."""

import subprocess
from dataclasses import replace

import imageio_ffmpeg
import numpy as np
import pytest
from containers import everything, tampered, write

import nervcodec
from nervcodec.base import copy
from nervcodec.colour import to_rgb8
from nervcodec.errors import ContainerError
from nervcodec.formats.container import checksum
from nervcodec.formats.header import StoredTensor
from nervcodec.media.reader import plane_format, read_planes
from nervcodec.media.source import scan


@pytest.fixture(scope="module")
def street(bikes, tmp_path_factory):
    """Sixty frames of 320 x 136 in four segments, a key frame every ten, and a container."""
    source = tmp_path_factory.mktemp("street") / "a.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(bikes), "-t", "2.4", "-vf", "scale=320:136"]
    subprocess.run([*command, "-c:v", "libx264", "-g", "10", str(source)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copy, "_APART_S", 0.3)
        nervcodec.encode(source, base="copy", encoder="none", segment="15f")
    info = scan(source)
    form = plane_format(info)
    return source.with_suffix(".nerv"), [to_rgb8(planes, form)[0] for planes in read_planes(info, None, form)]


@pytest.fixture
def runs(monkeypatch):
    """How many frames each decoder was asked for."""
    counts, decode = [], copy.decode
    monkeypatch.setattr(copy, "decode", lambda *a: counts.append(a[4]) or decode(*a))
    return counts


def test_a_last_frame_is_decoded_from_the_nearest_entry(street, runs):
    path, frames = street
    with nervcodec.open(path) as video:
        entries = [frame for frame, _ in video.header.base.entries]
        assert len(entries) >= 5
        assert np.array_equal(video[59], frames[59])
        assert runs == [60 - entries[-1]]  # and no more
        assert np.array_equal(video[entries[2] + 2], frames[entries[2] + 2])
        assert runs[1] == entries[3] - entries[2]


def test_frames_in_order_are_decoded_once(street, runs):
    path, frames = street
    with nervcodec.open(path) as video:
        assert all(np.array_equal(a, b) for a, b in zip(video, frames, strict=True))
    assert sum(runs) == 60


def test_frames_in_any_order_are_the_same(street, runs):
    path, frames = street
    numbers = [59, 0, 1, 14, 15, 16, 3, 44, 45, 58, 30, 30]
    with nervcodec.open(path) as video:
        assert all(np.array_equal(a, frames[n]) for a, n in zip(video.frames(numbers), numbers, strict=True))
        assert np.array_equal(video[10:40:7], np.stack(frames[10:40:7]))


def test_patches_and_scaled_frames(street):
    path, frames = street
    with nervcodec.open(path) as video:
        for row, column in ((0, 0), (1, 3)):
            x, y, width, height = video.grid.box(row, column)
            assert np.array_equal(video.patch(33, row, column), frames[33][y : y + height, x : x + width])
        (small,) = video.frames([5], scale=0.5)
        assert small.shape == (68, 160, 3)


def with_stream(path, target, change):
    """The container with another stream and a checksum that is right."""
    header, arrays = everything(path)
    arrays["base"] = np.frombuffer(change(arrays["base"].tobytes()), np.uint8)
    tensors = {"base": StoredTensor(checksum(arrays["base"]))}
    return write(target, replace(header, tensors=tensors), arrays)


HOSTILE = {
    "nothing": lambda data: b"",
    "garbage": lambda data: np.random.default_rng(0).bytes(len(data)),
    "half": lambda data: data[: len(data) // 2],
    "twice": lambda data: data + data,
    "holes": lambda data: data[:9000] + bytes(3000) + data[12000:],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_another_stream_is_refused(name, street, tmp_path):
    path, frames = street
    hostile = with_stream(path, tmp_path / "a.nerv", HOSTILE[name])
    given = []
    with nervcodec.open(hostile) as video:
        with pytest.raises(ContainerError, match=r"a\.nerv: the copied stream is damaged") as caught:
            given.extend(video)
        assert "\n" not in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(given, frames, strict=False))
    assert [file.name for file in tmp_path.iterdir()] == ["a.nerv"]


CHANGES = {
    "entries that lead elsewhere": lambda h: h["base"].update(entries=[[0, 5], [50, 20_000]]),
    "entries behind the end": lambda h: h["base"].update(entries=[[0, h["base"]["entries"][0][1]], [50, 1 << 40]]),
    "frames to skip": lambda h: (h["base"].pop("entries"), h["base"].update(skipped=9)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_header_that_contradicts_the_stream_is_refused(name, street, tmp_path):
    copy = tmp_path / "copy.nerv"
    copy.write_bytes(street[0].read_bytes())
    with nervcodec.open(tampered(copy, CHANGES[name])) as video:
        with pytest.raises(ContainerError, match=r"tampered\.nerv: the copied stream is damaged") as caught:
            video[59]
        assert "\n" not in str(caught.value)


def test_networks_that_do_not_fit_a_copy_are_refused(street, tmp_path):
    copy = tmp_path / "copy.nerv"
    copy.write_bytes(street[0].read_bytes())

    def wide(header):
        for segment in header["segments"]:
            segment["network"].update(width=8)

    with pytest.raises(ContainerError, match="written by an earlier nervcodec"):
        nervcodec.open(tampered(copy, wide))
