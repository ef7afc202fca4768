# SPDX-License-Identifier: MIT
"""Many sources in one call: which are encoded, skipped, or resumed."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from containers import tampered

import nervcodec
from nervcodec import sizing
from nervcodec.encoding import plan as planning
from nervcodec.errors import ConfigError, EncoderError
from nervcodec.events import Observer
from nervcodec.formats.container import Container, read_header
from nervcodec.jobs.inputs import Job, is_up_to_date
from nervcodec.jobs.scheduler import DONE, SKIPPED, STOPPED
from nervcodec.outputs import locked

GOLDEN = Path(__file__).parents[1] / "golden" / "version3_grid.nerv"
TINY = {"duration_s": 0.2, "epochs": 1, "encoder": "none"}
THREE = {"duration_s": 1.0, "segment": "10f", "epochs": 2, "encoder": "none"}  # segments


class Watching(Observer):
    """Keeps what it is told; ``act`` is called with each step."""

    def __init__(self, act=None):
        self.notes, self.files, self.segments, self.act, self.stop = [], [], [], act, False

    def note(self, text):
        self.notes.append(text)

    def file(self, event):
        self.files.append(event)

    def step(self, event):
        self.segments.append(event.segment)
        if self.act is not None:
            self.act(self)

    def stop_requested(self):
        return self.stop


@pytest.fixture
def clips(carphone, tmp_path, monkeypatch):
    """Three videos and one that is none, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.mp4", "in/x/b.mp4", "in/x/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(carphone, tmp_path / name)
    (tmp_path / "in" / "broken.mp4").write_text("not a video")
    return tmp_path


@pytest.fixture
def one_by_one(monkeypatch):
    """What segments share is fitted to a single frame, which takes no time."""
    monkeypatch.setattr(sizing, "SAMPLE_BYTES", 0)


@pytest.fixture
def made(tmp_path):
    """A source and a whole container of it."""
    source, target = tmp_path / read_header(GOLDEN).video.source_name, tmp_path / "a.nerv"
    source.write_text("older")
    shutil.copy(GOLDEN, target)
    stamp = time.time() - 100
    os.utime(source, (stamp, stamp))
    os.utime(target, (stamp, stamp))
    return Job(source, target)


# ------------------------------------------------------------------ containers that exist


def test_whole_and_no_older_is_up_to_date(made):
    assert is_up_to_date(made, pytest.fail)
    made.target.unlink()
    assert not is_up_to_date(made, pytest.fail)


def test_older_or_damaged_is_encoded_again(made):
    said, whole = [], made.target.read_bytes()
    for place in (-1, len(whole) // 2, 5):
        broken = bytearray(whole)
        broken[place] ^= 4
        made.target.write_bytes(broken)
        assert not is_up_to_date(made, said.append)
    made.target.write_bytes(whole[:-1])
    assert not is_up_to_date(made, said.append)
    assert all(str(made.target) in text and text.endswith("; it is encoded again") for text in said)
    made.target.write_bytes(whole)
    os.utime(made.source)
    os.utime(made.target, (1, 1))
    assert not is_up_to_date(made, said.append)
    assert "is older than its source" in said[-1]


def test_what_is_of_another_source_or_a_later_version_is_not_written_over(made):
    other = made.source.with_name("other.mkv")
    made.source.rename(other)
    with pytest.raises(ConfigError, match=rf"another source, {made.source.name}; --force"):
        is_up_to_date(Job(other, made.target), pytest.fail)
    blob = made.target.read_bytes()
    made.target.write_bytes(blob.replace(b'"format_version":"3"', b'"format_version":"9"'))
    with pytest.raises(ConfigError, match=r"newer than this nervcodec reads .* --force"):
        is_up_to_date(Job(other, made.target), pytest.fail)
    made.target.write_bytes(blob.replace(b'"format_version":"3"', b'"format_version":"2"'))
    with pytest.raises(ConfigError, match=r"earlier nervcodec; encode the source again; --force replaces it"):
        is_up_to_date(Job(other, made.target), pytest.fail)


def test_what_is_no_container_is_not_written_over(made):
    safetensors.numpy.save_file({"x": np.zeros(3)}, made.target)
    whole = GOLDEN.read_bytes()
    for content in (made.target.read_bytes(), b"", b"x", b"a letter\n" * 9, whole[:8] + b"x" + whole[9:]):
        made.target.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"^{made.target}: not a \.nerv file; --force replaces it$"):
            is_up_to_date(made, pytest.fail)


def test_what_an_earlier_version_wrote_is_not_written_over(made):
    """Even where it is older than its source."""
    above = {"kind": "refiner", "width": 8, "depth": 1, "geometry": [8, 36, 48, 2, 4]}
    tampered(made.target, lambda header: header["segments"][0].update(network=above)).rename(made.target)
    os.utime(made.target, (1, 1))
    with pytest.raises(ConfigError, match="written by an earlier nervcodec .*; --force replaces it"):
        is_up_to_date(made, pytest.fail)


