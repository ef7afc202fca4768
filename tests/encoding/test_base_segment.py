# SPDX-License-Identifier: MIT
"""Segments with a base layer: sources of every kind, goals, stops and resumption."""

import contextlib
import copy
import re
import subprocess
import weakref

import numpy as np
import pytest
from layers import qualities

import nervcodec
from nervcodec import options
from nervcodec.base import codec
from nervcodec.base.export import write_base
from nervcodec.encoding import segment_reader
from nervcodec.encoding.base_segment import encode_base_segment
from nervcodec.encoding.plan import make_plan
from nervcodec.encoding.segment import EncodedSegment
from nervcodec.encoding.segment_reader import SegmentReader
from nervcodec.errors import ConfigError, VideoError
from nervcodec.events import Observer
from nervcodec.formats.container import Container
from nervcodec.media.ffmpeg import executable

QUICK = {"base": "av1", "encoder": "none", "device": "cpu", "precision": "fp32"}


class Notes(Observer):
    def __init__(self):
        self.notes, self.stages, self.kept = [], [], False

    def note(self, text):
        self.notes.append(text)

    def stage(self, name, total=None):
        self.stages.append(name)

    def partial_result_ready(self):
        self.kept = True


# ------------------------------------------------------------------ sources

SOURCES = {
    "odd": ("scale=177:131,format=yuv420p", 12, "ffv1"),
    "one frame": ("scale=80:64,format=yuv420p", 1, "ffv1"),
    "one pixel": ("scale=1:1,format=yuv444p", 3, "ffv1"),
    "two pixels": ("scale=2:1,format=yuv444p", 3, "ffv1"),
    "10 bit": ("scale=98:66,format=yuv420p10le", 6, "ffv1"),
    "4:4:4": ("scale=97:65,format=yuv444p", 6, "ffv1"),
    "4:2:2, 10 bit": ("scale=97:65,format=yuv422p10le", 6, "ffv1"),
    "12 bit": ("scale=97:65,format=yuv444p12le", 6, "ffv1"),
    "rgb": ("scale=97:65,format=gbrp", 6, "ffv1"),
    "grey": ("scale=97:65,format=gray", 6, "ffv1"),
    "full range": ("scale=98:66,format=yuvj420p", 6, "libx264"),
    "709": ("scale=98:66:out_color_matrix=bt709,format=yuv420p,setparams=colorspace=bt709", 6, "ffv1"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources(name, ffmpeg, tmp_path):
    """Decoded as they were measured, by a fresh reader of the original."""
    filters, count, codec = SOURCES[name]
    clip, out = tmp_path / "clip.mkv", tmp_path / "a.nerv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=354x262:r=25", "-frames:v", count, "-vf", filters, "-c:v", codec, clip)
    patches = (1, 1) if "pixel" in name else (2, 4)
    report = nervcodec.encode(clip, out, crf=20, patches=patches, **QUICK)
    assert qualities(out, clip).mean() == pytest.approx(report.psnr_db, abs=1e-3)
    assert report.psnr_db > (10 if name in ("two pixels", "rgb", "4:4:4", "12 bit") else 28)  # as_float16 chroma
    with nervcodec.open(out, "cpu") as video:
        assert video[:].shape == (count, video.header.video.height, video.header.video.width, 3)
        assert video.header.base.planes.full_range == (name in ("grey", "full range"))
        assert video.header.base.planes.matrix == (1 if name in ("rgb", "709") else 2)


def test_a_folder_of_images(ffmpeg, tmp_path):
    folder, out = tmp_path / "images", tmp_path / "a.nerv"
    folder.mkdir()
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=98x66", "-frames:v", 5, folder / "%03d.png")
    report = nervcodec.encode(folder, out, **QUICK)
    assert report.frames == 5
    assert qualities(out, folder).mean() == pytest.approx(report.psnr_db, abs=1e-3)


def test_part_of_a_rotated_clip_with_sound_and_times_of_its_own(ffmpeg, tmp_path):
    flat, clip, out = tmp_path / "flat.mp4", tmp_path / "clip.mp4", tmp_path / "a.nerv"
    times = "setpts='if(lt(N,30),N,30+(N-30)*3)/25/TB'"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x128:d=2", "-f", "lavfi", "-i", "sine=d=4", "-vf", times,
           "-fps_mode", "vfr", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-c:a", "aac", flat)  # fmt: skip
    ffmpeg("-display_rotation", 90, "-i", flat, "-c", "copy", clip)
    report = nervcodec.encode(clip, out, start_s=0.4, duration_s=2.0, crop=(100, 90), segment="20f", **QUICK)
    with nervcodec.open(out, "cpu") as video:
        facts = video.header.video
        assert (facts.height, facts.width, facts.variable_frame_rate) == (100, 90, True)
        assert len(video.header.segments) == 2
        assert video.sound() is not None
        assert len(np.unique(np.diff(video.frame_times_s).round(3))) > 1
    assert qualities(out, clip).mean() == pytest.approx(report.psnr_db, abs=1e-3)


# ------------------------------------------------------------------ goals

CLIP = {"duration_s": 1.0, **QUICK}


@pytest.mark.parametrize("more", [{"size_bytes": 6000}, {"bpp": 0.5}], ids=str)
@pytest.mark.parametrize("segment", ["10s", "15f"])
def test_sizes(carphone, tmp_path, more, segment):
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **CLIP, **more, segment=segment)
    wanted = more.get("size_bytes") or more["bpp"] * report.frames * 176 * 144 / 8
    assert 0.95 <= report.size_bytes / wanted <= 1


