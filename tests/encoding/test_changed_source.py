# SPDX-License-Identifier: MIT
"""A source that is truncated, replaced or removed while it is encoded: one line, and no container of another file."""

import os
import shutil

import pytest
from PIL import Image

import nervcodec
from nervcodec.errors import VideoError
from nervcodec.events import Observer
from nervcodec.formats.container import read_header
from nervcodec.media import source as scanning

SETTINGS = {"encoder": "none", "segment": "25f", "duration_s": 5.0}
BASES = {
    "none": {"epochs": 1, "scale": 0.1},
    "av1": {"base": "av1", "crf": 60, "scale": 0.25},
    "copy": {"base": "copy"},
}


class Acting(Observer):
    """Does something once: when an event comes the so-manieth time."""

    def __init__(self, act, event, number=1):
        self.act, self.event, self.left, self.notes = act, event, number, []

    def _is(self, event):
        self.left -= event == self.event
        if event == self.event and self.left == 0:
            self.act()

    def stage(self, name, total=None):
        self._is(name)

    def begin_segment(self, number, count):
        self._is("segment")

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def clip(bikes, tmp_path):
    return shutil.copy(bikes, tmp_path / "clip.mp4")


def encode(clip, observer, base):
    settings = {**SETTINGS, **BASES[base]}
    if base == "copy":
        del settings["duration_s"]
    return nervcodec.encode(clip, clip.with_name("a.nerv"), observer=observer, **settings)


def replace(clip, carphone):
    os.replace(shutil.copy(carphone, clip.with_name("other.mp4")), clip)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("way", ["truncated", "replaced"])
def test_a_changed_source_is_told(way, base, clip, carphone):
    act = {"truncated": lambda: os.truncate(clip, 200_000), "replaced": lambda: replace(clip, carphone)}[way]
    observer = Acting(act, "Comparing frames" if base == "copy" else "segment", 2)
    with pytest.raises(VideoError, match=r"clip\.mp4: changed while it was encoded$"):
        encode(clip, observer, base)
    assert os.listdir(clip.parent) == ["clip.mp4"]


@pytest.mark.parametrize(("base", "event", "number"), [("av1", "segment", 5), ("copy", "Comparing frames", 1)])
def test_what_is_removed_once_it_was_read_is_encoded(base, event, number, clip):
    observer = Acting(lambda: os.remove(clip), event, number)
    report = encode(clip, observer, base)
    assert observer.notes == [f"{clip}: was removed once it was read; a.nerv is whole"]
    assert read_header(report.path).video.frame_count == report.frames == (250 if base == "copy" else 125)


def test_what_is_removed_before_it_was_read_is_told(clip):
    with pytest.raises(VideoError, match=r"clip\.mp4: changed while it was encoded$"):
        encode(clip, Acting(lambda: os.remove(clip), "segment"), "av1")


def test_a_change_during_the_first_reading(clip, monkeypatch):
    monkeypatch.setattr(scanning, "probe", lambda *a, probe=scanning.probe: (os.truncate(clip, 100_000), probe(*a))[1])
    with pytest.raises(VideoError, match=r"clip\.mp4: changed while it was encoded$"):
        scanning.scan(clip)


def test_a_folder_of_images(tmp_path):
    images = tmp_path / "in"
    images.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 48), (40 * number, 0, 0)).save(images / f"{number}.png")
    settings = {"base": "av1", "encoder": "none", "segment": "2f"}
    for act in (
        lambda: Image.new("RGB", (64, 48)).save(images / "5.png"),
        lambda: os.truncate(images / "4.png", 10),
        lambda: os.remove(images / "5.png"),
    ):
        with pytest.raises(VideoError, match=r"in: changed while it was encoded$"):
            nervcodec.encode(images, tmp_path / "a.nerv", observer=Acting(act, "segment"), **settings)
        assert sorted(os.listdir(tmp_path)) == ["in"]
        for number in (4, 5):
            Image.new("RGB", (64, 48), (40 * number, 0, 0)).save(images / f"{number}.png")
