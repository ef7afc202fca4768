# SPDX-License-Identifier: MIT
"""Synchronization: flashes and beeps are as far apart in the decoded file as in the source."""

import io
import re
from pathlib import Path

import av
import numpy as np
import pytest

from nervcodec.errors import VideoError
from nervcodec.events import Observer
from nervcodec.media.audio import LEAD_S, packets
from nervcodec.media.source import SourceOptions, scan

GOLDEN = Path(__file__).parents[1] / "golden"
FLASHES = "color=black:s=160x120:r=25:d=4,drawbox=c=white:t=fill:enable='between(n,25,26)+between(n,60,61)'"
BEEPS = "aevalsrc='0.8*sin(2*PI*1000*t)*(between(t,1,1.08)+between(t,2.4,2.48))':s=48000:d=4"
COPY = ["-map", "0:v", "-map", "1:a", "-c:v", "copy"]


@pytest.fixture(scope="module")
def make(tmp_path_factory, ffmpeg):
    """Makes a clip from ``v.mp4``, with flashes, and ``a.wav``, with beeps at the same times: 1.0 and 2.4 s."""
    folder = tmp_path_factory.mktemp("sync")
    video, sound = folder / "v.mp4", folder / "a.wav"
    ffmpeg("-f", "lavfi", "-i", FLASHES, "-c:v", "libx264", "-bf", 2, "-pix_fmt", "yuv420p", video)
    ffmpeg("-f", "lavfi", "-i", BEEPS, sound)

    def call(name, *arguments):
        if not (folder / name).exists():
            ffmpeg(*[{"v.mp4": video, "a.wav": sound}.get(a, a) for a in arguments], folder / name)
        return folder / name

    return call


def late(make, suffix):
    shifted = ["-filter_complex", "[1:a]asetpts=PTS+1.5/TB[a]", "-map", "0:v", "-map", "[a]"]
    return make(f"alate{suffix}", "-i", "v.mp4", "-ss", 1.5, "-i", "a.wav", *shifted, "-c:v", "copy", "-c:a", "aac")


def early(make, name, codec):
    late_picture = ["-i", "a.wav", "-itsoffset", 0.8, "-i", "v.mp4", "-map", "1:v", "-map", "0:a"]
    return make(name, *late_picture, "-c:v", "copy", "-c:a", codec)


def plain(make, name, *coding):
    return make(name, "-i", "v.mp4", "-i", "a.wav", *(coding or [*COPY, "-c:a", "aac"]))


def joined(make, name="jumps.ts", seconds=3.5, offsets=(5000, 100, 9000)):
    """Three recordings one after the other; the sound of each is half a second shorter."""
    cut = [*COPY, "-af", f"atrim=0:{seconds}", "-c:a", "ac3", "-output_ts_offset"]
    parts = [plain(make, f"{offset}_{seconds}.ts", *cut, offset) for offset in offsets]
    path = parts[0].with_name(name)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def begins(times, loud, gap):
    """Where something loud begins after a gap, in seconds."""
    times = times[loud]
    return times[np.diff(times, prepend=-np.inf) > gap].tolist()


