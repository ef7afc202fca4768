# SPDX-License-Identifier: MIT
"""Frames of a plan's source: a segment alone is what it is among all others."""

import contextlib

import numpy as np
import pytest

from nervcodec import options
from nervcodec.encoding import segment_reader
from nervcodec.encoding.plan import make_plan
from nervcodec.encoding.segment_reader import SegmentReader
from nervcodec.events import Observer
from nervcodec.media.reader import read_planes


def plan_of(source, **settings):
    return make_plan(source, options.from_flat(**{"encoder": "none", "audio": "none", **settings}), Observer())


def segments(plan, seeks=False):
    with contextlib.closing(SegmentReader(plan, seeks)) as reader:
        return [reader.segment(index) for index in range(len(plan.lengths))]


def seeks(plan, monkeypatch):
    """Segments that are sought are the same; the source is not read from its beginning for them."""
    opened, read = [], segment_reader.read_frames
    whole = segments(plan)
    with monkeypatch.context() as patch:
        patch.setattr(segment_reader, "read_frames", lambda info, options: opened.append(info) or read(info, options))
        for one, other in zip(segments(plan, seeks=True), whole, strict=True):
            assert np.array_equal(one, other)
    assert [info is plan.info for info in opened] == [True] + [False] * (len(whole) - 1)


def read(reader, index):
    return [np.concatenate([plane.ravel() for plane in frame]) for frame in reader.frames(index)]


def same(one, other):
    return len(one) == len(other) and all(map(np.array_equal, one, other))


@pytest.mark.parametrize("alone", [False, True])
def test_planes_of_segments_in_any_order(bikes, alone):
    plan = plan_of(bikes, base="av1", scale=0.5, segment="17f", duration_s=2.5)
    whole = list(read_planes(plan.info, plan.options.source, plan.planes))
    bounds = np.cumsum([0, *plan.lengths])
    expected = [
        [np.concatenate([plane.ravel() for plane in frame]) for frame in whole[a:b]]
        for a, b in zip(bounds, bounds[1:], strict=False)
    ]
    with contextlib.closing(SegmentReader(plan, alone)) as reader:
        for index in (0, 1, 1, 3, 0, 2, 3):
            assert same(read(reader, index), expected[index])


@pytest.mark.parametrize("settings", [{}, {"start_s": 0.52, "duration_s": 2.1}])
def test_a_segment_is_read_alone(bikes, settings, monkeypatch):
    plan = plan_of(bikes, **{"segment": "17f", "duration_s": 2.5, **settings})
    assert len(plan.lengths) > 2
    seeks(plan, monkeypatch)


SOURCES = {
    "long groups, open": ("a.mkv", ("-c:v", "libx264", "-x264-params", "keyint=40:open-gop=1:bframes=3")),
    "a stream that begins late": ("a.ts", ("-c:v", "libx264", "-g", "20", "-bf", "2")),
    "intra alone": ("a.mkv", ("-c:v", "ffv1")),
    "a varying rate": ("a.mkv", ("-vf", "select='not(mod(n\\,7))+not(mod(n\\,3))'", "-fps_mode", "vfr", "-g", "15")),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_whatever_the_source(kind, bikes, tmp_path, ffmpeg, monkeypatch):
    name, how = SOURCES[kind]
    source = tmp_path / name
    ffmpeg("-t", "4", "-i", bikes, "-an", *how, source)
    plan = plan_of(source, segment="13f")
    if name.endswith(".ts"):  # seeking leads nowhere there
        assert np.array_equal(segments(plan, seeks=True)[2], segments(plan)[2])
    else:
        seeks(plan, monkeypatch)


def test_a_folder_of_frames(carphone, tmp_path, ffmpeg, monkeypatch):
    folder = tmp_path / "frames"
    folder.mkdir()
    ffmpeg("-t", "1", "-i", carphone, folder / "%03d.png")
    seeks(plan_of(folder, segment="7f"), monkeypatch)


def test_where_seeking_gives_other_frames_the_source_is_read_from_its_beginning(carphone, monkeypatch):
    plan = plan_of(carphone, segment="15f", duration_s=1.5)
    expected, scan = segments(plan), segment_reader.scan
    other = options.from_flat(start_s=0.2).source
    monkeypatch.setattr(segment_reader, "scan", lambda path, _options: scan(path, other))
    assert np.array_equal(segments(plan, seeks=True)[2], expected[2])
