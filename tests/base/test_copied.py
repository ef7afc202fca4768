# SPDX-License-Identifier: MIT
"""Copied streams that are damaged or hostile: one line, and no frame that was not in them."""

import time

import imageio_ffmpeg
import numpy as np
import pytest

from nervcodec.base import copied, packets
from nervcodec.errors import ContainerError, VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.video import matroska
from nervcodec.video.planes import plane_format, read_planes
from nervcodec.video.source import scan

FORM = PlaneFormat()


@pytest.fixture(scope="module")
def clip(carphone, tmp_path_factory):
    """Twelve frames of 96 x 80, a key frame every four, and their packets."""
    import subprocess

    folder = tmp_path_factory.mktemp("copied")
    source = folder / "a.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(carphone), "-frames:v", "12"]
    chain = "scale=96:80,setsar=1"
    subprocess.run([*command, "-vf", chain, "-c:v", "libx264", "-g", "4", "-crf", "10", str(source)], check=True)
    info = scan(source)
    form = plane_format(info)
    taken = packets.Packets.of(info, form, folder / "a.mkv")
    return taken.file.read_bytes(), form, [planes.tobytes() for planes in read_planes(info, None, form)]


def frames(data, form, count, size=(96, 80), **more):
    return [planes.tobytes() for planes in copied.decode(iter([data]), form, *size, count, **more)]


def test_there_and_back(clip):
    data, form, wanted = clip
    assert frames(data, form, 12) == wanted
    assert frames(data, form, 7, skipped=5) == wanted[5:]
    pieces = (data[begin : begin + 100] for begin in range(0, len(data), 100))
    assert [p.tobytes() for p in copied.decode(pieces, form, 96, 80, 12, flawed=True)] == wanted


def test_clusters_are_found_and_stand_alone(clip):
    data, form, wanted = clip
    found = list(matroska.clusters(data))
    assert found[0].is_key
    assert [cluster.is_key for cluster in found] == [True] * len(found)
    assert [cluster.time for cluster in found] == sorted({cluster.time for cluster in found})
    assert len(found) == 3
    assert frames(data[: found[0].begin] + data[found[1].begin :], form, 8) == wanted[4:]
    assert not list(matroska.clusters(data[: found[0].begin]))
    assert not list(matroska.clusters(b""))


@pytest.mark.parametrize(("count", "message"), [(11, "more than 11 frames"), (13, "only 12 of 13 frames")])
def test_too_many_and_too_few_frames(count, message, clip):
    data, form, wanted = clip
    given = []
    with pytest.raises(ContainerError, match=message):
        given.extend(planes.tobytes() for planes in copied.decode(iter([data]), form, 96, 80, count))
    with pytest.raises(ContainerError, match=message):
        frames(data, form, count, flawed=True)
    assert given == wanted[: min(count, 12) - 1]  # the last is not given before it is known to be the last


def test_frames_of_another_size(clip):
    data, form, _ = clip
    for size in ((94, 80), (96, 82), (80, 96), (2, 2)):
        for flawed in (False, True):
            with pytest.raises(ContainerError, match="the copied stream is damaged") as caught:
                frames(data, form, 12, size, flawed=flawed)
            assert "\n" not in str(caught.value)


def changed(data, part):
    """Some bytes in the midst are something else."""
    rng, out = np.random.default_rng(0), bytearray(data)
    begin = int(len(out) * part)
    out[begin : begin + 400] = rng.bytes(400)
    return bytes(out)


@pytest.mark.parametrize("part", [0.5, 0.7])
def test_garbage_within_gives_an_error_and_true_frames_alone(part, clip):
    data, form, wanted = clip
    given = []
    decoder = copied.decode(iter([changed(data, part)]), form, 96, 80, 12)
    with pytest.raises(ContainerError, match="the copied stream is damaged") as caught:
        given.extend(planes.tobytes() for planes in decoder)
    assert "\n" not in str(caught.value)
    assert given == wanted[: len(given)]


@pytest.mark.parametrize("data", [b"", b"\x00" * 5000, b"garbage" * 500, b"\x1a\x45\xdf\xa3" + b"\xff" * 500])
def test_what_is_no_stream_at_all(data):
    for flawed in (False, True):
        with pytest.raises(ContainerError, match="the copied stream is damaged"):
            frames(data, FORM, 3, flawed=flawed)


def test_a_stream_that_is_cut_short(clip):
    data, form, _ = clip
    for end in (0.3, 0.6, 0.95):
        with pytest.raises(ContainerError, match="the copied stream is damaged"):
            frames(data[: int(end * len(data))], form, 12)


def test_what_is_read_may_fail_underneath(clip):
    """The file under the stream was cut short while it was open: its own words, no traceback of a thread."""
    data, form, _ = clip

    def pieces():
        yield data[:3000]
        raise ContainerError("a.nerv: was cut short while it was open")

    with pytest.raises(ContainerError, match=r"a\.nerv: was cut short"):
        list(copied.decode(pieces(), form, 96, 80, 12))


def test_a_decoder_that_hangs_is_ended(clip, tmp_path, monkeypatch):
    helper = tmp_path / "helper"
    real = imageio_ffmpeg.get_ffmpeg_exe()
    helper.write_text(f'#!/bin/sh\ncase "$*" in *matroska*) exec sleep 60;; esac\nexec {real} "$@"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(helper))
    monkeypatch.setattr(copied, "_STALLS_S", 0.3)
    began = time.monotonic()
    for flawed in (False, True):
        with pytest.raises(ContainerError, match=r"nothing came after frame 0 for 0\.3 s"):
            frames(clip[0], clip[1], 12, flawed=flawed)
    assert time.monotonic() - began < 20


def test_closing_stops_the_decoder(clip, monkeypatch):
    data, form, wanted = clip
    made, process = [], copied.ffmpeg.Process
    monkeypatch.setattr(copied.ffmpeg, "Process", lambda *a, **k: made.append(process(*a, **k)) or made[-1])
    decoder = copied.decode(iter([data]), form, 96, 80, 12)
    assert next(decoder).tobytes() == wanted[0]
    decoder.close()
    assert made[0].wait() is not None


def test_a_codec_that_a_format_does_not_hold(clip, tmp_path):
    from nervcodec.base import mux

    data = clip[0]
    with pytest.raises(VideoError, match=r"a\.webm: cannot be written \(.+\); where \.webm does not hold this codec"):
        mux.write_copied(tmp_path / "a.webm", lambda: iter([data]))
    with pytest.raises(VideoError, match="the base goes into"):
        mux.write_copied(tmp_path / "a.avi", lambda: iter([data]))
    with pytest.raises(ContainerError, match="it holds 12 frames"):
        mux.write_copied(tmp_path / "a.mp4", lambda: iter([data]), skipped=12)
    with pytest.raises(VideoError, match="cannot be written"):
        mux.write_copied(tmp_path / "a.mp4", lambda: iter([b"garbage" * 100]))
    assert not list(tmp_path.iterdir())