@pytest.mark.parametrize("wanted", [29.0, 35.0, 43.0])
def test_qualities(carphone, tmp_path, wanted):
    observer = Notes()
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **CLIP, psnr_db=wanted, observer=observer)
    assert wanted <= report.psnr_db <= wanted + 0.3
    assert observer.notes == []
    assert observer.stages.count("Coding the base") <= 4


def vmaf_by_ffmpeg(decoded, source):
    """Mean VMAF by ffmpeg alone, which reads both files."""
    graph = "[0:v]setpts=N,format=yuv420p10le[d];[1:v]setpts=N,format=yuv420p10le[r];[d][r]libvmaf"
    command = [executable(), "-i", decoded, "-i", source, "-lavfi", graph, "-f", "null", "-"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return float(re.search(r"VMAF score: ([\d.]+)", log)[1])


def test_a_vmaf_goes_together_with_a_time(carphone, tmp_path):
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **{**QUICK, "time_s": 60.0}, vmaf=90.0)
    assert report.vmaf.score == pytest.approx(90, abs=0.5)


def test_a_vmaf_is_what_ffmpeg_measures(carphone, tmp_path):
    observer = Notes()
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **QUICK, vmaf=90.0, observer=observer)
    assert report.vmaf.score == pytest.approx(90, abs=0.5)
    assert (report.vmaf.percentile, report.vmaf.frames) == (None, 120)
    assert observer.notes == []
    with Container.open(tmp_path / "a.nerv") as opened:
        write_base(opened, tmp_path / "a.mp4")
    assert vmaf_by_ffmpeg(tmp_path / "a.mp4", carphone) == pytest.approx(report.vmaf.score, abs=0.1)


def test_a_longer_video_is_sampled_and_each_segment_has_its_crf(carphone, tmp_path, monkeypatch):
    monkeypatch.setattr("nervcodec.encoding.base_segment._SHORT_S", 1.0)
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **QUICK, vmaf=90.0, segment="40f")
    assert report.vmaf.frames == 24  # one of five
    assert report.vmaf.score == pytest.approx(90, abs=1.2)
    with Container.open(tmp_path / "a.nerv") as opened:
        assert opened.header.base.crf is None
        assert len(opened.header.segments) == 3


def test_small_frames_have_no_vmaf(ffmpeg, tmp_path):
    clip = tmp_path / "clip.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x16", "-frames:v", 3, "-pix_fmt", "yuv420p", "-c:v", "ffv1", clip)
    with pytest.raises(ConfigError, match="frames of 64x16 have no VMAF, which needs 17x17 or more"):
        nervcodec.encode(clip, tmp_path / "a.nerv", vmaf=90.0, **QUICK)
    assert list(tmp_path.iterdir()) == [clip]


