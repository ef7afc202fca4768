# SPDX-License-Identifier: MIT
"""Which sources a tree holds, and which container each goes to; by names alone, so that any bytes will do."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nervcodec.errors import ConfigError, VideoError
from nervcodec.jobs.inputs import find


def plant(top: Path, *names: str) -> Path:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return top


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plant(
        tmp_path / "in", "a.mp4", "x/b.MKV", "x/Übung 1/ä b.mov", "notes.txt", "x/poster.jpg", ".hidden.mp4", ".h/c.mp4"
    )
    return tmp_path


def pairs(*arguments, **more) -> dict[str, str]:
    return {str(job.source): str(job.target) for job in find(*arguments, **more).jobs}


def test_names_are_kept(tree):
    wanted = {
        "in/a.mp4": "out/a.nerv",
        "in/x/b.MKV": "out/x/b.nerv",
        "in/x/Übung 1/ä b.mov": "out/x/Übung 1/ä b.nerv",
    }
    assert pairs(["in"], Path("out"), recursive=True) == wanted
    assert pairs(["in/x/b.MKV", "in/notes.txt"], Path("out")) == {
        "in/x/b.MKV": "out/b.nerv",
        "in/notes.txt": "out/notes.nerv",  # what is named itself may be called anything
    }
    assert pairs(["in"], recursive=True) == {source: str(Path(source).with_suffix(".nerv")) for source in wanted}
    assert not (tree / "out").exists()


def test_a_folder_of_videos_is_named_with_the_way_to_encode_it(tree):
    for inputs in (["in"], ["in/a.mp4", "in/x"]):
        with pytest.raises(ConfigError, match="is a folder of videos; --recursive"):
            find(inputs, Path("out"))
    (tree / "none").mkdir()
    with pytest.raises(ConfigError, match="none: no video"):
        find(["none"], recursive=True)
    assert find(["none", "in"], recursive=True).notes == ("none: nothing to encode below it that was not found before",)
    with pytest.raises(VideoError, match="no such file"):
        find(["in/a.mp4", "gone.mp4"])


def test_numbered_frames_are_one_source(tree):
    plant(tree / "in" / "shots", *(f"f_{n:02}.png" for n in range(3)))
    plant(tree / "in" / "gap", "f_1.png", "f_3.png")
    plant(tree / "in" / "photos", "beach1.jpg", "me.jpg")
    plant(tree / "in" / "both", "clip.mp4", "f_1.png", "f_2.png")
    found = find(["in"], Path("out"), recursive=True)
    targets = {str(job.source): str(job.target) for job in found.jobs}
    assert targets["in/shots"] == "out/shots.nerv"
    assert targets["in/both/clip.mp4"] == "out/both/clip.nerv"
    assert not {"in/gap", "in/photos", "in/both"} & set(targets)
    assert [note.split(";")[0] for note in found.notes] == ["left out: in/gap: frame 2 is missing"]
    assert pairs(["in/shots"], Path("out")) == pairs(["in/shots"], Path("out"), recursive=True)
    assert pairs(["in/gap"], Path("out")) == {"in/gap": "out/gap.nerv"}  # was meant, and fails with the reason


def test_decoded_frames_are_no_source(tree):
    plant(tree / "in", "a.nerv", "b.nerv")
    for name in ("a_frames", "b.decoded_frames", "c_frames"):
        plant(tree / "in" / name, *(f"{n:06}.png" for n in range(2)))
    found = find(["in"], Path("out"), recursive=True)
    assert [job.source.name for job in found.jobs if job.source.parent.name == "in"] == ["a.mp4", "c_frames"]
    assert sorted(found.notes) == [
        "left out: in/a_frames: frames decoded from in/a.nerv",
        "left out: in/b.decoded_frames: frames decoded from in/b.nerv",
    ]
    assert pairs(["in/a_frames"], Path("out")) == {"in/a_frames": "out/a_frames.nerv"}  # named itself


SYSTEM = ("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found")


def test_folders_of_a_nas_or_a_recycle_bin_are_skipped_and_counted(tree):
    before = pairs(["in"], recursive=True)
    plant(tree / "in", *(f"{folder}/deleted.mp4" for folder in SYSTEM), "x/@eaDir/b.MKV/thumb.mp4")
    found = find(["in"], recursive=True)
    assert {str(job.source): str(job.target) for job in found.jobs} == before
    names = ", ".join(sorted(SYSTEM))
    assert found.notes == (f"left out: 7 folders of the system, a NAS or a recycle bin ({names})",)
    assert find(["in/x"], recursive=True).notes == (
        "left out: 1 folder of the system, a NAS or a recycle bin (@eaDir)",
    )
    assert pairs(["in/#recycle"], recursive=True) == {
        "in/#recycle/deleted.mp4": "in/#recycle/deleted.nerv"
    }  # was meant


def test_a_source_that_is_reached_twice_counts_once(tree):
    inside = tree / "in"
    (inside / "x" / "up").symlink_to("..")
    (inside / "0link.mp4").symlink_to("a.mp4")
    (inside / "loop.mp4").symlink_to("loop.mp4")
    (inside / "gone.mp4").symlink_to("nowhere")
    os.mkfifo(inside / "pipe.mp4")
    first = pairs(["in", "in/x", "in/./a.mp4", inside / "0link.mp4", "in/x/up"], Path("out"), recursive=True)
    assert sorted(first) == ["in/a.mp4", "in/x/b.MKV", "in/x/Übung 1/ä b.mov"]
    assert pairs(["in/0link.mp4", "in"], Path("out"), recursive=True)["in/0link.mp4"] == "out/0link.nerv"
    assert sorted(find(["in"], Path("out"), recursive=True).notes) == [
        "left out: in/0link.mp4: is a link to in/a.mp4",
        "left out: in/gone.mp4: is a link that leads nowhere",
        "left out: in/loop.mp4: is a link that leads nowhere",
    ]


def test_no_container_stands_for_two_sources(tree):
    plant(tree / "in", "a.mkv", "a.mp4.avi", "x/a.mp4")
    assert pairs(["in"], Path("out"), recursive=True) == {
        "in/a.mkv": "out/a.mkv.nerv",
        "in/a.mp4": "out/a.mp4.nerv",
        "in/a.mp4.avi": "out/a.mp4.avi.nerv",  # which alone would have been called as a.mp4 is now
        "in/x/a.mp4": "out/x/a.nerv",
        "in/x/b.MKV": "out/x/b.nerv",
        "in/x/Übung 1/ä b.mov": "out/x/Übung 1/ä b.nerv",
    }
    with pytest.raises(ConfigError, match=r"in/a.mp4 and in/x/a.mp4 would both become out/a.mp4.nerv"):
        find(["in/a.mp4", "in/x/a.mp4"], Path("out"))


def test_no_container_is_written_over_a_source(tree):
    plant(tree / "in", "c.nerv", "c.mp4")
    with pytest.raises(ConfigError, match="is an input itself"):
        find(["in/c.nerv"], Path("in"))
    assert len(find(["in/c.mp4", "in/c.nerv"], Path("in")).jobs) == 2  # of one name, so that they keep their endings


def test_the_output_may_be_inside(tree):
    before = pairs(["in"], Path("in/nerv"), recursive=True)
    plant(tree / "in" / "nerv", "a.nerv", "decoded.mp4")
    assert pairs(["in"], Path("in/nerv"), recursive=True) == before
    assert "in/nerv/decoded.mp4" in pairs(["in"], Path("in"), recursive=True)
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        find(["in"], Path("in/a.mp4"), recursive=True)


def test_a_folder_that_cannot_be_read_is_not_passed_over(tree, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if os.fspath(path).endswith("Übung 1"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert "in/x/Übung 1" in pairs(["in"], Path("out"), recursive=True)


NAMES = st.text("aB.é ", min_size=1, max_size=3).filter(lambda name: not name.startswith("."))
PATHS = st.tuples(st.lists(NAMES, max_size=2), NAMES, st.sampled_from([".mp4", ".mkv", ".MOV"]))


@given(st.lists(PATHS, min_size=1, max_size=8))
def test_every_video_of_any_tree_has_a_container_of_its_own(paths):
    with tempfile.TemporaryDirectory() as name:
        top, planted = Path(name), set()
        for folders, stem, suffix in paths:
            path = top.joinpath("in", *folders, stem + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                path.write_text("x")
                planted.add(path)
        jobs = find([top / "in"], top / "out", recursive=True).jobs
        assert {job.source for job in jobs} == planted
        assert len({job.target for job in jobs}) == len(jobs)
        for job in jobs:
            assert job.target.parent == top / "out" / job.source.parent.relative_to(top / "in")
            assert job.target.name in (f"{job.source.stem}.nerv", f"{job.source.name}.nerv")