def flashes(path):
    with av.open(path) as container:
        shown = [(frame.time, frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]
    times, means = np.array(shown).T
    return begins(times, means > 120, 0.5)


def beeps(path):
    times, levels = [], []
    with av.open(path) as container:
        for frame in (f for f in container.decode(audio=0) if f.time is not None):
            samples = frame.to_ndarray()
            full = 1.0 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
            across = 0 if frame.format.is_planar else 1
            level = np.abs(samples.reshape((-1, frame.samples) if across == 0 else (frame.samples, -1)) / full)
            levels.append(level.max(across))
            times.append(frame.time + np.arange(frame.samples) / frame.sample_rate)
    return begins(np.concatenate(times), np.concatenate(levels) > 0.3, 0.5)


def played(run, source, *options):
    """Flashes and beeps of all that can be made of a source, and what was said of it."""
    encoded = run("encode", source, "-o", "a.nerv", "--base", "av1", "--crf", 50, "--encoder", "none", *options)
    assert encoded.returncode == 0, encoded.stderr
    return decoded(run, "a.nerv"), encoded.stderr


def decoded(run, container):
    """Flashes and beeps of all that can be made of a container."""
    found = []
    for name, more in (("d.mp4", []), ("d.mkv", []), ("b.mp4", ["--base-only"]), ("b.mkv", ["--base-only"])):
        result = run("decode", container, "-o", name, "--force", *more)
        assert result.returncode == 0, result.stderr
        path = decoded_path(run, name)
        found.append((flashes(path), beeps(path)))
    return found


def decoded_path(run, name):
    return run.folder / name


@pytest.fixture
def run(run, tmp_path):
    run.folder = tmp_path
    return run


def in_time(found, wanted_flashes, wanted_beeps):
    for shown, heard in found:
        origin = shown[0] - wanted_flashes[0]  # MPEG-TS begins at no round time
        assert np.subtract(shown, origin) == pytest.approx(wanted_flashes, abs=0.002)
        assert np.subtract(heard, origin) == pytest.approx(wanted_beeps, abs=0.004)


# ------------------------------------------------------------------ where each begins


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sound_that_begins_later_than_the_picture(suffix, make, run):
    in_time(played(run, late(make, suffix))[0], [1.0, 2.4], [2.4])


def test_late_sound_of_a_container_of_an_older_version(run):
    """Encoded at ab77085, from what :func:`late` makes: its times of sound count from the first frame."""
    in_time(decoded(run, GOLDEN / "version3_late_sound.nerv"), [1.0, 2.4], [2.4])


@pytest.mark.parametrize(("name", "codec"), [("vlate.ts", "ac3"), ("vlate.mkv", "aac")])
def test_a_picture_that_begins_later_than_the_sound(name, codec, make, run):
    source = early(make, name, codec)
    in_time(played(run, source)[0], [1.0, 2.4], [0.2, 1.6])
    info = scan(source)
    assert info.first_frame_s == pytest.approx(0.8, abs=0.01)
    first, *_ = stored(info)
    assert first == pytest.approx(0.0, abs=0.03)  # what is heard before the first frame is kept


def stored(info, **options):
    """Times of the packets of sound, in seconds from the zero of ``first_frame_s``."""
    with av.open(io.BytesIO(packets(info, SourceOptions(**options)))) as container:
        stream = container.streams.audio[0]
        return [float(p.pts * stream.time_base) - LEAD_S for p in container.demux(stream) if p.size]


# ------------------------------------------------------------------ clocks that jump


def test_a_clock_that_jumps(make, run):
    """As in joined recordings: each part follows the picture of the one before it."""
    found, messages = played(run, joined(make))
    in_time(found, [1.0, 2.4, 5.0, 6.4, 9.0, 10.4], [1.0, 2.4, 5.0, 6.4, 9.0, 10.4])
    assert "jumps.ts: its clock jumps (2 x); times are made to go on there" in messages


@pytest.mark.parametrize("offsets", [(0, 0, 0), (100, 103.7, 102), (20, 10, 0)])
def test_clocks_that_overlap(offsets, make):
    """The sound alone would not tell where its clock steps back by less than the gap in it."""
    source = joined(make, "overlap.ts", offsets=offsets)
    info = scan(source)
    times = np.array(stored(info))
    assert len(times) == 330
    gaps = np.flatnonzero(np.diff(times) > 0.04)
    assert times[gaps + 1] == pytest.approx([4.0, 8.0], abs=0.12)
    assert (info.frame_count, info.duration_s) == (300, pytest.approx(12.0))


def test_a_part_whose_sound_is_longer_than_its_picture(make):
    source = joined(make, "longer.ts", seconds=4, offsets=(50, 500))
    short = plain(make, "short.ts", *COPY, "-frames:v", 75, "-c:a", "ac3", "-output_ts_offset", 9000)
    both = source.with_name("both.ts")
    both.write_bytes(short.read_bytes() + source.read_bytes())
    times = stored(scan(both))
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(3 + 4 + 4 - 0.032, abs=0.1)


@pytest.mark.parametrize("offsets", [(5000, 100, 9000), (0, 0, 0)])
def test_a_start_behind_a_jump(offsets, make, run):
    """Seeking by time would lead to another part of the same time."""
    source = joined(make, "start.ts", offsets=offsets)
    in_time(played(run, source, "--start", 4.5, "--duration", 3)[0], [0.5, 1.9], [0.5, 1.9])


def test_a_damaged_time_of_sound(make):
    """One packet of sound states a time that is an hour off."""
    source = plain(make, "stray.ts", *COPY, "-c:a", "mp2")
    data, packet = bytearray(source.read_bytes()), 0
    for begin in range(0, len(data), 188):
        start = data.find(b"\x00\x00\x01\xc0", begin, begin + 188)  # a PES packet of sound
        if start >= 0 and (packet := packet + 1) == 5:
            data[start + 9] ^= 0x02  # of the highest bits of its time
    assert packet > 5
    damaged = source.with_name("stray_damaged.ts")
    damaged.write_bytes(data)
    whole, found = stored(scan(source)), stored(scan(damaged))
    assert found[-1] == pytest.approx(whole[-1], abs=0.03)
    assert abs(len(whole) - len(found)) <= 1


def test_times_that_step_back_are_noted(make, tmp_path):
    """Two files of FLV, one behind the other."""
    data = plain(make, "v.flv", "-map", "0:v", "-c", "copy").read_bytes()
    (tmp_path / "a.flv").write_bytes(data + data[13:])
    info = scan(tmp_path / "a.flv")
    assert info.notes == ("a.flv: times of its frames step back; even ones are taken, 25 frames a second",)
    assert not info.variable_frame_rate


def test_a_small_step_back_does_not_move_other_frames(make, ffmpeg, tmp_path):
    """As in films whose fields are repeated by flags; even times at the stated rate would drift from the sound."""
    path = plain(make, "v.mkv", "-map", "0:v", "-c", "copy")
    slow = "setts=pts=PTS+PTS/4-50*eq(N\\,50)-50*eq(N\\,51)-50*eq(N\\,52):dts=DTS"
    ffmpeg("-i", path, "-c", "copy", "-bsf:v", slow, tmp_path / "a.mkv")
    info = scan(tmp_path / "a.mkv")
    assert info.notes == ()
    assert info.times_s[-1] == pytest.approx(99 * 0.05, abs=0.06)
    assert (np.diff(info.times_s) >= 0).all()


# ------------------------------------------------------------------ kinds of sound


@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("base.ts", ["-c:a", "aac"]),
        ("latm.ts", ["-c:a", "aac", "-mpegts_flags", "latm"]),
        ("surround.ts", ["-c:a", "aac", "-ac", 6]),
        ("mp2.ts", ["-c:a", "mp2"]),
        ("opus.ts", ["-c:a", "libopus"]),
        ("aac.mov", ["-c:a", "aac"]),
        ("pcm.mov", ["-c:a", "pcm_s16be"]),
        ("alaw.mov", ["-c:a", "pcm_alaw"]),
        ("alac.mov", ["-c:a", "alac"]),
        ("amr.3gp", ["-c:a", "libopencore_amrnb", "-ar", 8000, "-ac", 1]),
        ("pcm.avi", ["-c:v", "mpeg4", "-c:a", "pcm_s24le"]),
        ("adpcm.avi", ["-c:v", "mpeg4", "-c:a", "adpcm_ms"]),
        ("aac.flv", ["-c:a", "aac"]),
        ("vorbis.mkv", ["-c:a", "libvorbis"]),
        ("opus.mkv", ["-c:a", "libopus"]),
        ("flac.mkv", ["-c:a", "flac"]),
        ("wma.wmv", ["-c:v", "wmv2", "-c:a", "wmav2"]),
    ],
)
def test_sound_is_copied_as_it_is(name, coding, make, tmp_path):
    """AAC in MPEG-TS needs another form in Matroska; what has no name there is held as WAV files hold it."""
    source = plain(make, name, *COPY, *coding)
    info = scan(source)
    (tmp_path / "a.mka").write_bytes(packets(info, SourceOptions()))
    heard = np.subtract(beeps(tmp_path / "a.mka"), LEAD_S + info.first_frame_s)
    assert heard == pytest.approx([1.0, 2.4], abs=0.03)
    with av.open(source) as one, av.open(tmp_path / "a.mka") as other:
        sizes = [[p.size for p in c.demux(audio=0) if p.size] for c in (one, other)]
    if name not in ("base.ts", "surround.ts"):
        assert sizes[0] == sizes[1]
    assert len(sizes[0]) == len(sizes[1])