# ------------------------------------------------------------------ one after the other


@pytest.mark.slow
def test_each_gets_a_container_and_a_bad_one_does_not_stop_the_rest(clips):
    watching = Watching()
    reports = nervcodec.encode_many("in", "out", recursive=True, observer=watching, **TINY)
    assert [(str(r.source), r.status) for r in reports] == [
        ("in/a.mp4", "done"),
        ("in/broken.mp4", "failed"),
        ("in/x/b.mp4", "done"),
        ("in/x/c.mp4", "done"),
    ]
    assert reports[1].reason.startswith("no frame could be read")
    assert any(note.startswith("in/broken.mp4: no frame could be read") for note in watching.notes)
    assert [(event.number, event.count) for event in watching.files] == [(n, 4) for n in range(4)]
    assert sorted(str(path) for path in Path("out").rglob("*.*")) == ["out/a.nerv", "out/x/b.nerv", "out/x/c.nerv"]
    assert reports[0].report.size_bytes == Path("out/a.nerv").stat().st_size
    assert reports[0].to_json()["report"]["file"] == "out/a.nerv"
    stamps = [path.stat().st_mtime_ns for path in Path("out").rglob("*.nerv")]
    again = nervcodec.encode_many("in", "out", recursive=True, **TINY)
    assert [r.status for r in again] == ["skipped", "failed", "skipped", "skipped"]
    assert stamps == [path.stat().st_mtime_ns for path in Path("out").rglob("*.nerv")]
    forced = nervcodec.encode_many(["in/a.mp4"], "out", force=True, log_dir="log", **TINY)
    assert [r.status for r in forced] == ["done"]
    assert Path("log/a").is_dir()


def test_what_is_wrong_for_all_is_said_once_and_before_any_work(clips, monkeypatch):
    for settings, kind in (({"epochs": 0}, ConfigError), ({"encoder": "openclip:ViT-B-32=gone.pt"}, EncoderError)):
        with pytest.raises(kind):
            nervcodec.encode_many(["in/a.mp4", "in/broken.mp4"], "out", **settings)
        assert not Path("out").exists()


def test_programming_errors_are_not_taken_for_bad_files(clips, monkeypatch):
    def wrong(*_):
        raise AttributeError("a mistake")

    monkeypatch.setattr(planning, "scan", wrong)
    with pytest.raises(AttributeError):
        nervcodec.encode_many("in", "out", recursive=True, **TINY)


def test_too_little_memory_for_one_is_not_the_end(clips, monkeypatch):
    def greedy(*_):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 GB")

    monkeypatch.setattr(planning, "scan", greedy)
    reports = nervcodec.encode_many(["in/a.mp4", "in/x/b.mp4"], "out", **TINY)
    assert [(r.status, r.reason) for r in reports] == [
        ("failed", "out of memory; try a smaller --scale or --segment")
    ] * 2


@pytest.mark.slow
def test_a_source_that_changes_meanwhile_is_encoded_once_more(clips):
    def change(watching):
        os.utime("in/a.mp4")

    (report,) = nervcodec.encode_many("in/a.mp4", "out", observer=Watching(change), **TINY)
    assert (report.status, report.reason) == ("failed", "changed while it was encoded")
    assert not os.listdir("out")
    assert [r.status for r in nervcodec.encode_many("in/a.mp4", "out", **TINY)] == ["done"]
    assert [r.status for r in nervcodec.encode_many("in/a.mp4", "out", **TINY)] == ["skipped"]


@pytest.mark.slow
def test_a_source_is_known_by_its_content_not_by_its_dates(clips, bunny):
    def encode():
        watching = Watching()
        (report,) = nervcodec.encode_many("in/a.mp4", "out", observer=watching, **TINY)
        return report.status, watching.notes

    assert encode()[0] == "done"
    for date in (1, time.time() + 1e6):
        os.utime("in/a.mp4", (date, date))
        assert encode() == ("skipped", [])
    shutil.copy(bunny, "in/a.mp4")
    os.utime("in/a.mp4", (1, 1))  # as `cp -p`, `rsync -t` or a restore leave it
    assert encode() == ("done", ["out/a.nerv: was made of another a.mp4 and is encoded again"])
    assert read_header(Path("out/a.nerv")).video.width == 1280
    assert encode() == ("skipped", [])


