# SPDX-License-Identifier: MIT
"""Base streams as files: the same packets, at their times, with sound, and they play."""

import hashlib
import re
import subprocess
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest
from streams import decode_stream, samples_of

from nervcodec.base import codec, obu
from nervcodec.formats.header import PlaneFormat
from nervcodec.media import audio, mux
from nervcodec.media.audio import Sound
from nervcodec.media.options import SourceOptions
from nervcodec.media.planes import Planes
from nervcodec.media.reader import plane_format, read_planes
from nervcodec.media.source import scan

FORM, RATE = PlaneFormat(), Fraction(25)


def ask(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *map(str, arguments), "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def segments(bikes):
    """Two segments of 25 and 10 frames."""
    options = SourceOptions(scale=(128, 64), duration_s=1.4)
    info = scan(bikes, options)
    form = plane_format(info, options)
    frames = list(read_planes(info, options, form))
    return [codec.encode(part, form, 128, 64, Fraction(25), 45, 12) for part in (frames[:25], frames[25:])]


def write(path, streams, rate=RATE, ticks=None, aspect=Fraction(1), sound=None):
    """Write streams as one file; ``ticks`` are milliseconds, and where the last frame ends."""
    units = [unit for stream in streams for unit in obu.temporal_units(stream)]
    tick_s = 1 / rate if ticks is None else Fraction(1, 1000)
    ticks, rate = (range(len(units) + 1), rate) if ticks is None else (ticks, None)
    keys = obu.key_frames(units)
    delimited = ((obu.DELIMITER + unit, number in keys) for number, unit in enumerate(units))
    mux.write_av1(path, delimited, ticks, tick_s, aspect, rate, sound)


def packets(path):
    """(time in seconds, is a key frame) of each video packet, in the order of the file."""
    text = ask("-i", path, "-map", "0:v", "-c", "copy", "-f", "framecrc").decode()
    base = Fraction(re.search(r"#tb 0: (\S+)", text)[1])
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    return [(float(int(row[2]) * base), not any("F=0x0" in cell for cell in row)) for row in rows]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_the_packets_are_those_that_are_stored(suffix, segments, tmp_path):
    path = tmp_path / f"a{suffix}"
    write(path, segments)
    back = ask("-i", path, "-map", "0:v", "-c", "copy", "-f", "obu")
    # A sequence header that says the same again may be moved to the head of the file; all else is the same.
    assert frames_only(back) == frames_only(b"".join(segments))
    times, keys = zip(*packets(path), strict=True)
    assert np.allclose(times, np.arange(35) / 25, atol=1e-3)
    assert keys == tuple(number in (0, 25) for number in range(35))


def frames_only(stream):
    return [bytes(stream[u.body : u.end]) for u in obu.obus(stream) if u.kind not in (1, 2)]


def test_it_decodes_to_the_same_frames(segments, tmp_path):
    path = tmp_path / "a.mp4"
    write(path, segments)
    seen = ask("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "yuv420p")
    stored = [decode_stream(s, FORM, 128, 64, n) for s, n in zip(segments, (25, 10), strict=True)]
    mine = b"".join(samples_of(frame) for part in stored for frame in part)
    assert hashlib.md5(seen).hexdigest() == hashlib.md5(mine).hexdigest()
    info = scan(path)
    assert (info.frame_count, info.frame_rate, info.variable_frame_rate) == (35, 25, False)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_with_times_of_their_own(suffix, segments, tmp_path):
    ticks = np.cumsum([0, *np.random.default_rng(0).choice([20, 40, 500], 35)]).tolist()
    path = tmp_path / f"a{suffix}"
    write(path, segments, ticks=ticks)
    times = np.array(ticks[:-1]) / 1000
    assert np.allclose([time for time, _ in packets(path)], times, atol=1e-3)
    info = scan(path)
    assert info.variable_frame_rate
    assert np.allclose(info.times_s, times, atol=2e-3)


def test_a_rate_that_is_no_whole_number_and_pixels_that_are_no_squares(segments, tmp_path):
    rate, aspect = Fraction(30_000, 1001), Fraction(128, 117)
    for suffix in (".mp4", ".mkv", ".webm"):
        path = tmp_path / f"a{suffix}"
        write(path, segments, rate, aspect=aspect)
        info = scan(path)
        assert info.frame_rate == rate
        assert abs(info.sample_aspect_ratio / aspect - 1) < 5e-3  # WebM has whole pixels
        assert info.frame_count == 35


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound(suffix, segments, tmp_path, bunny):
    options = SourceOptions(duration_s=1.4)
    info = scan(bunny, options)
    data = audio.packets(info, options)
    sound = Sound(data, info.first_frame_s + audio.LEAD_S).fitting(suffix)
    path = tmp_path / f"a{suffix}"
    write(path, segments, sound=sound)
    with_sound = scan(path)
    assert with_sound.has_audio
    assert with_sound.frame_count == 35
    heard = np.frombuffer(ask("-i", path, "-map", "0:a", "-f", "f32le", "-ac", "1"), np.float32)
    assert len(heard) > 48_000
    assert np.abs(heard).max() > 0.001


def test_odd_sizes_show_what_is_coded(tmp_path):
    frame = Planes(*(np.full((1, *size), 99, np.uint8) for size in ((67, 71), (34, 36), (34, 36))))
    stream = codec.encode([frame], FORM, 71, 67, Fraction(25), 20, 12)
    path = tmp_path / "a.mp4"
    write(path, [stream])
    info = scan(path)
    assert (info.width, info.height, info.sample_aspect_ratio, info.frame_count) == (72, 68, 1, 1)
