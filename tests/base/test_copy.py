# SPDX-License-Identifier: MIT
"""Copied streams that are damaged or hostile: one line, and no frame that was not in them."""

import threading

import imageio_ffmpeg
import numpy as np
import pytest
from streams import samples_of

from nervcodec.base import copy
from nervcodec.errors import ContainerError, VideoError
from nervcodec.formats.header import PlaneFormat
from nervcodec.media import mux
from nervcodec.media.reader import plane_format, read_planes
from nervcodec.media.source import scan

FORM = PlaneFormat()


@pytest.fixture(scope="module")
def made(carphone, tmp_path_factory):
    """Twelve frames of 96 x 80, a key frame every four, and their packets."""
    import subprocess

    folder = tmp_path_factory.mktemp("copied")
    source = folder / "a.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(carphone), "-frames:v", "12"]
    chain = "scale=96:80,setsar=1"
    subprocess.run([*command, "-vf", chain, "-c:v", "libx264", "-g", "4", "-crf", "10", str(source)], check=True)
    info = scan(source)
    form = plane_format(info)
    taken = copy.Packets.of(info, form, folder / "a.mkv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copy, "_APART_S", 0.0)
        wanted = [samples_of(planes) for planes in taken.frames()]
    assert wanted == [samples_of(planes) for planes in read_planes(info, None, form)]
    return taken.file.read_bytes(), form, wanted, taken.random_access_points


@pytest.fixture
def clip(made):
    """The packets as Matroska, what samples become, and the frames."""
    return made[:3]


@pytest.fixture
def entries(made):
    """(frame, byte) of the packets' key frames."""
    return made[3]


def frames(data, form, count, size=(96, 80), **more):
    return [samples_of(planes) for planes in copy.decode(iter([data]), form, *size, count, **more)]


def test_there_and_back(clip):
    data, form, wanted = clip
    assert frames(data, form, 12) == wanted
    assert frames(data, form, 7, preroll_frames=5) == wanted[5:]
    pieces = (data[begin : begin + 100] for begin in range(0, len(data), 100))
    assert [samples_of(p) for p in copy.decode(pieces, form, 96, 80, 12, tolerates_errors=True)] == wanted


def test_what_begins_at_an_entry_stands_alone(clip, entries):
    data, form, wanted = clip
    assert [frame for frame, _ in entries] == [0, 4, 8]
    for frame, begin in entries:
        assert frames(data[: entries[0][1]] + data[begin:], form, 12 - frame) == wanted[frame:]
        assert frames(data[: entries[0][1]] + data[begin:], form, 4, to_end=False) == wanted[frame : frame + 4]


@pytest.mark.parametrize(("count", "message"), [(11, "more than 11 frames"), (13, "only 12 of 13 frames")])
def test_too_many_and_too_few_frames(count, message, clip):
    data, form, wanted = clip
    given = []
    with pytest.raises(ContainerError, match=message):
        given.extend(samples_of(planes) for planes in copy.decode(iter([data]), form, 96, 80, count))
    with pytest.raises(ContainerError, match=message):
        frames(data, form, count, tolerates_errors=True)
    assert given == wanted[: min(count, 12) - 1]  # the last is not given before it is known to be the last


def test_frames_of_another_size(clip):
    data, form, _ = clip
    for size in ((94, 80), (96, 82), (80, 96), (2, 2)):
        for flawed in (False, True):
            with pytest.raises(ContainerError, match="the copied stream is damaged") as caught:
                frames(data, form, 12, size, tolerates_errors=flawed)
            assert "\n" not in str(caught.value)


# Damage in these is found; in HEVC, VP9 and AV1 an arithmetic decoder reads anything, and the file's checksum tells.
CODERS = {
    "h264": ["libx264", "-g", "4", "-crf", "10"],
    "mpeg2": ["mpeg2video", "-q:v", "2"],
    "mpeg4": ["mpeg4", "-q:v", "2"],
}


@pytest.mark.parametrize("part", [0.5, 0.7])
@pytest.mark.parametrize("coder", CODERS)
def test_garbage_within_gives_an_error_and_true_frames_alone(coder, part, carphone, tmp_path, ffmpeg):
    ffmpeg("-i", carphone, "-frames:v", "12", "-vf", "scale=96:80,setsar=1", "-c:v", *CODERS[coder], tmp_path / "a.mkv")
    data, form = (tmp_path / "a.mkv").read_bytes(), plane_format(scan(tmp_path / "a.mkv"))
    wanted, broken = frames(data, form, 12), bytearray(data)
    begin = int(len(data) * part)
    broken[begin : begin + 400] = np.random.default_rng(0).bytes(400)
    given = []
    with pytest.raises(ContainerError, match="the copied stream is damaged") as caught:
        given.extend(samples_of(planes) for planes in copy.decode(iter([bytes(broken)]), form, 96, 80, 12))
    assert "\n" not in str(caught.value)
    assert given == wanted[: len(given)]


@pytest.mark.parametrize("data", [b"", b"\x00" * 5000, b"garbage" * 500, b"\x1a\x45\xdf\xa3" + b"\xff" * 500])
def test_what_is_no_stream_at_all(data):
    for flawed in (False, True):
        with pytest.raises(ContainerError, match="the copied stream is damaged"):
            frames(data, FORM, 3, tolerates_errors=flawed)


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
        list(copy.decode(pieces(), form, 96, 80, 12))


def test_a_decoder_that_stalls_is_given_up(clip, monkeypatch):
    """One line after a time without a frame; here what it reads does not come."""
    data, form, wanted = clip
    comes = threading.Event()
    monkeypatch.setattr(copy, "STALL_TIMEOUT_S", 0.3)

    def pieces():
        yield data[: len(data) // 2]
        comes.wait(60)

    given = []
    for flawed in (False, True):
        with pytest.raises(ContainerError, match=r"nothing came after frame \d+ for 0\.3 s"):
            given.extend(
                samples_of(planes) for planes in copy.decode(pieces(), form, 96, 80, 12, tolerates_errors=flawed)
            )
    comes.set()
    assert given[0] == wanted[0]


def test_closing_ends_the_thread(clip):
    data, form, wanted = clip
    before = set(threading.enumerate())
    decoder = copy.decode(iter([data]), form, 96, 80, 12)
    assert samples_of(next(decoder)) == wanted[0]
    (thread,) = set(threading.enumerate()) - before
    decoder.close()
    assert not thread.is_alive()


def test_a_codec_that_a_format_does_not_hold(clip, tmp_path):
    data = clip[0]
    with pytest.raises(VideoError, match=r"a\.webm: cannot be written \(.+\); where \.webm does not hold this codec"):
        mux.write_copy(tmp_path / "a.webm", lambda: iter([data]), 0, None)
    with pytest.raises(ContainerError, match="it holds 12 frames"):
        mux.write_copy(tmp_path / "a.mp4", lambda: iter([data]), 12, None)
    with pytest.raises(VideoError, match="cannot be written"):
        mux.write_copy(tmp_path / "a.mp4", lambda: iter([b"garbage" * 100]), 0, None)
    assert not list(tmp_path.iterdir())