@pytest.mark.slow
def test_a_folder_of_frames_is_known_by_names_and_sizes(carphone, tmp_path, ffmpeg):
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    ffmpeg("-i", carphone, "-frames:v", "4", frames / "%03d.png")
    settings = {"epochs": 1, "encoder": "none"}
    assert [r.status for r in nervcodec.encode_many(frames, out, **settings)] == ["done"]
    for image in frames.iterdir():
        os.utime(image, (9e9, 9e9))
    assert [r.status for r in nervcodec.encode_many(frames, out, **settings)] == ["skipped"]
    (frames / "004.png").rename(frames / "005.png")
    (frames / "003.png").rename(frames / "004.png")
    (frames / "002.png").rename(frames / "003.png")
    (frames / "001.png").rename(frames / "002.png")
    assert [r.status for r in nervcodec.encode_many(frames, out, **settings)] == ["done"]


@pytest.mark.slow
def test_a_source_that_is_removed_once_it_was_read_is_done(clips):
    watching = Watching(lambda _watching: Path("in/a.mp4").unlink(missing_ok=True))
    (report,) = nervcodec.encode_many("in/a.mp4", "out", observer=watching, **TINY)
    assert report.status == "done"
    assert watching.notes == ["in/a.mp4: was removed once it was read; a.nerv is whole"]


# ------------------------------------------------------------------ two at once


@pytest.mark.slow
def test_what_another_process_is_writing_is_skipped(clips):
    watching = Watching()
    with locked(Path("in/a.nerv")):
        reports = nervcodec.encode_many(["in/a.mp4", "in/x/b.mp4"], observer=watching, force=True, **TINY)
        with pytest.raises(ConfigError, match=rf"^in/a.nerv: is being written by process {os.getpid()}$"):
            nervcodec.encode("in/a.mp4", force=True, **TINY)
    assert [report.status for report in reports] == ["skipped", "done"]
    assert reports[0].reason == f"in/a.nerv: is being written by process {os.getpid()}"
    assert watching.notes == [f"{reports[0].reason}; in/a.mp4 is skipped"]
    assert not list(Path("in").rglob(".*"))
    assert [r.status for r in nervcodec.encode_many("in/a.mp4", **TINY)] == ["done"]


# ------------------------------------------------------------------ going on


def _crash_in_segment_1(watching):
    if watching.segments[-1] == 1:
        raise SystemExit


@pytest.mark.slow
@pytest.mark.usefixtures("one_by_one")
def test_what_was_killed_goes_on_where_it_was(clips):
    with pytest.raises(SystemExit):
        nervcodec.encode_many("in/a.mp4", "out", observer=Watching(_crash_in_segment_1), **THREE)
    assert sorted(path.name for path in Path("out/a.nerv.resume").iterdir()) == ["segment_0", "shared"]
    other = Watching(_crash_in_segment_1)
    with pytest.raises(SystemExit):
        nervcodec.encode_many("in/a.mp4", "out", observer=other, **{**THREE, "epochs": 3})
    assert 0 in other.segments  # those are other settings
    assert any("the encode starts from the beginning" in note for note in other.notes)
    rest = Watching()
    (report,) = nervcodec.encode_many("in/a.mp4", "out", observer=rest, **{**THREE, "epochs": 3})
    assert set(rest.segments) == {1, 2}
    assert report.status == "done"
    assert [path.name for path in Path("out").iterdir()] == ["a.nerv"]
    with Container.open(Path("out/a.nerv")) as opened:
        assert opened.header.fit.missing_frames is None


@pytest.mark.slow
@pytest.mark.usefixtures("one_by_one")
def test_a_checkpoint_that_does_not_fit_is_no_dead_end(clips):
    with pytest.raises(SystemExit):
        nervcodec.encode_many("in/a.mp4", "out", observer=Watching(_crash_in_segment_1), **THREE)
    Path("out/a.nerv.resume/shared").unlink()
    watching = Watching()
    (report,) = nervcodec.encode_many("in/a.mp4", "out", observer=watching, **THREE)
    assert (report.status, set(watching.segments)) == ("done", {0, 1, 2})
    assert any("the encode starts from the beginning" in note for note in watching.notes)


def _stop_in_segment_1(watching):
    watching.stop = len(watching.files) == 2 and watching.segments[-1] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_by_one")
def test_a_stop_keeps_what_there_is_and_begins_nothing(clips):
    inputs = ["in/x/b.mp4", "in/x/c.mp4", "in/a.mp4"]
    first, second, *rest = nervcodec.encode_many(inputs, "out", observer=Watching(_stop_in_segment_1), **THREE)
    assert (first.status, second.status, rest) == (DONE, STOPPED, [])
    with Container.open(Path("out/c.nerv")) as opened:
        assert not opened.header.fit.complete
    watching = Watching()
    again = nervcodec.encode_many(inputs, "out", observer=watching, **THREE)
    assert [r.status for r in again] == [SKIPPED, DONE, DONE]
    assert watching.segments.index(0) > watching.segments.index(2)  # c.mp4 went on, and a.mp4 was begun after it
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.nerv", "b.nerv", "c.nerv"]