def test_aac_of_a_broadcast_is_encoded(make, run):
    in_time(played(run, plain(make, "base.ts"))[0], [1.0, 2.4], [1.0, 2.4])


def test_sound_that_cannot_be_copied(make):
    info = scan(plain(make, "adpcm.mov", *COPY, "-c:a", "adpcm_ima_qt"))
    with pytest.raises(VideoError, match=r"adpcm.mov: its sound cannot be copied \(.* adpcm_ima_qt\); --audio none"):
        packets(info, SourceOptions())


class Notes(Observer):
    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


def damaged_ts(source, path, is_damaged):
    """A copy of a transport stream in which the payload of some of its packets of sound is overwritten."""
    with av.open(source) as container:
        sound = container.streams.audio[0].id
    data, number = bytearray(source.read_bytes()), 0
    for begin in range(0, len(data), 188):
        if (data[begin + 1] & 31) << 8 | data[begin + 2] != sound:
            continue
        payload = begin + 4 + (data[begin + 3] >> 5 & 1) * (1 + data[begin + 4])
        if data[begin + 1] & 64:  # the head of a PES packet, with its time
            payload += 9 + data[payload + 8]
        if is_damaged(number):
            data[payload : begin + 188] = b"\x5a" * (begin + 188 - payload)
        number += 1
    path.write_bytes(data)
    return scan(path)


