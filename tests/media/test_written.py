# SPDX-License-Identifier: MIT
"""Colour tags, pixel shape and synchronization of written files."""

from fractions import Fraction

import av
import numpy as np
import pytest

from nervcodec.errors import VideoError
from nervcodec.media.audio import Sound
from nervcodec.media.options import SourceOptions
from nervcodec.media.reader import read_frames
from nervcodec.media.source import scan
from nervcodec.media.writer import VIDEO_SUFFIXES, VideoFormat, write_video

RATE, FLASHES_S = Fraction(25), (1.0, 2.4)
FORM = VideoFormat(64, 48, RATE)
FRAMES = [np.full((48, 64, 3), 255 if n in (25, 60) else 0, np.uint8) for n in range(100)]
ENCODERS = {"aac": "aac", "opus": "libopus", "mp3": "libmp3lame"}
BEEPS = "'0.8*sin(2*PI*1000*t)*(between(t,{0},{0}+0.08)+between(t,{1},{1}+0.08))'"
PACKET_S = 0.026  # the longest, of MP3 at 44.1 kHz


def sound(ffmpeg, path, codec, first_frame_s):
    """Beeps when the flashes show, in sound that begins 0.8 s before the first frame, with it, or 1.5 s after."""
    wave = BEEPS.format(*(time + first_frame_s for time in FLASHES_S))
    ffmpeg("-f", "lavfi", "-i", f"aevalsrc={wave}:s=48000:d=4.2", "-c:a", ENCODERS[codec], path)
    return Sound(path.read_bytes(), first_frame_s, is_whole=True)


def flashes_s(path):
    info = scan(path)
    frames = read_frames(info, SourceOptions())
    return [info.first_frame_s + time for time, frame in zip(info.times_s, frames, strict=True) if frame.mean() > 100]


def beeps_s(path):
    """When each beep begins."""
    samples, times = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            plain = av.AudioResampler("flt", "mono").resample(frame)[0].to_ndarray()[0]
            samples.append(plain)
            times.append(float(frame.pts * frame.time_base) + np.arange(len(plain)) / frame.sample_rate)
    loud = np.concatenate(times)[np.abs(np.concatenate(samples)) > 0.15]
    return [loud[0], *loud[1:][np.diff(loud) > 0.3]]


@pytest.mark.parametrize("first_frame_s", [0.0, -0.9, 0.8])
@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("suffix", [s for s in VIDEO_SUFFIXES if s != ".y4m"])
def test_flash_and_beep_stay_together(suffix, codec, first_frame_s, tmp_path, ffmpeg):
    whole = sound(ffmpeg, tmp_path / "sound.mka", codec, first_frame_s)
    path = tmp_path / f"a{suffix}"
    fitting = whole.fitting(suffix)
    write_video(path, FRAMES, FORM, crf=30, sound=fitting)
    shown, heard = flashes_s(path), beeps_s(path)
    assert np.allclose(heard, shown, atol=PACKET_S)
    assert whole.lead_s == pytest.approx(max(first_frame_s, 0), abs=0.002)
    kept = fitting.lead_s
    assert kept == (0 if suffix == ".avi" else whole.lead_s)
    assert shown[0] == pytest.approx(FLASHES_S[0] + kept, abs=PACKET_S)


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])  # as it is, and encoded again
def test_a_range_of_sound(suffix, tmp_path, ffmpeg):
    whole = sound(ffmpeg, tmp_path / "sound.mka", "aac", 0.0)
    clip = Sound(whole.data, 2.0, 0.6).fitting(suffix)
    path = tmp_path / f"a{suffix}"
    write_video(path, FRAMES[50:65], FORM, crf=30, sound=clip)
    assert np.allclose([beeps_s(path), flashes_s(path)], 0.4, atol=PACKET_S)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(0.6, abs=0.05)


def test_sound_that_changes_its_format(tmp_path, ffmpeg):
    """From stereo to mono in one stream, as broadcasts do."""
    parts = []
    for number, channels in enumerate((2, 1)):
        part = tmp_path / f"{number}.ts"
        wave = BEEPS.format(*FLASHES_S)
        ffmpeg("-f", "lavfi", "-i", f"aevalsrc={wave}:s=48000:d=4", "-ac", channels, "-c:a", "mp2", part)
        parts.append(part.read_bytes())
    (tmp_path / "both.ts").write_bytes(parts[0] + parts[1])
    ffmpeg("-i", tmp_path / "both.ts", "-c", "copy", tmp_path / "both.mka")
    write_video(
        tmp_path / "a.webm",
        FRAMES * 2,
        FORM,
        sound=Sound((tmp_path / "both.mka").read_bytes()).fitting(".webm"),
    )
    assert np.allclose(beeps_s(tmp_path / "a.webm"), [1, 2.4, 5, 6.4], atol=2 * PACKET_S)


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_colours_and_pixels_are_stated(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_video(path, FRAMES[:3], FORM._replace(sample_aspect_ratio=Fraction(16, 11)))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        stated = codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range
        assert stated == ((2, 2, 2, 1) if suffix == ".y4m" else (1, 1, 1, 1))
        assert abs(stream.sample_aspect_ratio / Fraction(16, 11) - 1) < 5e-3
        assert stream.average_rate == RATE
    if suffix in (".mp4", ".mov"):
        data = path.read_bytes()
        assert b"colrnclx" + bytes([0, 1, 0, 1, 0, 1]) in data or b"colrnclc" + bytes([0, 1, 0, 1, 0, 1]) in data
        assert b"pasp" + bytes([0, 0, 0, 16, 0, 0, 0, 11]) in data
        assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("size", [(62, 46), (31, 17), (640, 480), (1920, 1080)])
@pytest.mark.parametrize("aspect", [Fraction(128, 117), Fraction(3, 4), Fraction(4, 3)])
def test_sample_aspect_ratio_in_matroska(aspect, size, tmp_path):
    path = tmp_path / "a.mkv"
    write_video(path, [np.zeros((size[1], size[0], 3), np.uint8)], VideoFormat(*size, RATE, aspect))
    assert scan(path).sample_aspect_ratio == aspect


def test_a_video_without_frames_is_refused(tmp_path):
    for suffix in VIDEO_SUFFIXES:
        with pytest.raises(VideoError, match="no frame to write"):
            write_video(tmp_path / f"a{suffix}", [], FORM)
    assert not list(tmp_path.iterdir())