def test_measurements_of_a_search_are_kept(carphone, tmp_path, monkeypatch):
    """Killed in the first encode of the whole segment: the pilot encodes are not repeated."""
    for name in ("EVERY_S", "FIRST_S"):
        monkeypatch.setattr(f"nervcodec.training.checkpoint.{name}", 0.0)
    out, encode, presets = tmp_path / "a.nerv", codec.encode, []

    def dies(*arguments):
        presets.append(arguments[6])
        if presets.count(5) == 1 and arguments[6] == 5:
            raise VideoError("killed")
        return encode(*arguments)

    monkeypatch.setattr(codec, "encode", dies)
    settings = {**CLIP, "vmaf": 80.0}
    with pytest.raises(VideoError, match="killed"):
        nervcodec.encode(carphone, out, **settings)
    pilots, observer = presets.count(10), Notes()
    observer.hint = observer.note
    report = nervcodec.encode(carphone, out, **settings, resume=True, observer=observer)
    assert 0 < pilots == presets.count(10)
    assert any("its search for a crf continues" in note for note in observer.notes)
    assert report.vmaf.score == pytest.approx(80, abs=0.6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nerv"]


class Sure:
    """Stands for a real encoder: embeddings at once, about a mean."""

    name, dimension = "offline", 48

    def embed_images(self, images):
        rng = np.random.default_rng(len(images))
        vectors = rng.normal(size=(len(images), 48)) + 2
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("more", [{"size_bytes": 12_000}, {"size_bytes": 40_000, "segment": "15f"}, {"psnr_db": 35.0}])
def test_goals_with_embeddings_inside(carphone, tmp_path, monkeypatch, more):
    monkeypatch.setattr("nervcodec.encoding.plan.resolve", lambda *_: Sure())
    settings = {**CLIP, "encoder": "offline", **more}
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **settings)
    if "size_bytes" in more:
        assert 0.95 <= report.size_bytes / more["size_bytes"] <= 1
    else:
        assert 35.0 <= report.psnr_db <= 35.3
    with nervcodec.open(tmp_path / "a.nerv", "cpu") as video:
        assert video.embeddings().shape == (report.frames, 8, 48)


def test_what_cannot_be_met_is_said(carphone, tmp_path):
    out = tmp_path / "a.nerv"
    with pytest.raises(ConfigError, match=r"^300 bytes are too few for this video; ask for 2,000 or more$"):
        nervcodec.encode(carphone, out, **CLIP, size_bytes=300)
    message = r"leaves \d+ bytes for the base layer, and it takes [\d,]+ at crf 70; ask for more, or --scale"
    with pytest.raises(ConfigError, match=message):
        nervcodec.encode(carphone, out, **CLIP, size_bytes=1500)
    assert not out.exists()
    for more, said in (
        ({"size_bytes": 50e6}, r"[\d,]+ bytes are as near to the 50,000,000 asked for as the base layer comes"),
        ({"psnr_db": 5.0}, r"[\d.]+ dB is as near to the 5 asked for"),
        ({"psnr_db": 90.0}, r"[\d.]+ dB is as near to the 90 asked for"),
    ):
        observer = Notes()
        nervcodec.encode(carphone, out, **CLIP, **more, observer=observer, force=True)
        assert any(re.match(said, note) for note in observer.notes)


def coded(carphone, index=0, observer=None, **settings):
    """A segment, as an encode codes it."""
    wanted = options.from_flat(**{**CLIP, "duration_s": 0.3, **settings})
    plan = make_plan(carphone, wanted, Observer())
    with contextlib.closing(SegmentReader(plan)) as reader:
        return encode_base_segment(plan, index, reader, observer or Observer())


def test_more_time_is_a_slower_preset_and_no_fit(carphone, monkeypatch):
    presets, encode = [], codec.encode
    monkeypatch.setattr(codec, "encode", lambda *arguments: presets.append(arguments[6]) or encode(*arguments))
    quick, usual, slow = (coded(carphone, **settings) for settings in ({"time_s": 0.01}, {}, {"time_s": 600}))
    assert presets == [10, 5, 2]
    assert [segment.steps for segment in (quick, usual, slow)] == [0, 0, 0]
    assert slow.psnr_db.mean() > quick.psnr_db.mean() or len(slow.base.stream) < len(quick.base.stream)