@pytest.mark.parametrize("is_damaged", [lambda number: number % 9 == 5, lambda number: number < 12])
def test_damaged_packets_of_sound_are_left_out(make, tmp_path, is_damaged):
    """Of a transport stream, at intervals or at the beginning; the others keep their times."""
    source, notes = plain(make, "base.ts"), Notes()
    damaged = damaged_ts(source, tmp_path / "a.ts", is_damaged)
    packets(damaged, SourceOptions(), notes)
    assert len(notes.texts) == 1
    assert re.fullmatch(r"a.ts: \d+ of \d+ packets of its sound are damaged: left out", notes.texts[0])
    whole, times = stored(scan(source)), stored(damaged)
    assert 0.5 * len(whole) < len(times) < len(whole)
    assert all(np.abs(np.subtract(whole, time)).min() < 0.002 for time in times)


def test_sound_of_which_every_packet_is_damaged_is_left_out(make, tmp_path):
    notes = Notes()
    assert not packets(damaged_ts(plain(make, "base.ts"), tmp_path / "a.ts", lambda _: True), SourceOptions(), notes)
    assert notes.texts[-1] == "a.ts: none of its sound can be read: left out"


def test_truncated_sound_is_copied_up_to_its_end(make, tmp_path):
    whole = plain(make, "mp3.mkv", *COPY, "-c:a", "libmp3lame")
    data = bytearray(whole.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    (tmp_path / "a.mkv").write_bytes(data)
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    everything = stored(scan(whole))
    assert len(stored(scan(tmp_path / "a.mkv"))) >= len(everything) * 0.9
    assert 0.3 < len(stored(scan(tmp_path / "cut.mkv"))) / len(everything) < 0.9


# ------------------------------------------------------------------ ranges


@pytest.mark.parametrize("name", ["range.mp4", "range.mkv", "range.ts", "range.flv"])
def test_a_range_has_its_own_sound(name, make, run):
    """Both flashes lie between two key frames."""
    source = plain(make, name)
    in_time(played(run, source, "--start", 0.9, "--duration", 2)[0], [0.1, 1.5], [0.1, 1.5])
    info = scan(source, SourceOptions(start_s=0.9, duration_s=2.0))
    times = stored(info, start_s=0.9, duration_s=2.0)
    assert times[0] == pytest.approx(0.0, abs=0.022)
    assert times[-1] == pytest.approx(2.0, abs=0.022)


def test_a_range_without_sound(make):
    info = scan(late(make, ".mkv"), SourceOptions(duration_s=1.0))
    assert packets(info, SourceOptions(duration_s=1.0)) == b""


def test_of_several_programs_the_sound_of_the_picture_is_taken(make, ffmpeg, tmp_path):
    """The other program's sound is louder, and comes first."""
    video, other = plain(make, "v.mkv", "-map", "0:v", "-c", "copy"), tmp_path / "other.wav"
    ffmpeg("-f", "lavfi", "-i", "sine=d=4:r=48000", other)
    own = plain(make, "own.wav", "-map", "1:a")
    ffmpeg(
        *["-i", other, "-i", own, "-i", video, "-map", 0, "-map", 1, "-map", 2, "-c:v", "copy"],
        *["-c:a", "mp2", "-b:a:0", "384k", "-program", "st=0", "-program", "st=1:st=2", tmp_path / "a.ts"],
    )
    info = scan(tmp_path / "a.ts")
    (tmp_path / "a.mka").write_bytes(packets(info, SourceOptions()))
    assert len(beeps(tmp_path / "a.mka")) == 2