def test_a_debug_run(carphone, tmp_path):
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **QUICK, debug_run=True)
    assert (report.complete, report.steps) == (True, 0)
    assert len(nervcodec.open(tmp_path / "a.nerv", "cpu")[:]) == report.frames < 30


def test_a_whole_file_has_the_quality_of_its_stream(carphone, tmp_path):
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **CLIP, crf=45)
    assert report.base.psnr_db == report.psnr_db
    with Container.open(tmp_path / "a.nerv") as opened:
        assert report.base.size_bytes == sum(opened.nbytes(name) for name in opened.header.base_arrays())
        assert opened.header.base.psnr_db == opened.header.fit.psnr_db


# ------------------------------------------------------------------ stops, checkpoints


class StopAt(Observer):
    """Wants to stop once a kind of work has begun."""

    def __init__(self, stage):
        self.stage_wanted, self.stopped, self.kept = stage, False, False

    def stage(self, name, total=None):
        self.stopped |= name == self.stage_wanted

    def partial_result_ready(self):
        self.kept = True

    def stop_requested(self):
        return self.stopped


def test_a_wish_to_stop(carphone):
    """The first segment is coded whatever happens; a later one is given up until it is."""
    for index in (0, 1):
        observer = StopAt("Coding the base")
        segment = coded(carphone, index, observer, segment="4f")
        assert observer.kept == (not index)
        if index:
            assert segment is None
        else:
            assert len(segment.base.stream) > 1000


def test_an_observer_that_wants_to_stop_from_the_first(carphone, tmp_path):
    observer = Notes()
    observer.stop_requested = lambda: True
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **CLIP, segment="15f", observer=observer)
    assert (report.complete, report.frames) == (False, 15)
    with nervcodec.open(tmp_path / "a.nerv", "cpu") as video:
        assert video[:].shape == (15, 144, 176, 3)
        assert not video.header.fit.complete


def test_what_a_checkpoint_keeps_of_a_segment(carphone):
    segment = coded(carphone)
    back = EncodedSegment.from_state_dict(copy.deepcopy(segment.state_dict()))
    assert np.array_equal(back.base.stream, segment.base.stream)
    assert np.array_equal(back.base.psnr_db, segment.base.psnr_db)
    assert back.base.crf == segment.base.crf
    assert back.segment == segment.segment


def test_segments_that_are_done_are_not_coded_again(carphone, tmp_path, monkeypatch):
    """Killed in the coding of the third of four segments."""
    for name in ("EVERY_S", "FIRST_S"):
        monkeypatch.setattr(f"nervcodec.training.checkpoint.{name}", 0.0)
    settings = {**CLIP, "segment": "8f"}
    whole = nervcodec.encode(carphone, tmp_path / "whole.nerv", **settings)
    out, encode, calls = tmp_path / "a.nerv", codec.encode, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise VideoError("killed")
        return encode(*arguments)

    monkeypatch.setattr(codec, "encode", dies)
    with pytest.raises(VideoError, match="killed"):
        nervcodec.encode(carphone, out, **settings)
    assert not out.exists()
    resumed = nervcodec.encode(carphone, out, **settings, resume=True)
    assert len(calls) == 5  # of which the third failed
    assert resumed.psnr_db == pytest.approx(whole.psnr_db, abs=1e-9)
    with Container.open(out) as one, Container.open(tmp_path / "whole.nerv") as other:
        for name in one.header.tensors:
            assert np.array_equal(one.array(name), other.array(name))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nerv", "whole.nerv"]


def test_few_frames_are_in_memory(carphone, tmp_path, monkeypatch):
    """Of 120 frames those that SVT-AV1 holds back, whatever the length of the segment."""
    alive, most, read = [], [0], segment_reader.SegmentReader.frames

    def watched(reader, index):
        for frame in read(reader, index):
            alive.append(weakref.ref(frame.y))
            most[0] = max(most[0], sum(one() is not None for one in alive))
            yield frame

    monkeypatch.setattr(segment_reader.SegmentReader, "frames", watched)
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **QUICK, time_s=0.01)  # the preset with the least delay
    assert report.frames == 120
    assert len(alive) == 120
    assert most[0] < 60
