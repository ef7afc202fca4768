# SPDX-License-Identifier: MIT
"""A search with an index finds what a search without it finds, whatever happened to folder, index or writer."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nervcodec.errors import EncoderError, FolderIndexError
from nervcodec.formats.container import Container, Writer
from nervcodec.formats.header import SemanticHeader
from nervcodec.index import lookup, store
from nervcodec.index import update as updating
from nervcodec.index.lookup import best_scores, find_index, search_files, select_candidates
from nervcodec.index.store import Content, Store
from nervcodec.index.update import open_writable, read_all, update
from nervcodec.search.files import containers_below, find_containers
from nervcodec.search.query import EncodedQuery
from nervcodec.search.scores import VideoEmbeddings, open_embeddings

GOLDEN = Path(__file__).parents[1] / "golden"
SOURCES = [GOLDEN / f"version3_{name}.nerv" for name in ("grid", "lapped", "pe", "scenes")]
OTHER = GOLDEN / "version3_shared.nerv"  # embeddings of 16 numbers
DIMENSIONS = {"offline": 384, "openclip:toy/toy": 16}
DATABASE = Path(".nervcodec", "index.sqlite3")


def with_source_name(source: Path, target: Path, name: str, **more: object) -> Path:
    """A copy with another header, so that its content differs."""
    with Container.open(source) as opened, Writer(target) as writer:
        for array in opened.header.tensors:
            writer.add(array, opened.array(array), opened.header.tensors[array].code)
        facts = replace(opened.header.video, source_name=name)
        writer.finish(replace(opened.header, video=facts, tensors=writer.tensors, **more))
    return target


@pytest.fixture
def folder(tmp_path):
    """Containers of two encoders, two of them the same, one cut short, in two folders."""
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    for number, source in enumerate(SOURCES):
        shutil.copy(source, tmp_path / "videos")
        with_source_name(source, tmp_path / "videos" / "deep" / f"{number}.nerv", f"{number}.mp4")
    semantic = SemanticHeader("openclip:toy/toy", 16, 8.0)
    with_source_name(OTHER, tmp_path / "videos" / "other.nerv", "x", semantic=semantic)
    shutil.copy2(tmp_path / "videos" / "version3_grid.nerv", tmp_path / "videos" / "twin.nerv")
    (tmp_path / "videos" / "cut.nerv").write_bytes(SOURCES[0].read_bytes()[:-9])
    return tmp_path / "videos"


def updated(folder, force=False):
    with open_writable(folder, force) as opened:
        return update(opened, workers=1)


def files_of(folder):
    with Store(folder) as opened:
        return opened.files()


def queries(seed):
    """A random query for any encoder."""
    encoded = {}

    def encode(encoder):
        if encoder not in encoded:
            vector = np.random.default_rng(seed).normal(size=DIMENSIONS[encoder])
            encoded[encoder] = EncodedQuery((vector / np.linalg.norm(vector)).astype(np.float32))
        return encoded[encoder]

    return encode


class Score(float):
    """The seventh digit of a score depends on the alignment of arrays in memory."""

    def __eq__(self, other):
        return abs(self - other) < 2e-6

    __hash__ = None


def moments(paths, seed, notes=None, k=3, with_index=True, **more):
    """Moments as JSON, and the messages about files that cannot be searched."""
    folders = [str(path) for path in paths if path.is_dir() and with_index]
    note = (lambda text: None) if notes is None else notes.append
    result = search_files(find_containers([str(path) for path in paths]), folders, queries(seed), k, note=note, **more)
    found = [moment.to_json() for moment in result.moments]
    return [row | {"score": Score(row["score"])} for row in found], sorted(map(str, result.problems))


def assert_same_as_without(paths, seeds=range(3)):
    for seed in seeds:
        assert moments(paths, seed) == moments(paths, seed, with_index=False)


def test_approximate_scores_are_close(folder):
    updated(folder)
    checked = 0
    with Store(folder) as opened:
        paths = {row.content: path for path, row in opened.files().items()}
        kinds = set(opened.kinds().values())
        assert len(kinds) == 3  # two encoders, and codes of two widths
        for kind in kinds:
            for seed in range(20):
                vector = np.random.default_rng(seed).normal(size=kind.dimension)
                vector = (vector / np.linalg.norm(vector)).astype(np.float32)
                for number, score in best_scores(opened.segments(kind), kind, vector).items():
                    exact = open_embeddings(folder / paths[number]).scores(vector).max()
                    assert score == pytest.approx(exact, abs=0.02)
                    checked += 1
    assert checked == 20 * 9


def test_a_batch_of_segments_scores_as_each_alone(folder, monkeypatch):
    updated(folder)
    for kind in set(Store(folder).kinds().values()):
        vector = np.random.default_rng(0).normal(size=kind.dimension).astype(np.float32)
        with Store(folder) as opened:
            together = best_scores(opened.segments(kind), kind, vector)
            monkeypatch.setattr(lookup, "_BATCH_SEGMENTS", 1)
            assert best_scores(opened.segments(kind), kind, vector) == pytest.approx(together, abs=1e-5)
            monkeypatch.undo()


def test_the_report_counts_changes(folder):
    report = updated(folder)
    assert (report.files, report.new, report.read) == (11, 11, 11)
    assert list(report.unreadable) == ["cut.nerv"]
    assert "cut short" in report.unreadable["cut.nerv"]
    assert report.rows > 0
    assert report.size_bytes > 10_000
    again = updated(folder)
    assert again.idle
    assert (again.read, again.rows) == (0, report.rows)
    assert again.unreadable == report.unreadable
    (folder / "deep" / "0.nerv").rename(folder / "deep" / "moved.nerv")
    (folder / "deep" / "1.nerv").unlink()
    with_source_name(SOURCES[2], folder / "deep" / "2.nerv", "another")
    shutil.copy(SOURCES[3], folder / "new.nerv")
    after = updated(folder)
    assert (after.new, after.changed, after.moved, after.gone, after.read) == (1, 1, 1, 1, 2)
    assert_same_as_without([folder])


def test_a_moved_file_is_not_read_again(folder, monkeypatch):
    updated(folder)
    for file in folder.glob("deep/*.nerv"):
        file.rename(folder / f"moved_{file.name}")
    monkeypatch.setattr(updating, "read", None)
    report = updated(folder)
    assert (report.moved, report.gone, report.read) == (4, 0, 0)
    assert_same_as_without([folder])


def test_a_moved_folder_keeps_its_index(folder, monkeypatch):
    updated(folder)
    moved = folder.rename(folder.with_name("elsewhere"))
    notes = []
    assert moments([moved], 0, notes) == moments([moved], 0, with_index=False)
    assert notes == []
    monkeypatch.setattr(updating, "read", None)
    assert updated(moved).idle


def test_copies_of_one_content_are_stored_once(folder):
    updated(folder)
    files = files_of(folder)
    assert files["twin.nerv"].content == files["version3_grid.nerv"].content
    with Store(folder) as opened:
        assert len(opened.kinds()) == 9
    (folder / "version3_grid.nerv").unlink()
    updated(folder)
    assert_same_as_without([folder])


@pytest.mark.parametrize("spare", [0, 2])
def test_few_files_are_scored_exactly_and_the_result_is_the_same(folder, monkeypatch, spare):
    monkeypatch.setattr(lookup, "EXTRA_VIDEOS", spare)
    monkeypatch.setattr("nervcodec.search.moments.EXTRA_VIDEOS", spare)
    updated(folder)
    for seed in range(12):
        for k in (1, 2, 5):
            assert moments([folder], seed, k=k) == moments([folder], seed, k=k, with_index=False)
    known = select_candidates(folder, find_containers([str(folder)]), queries(0), 1)
    assert sum(isinstance(index, VideoEmbeddings) for index in known.values()) <= 8 + spare
    assert len(known) == 11
    assert moments([folder], 1, grouping="patch") == moments([folder], 1, with_index=False, grouping="patch")
    assert moments([folder], 1, min_score=0.1) == moments([folder], 1, with_index=False, min_score=0.1)


def test_files_newer_than_the_index_are_searched_one_by_one(folder):
    updated(folder)
    notes = []
    moments([folder], 0, notes)
    assert notes == []
    shutil.copy(SOURCES[1], folder / "deep" / "late.nerv")
    (folder / "version3_pe.nerv").unlink()
    os.utime(folder / "deep" / "3.nerv")
    assert_same_as_without([folder])
    moments([folder], 0, notes)
    assert notes == [f"2 files are newer than the index of {folder}; nervcodec index {folder} brings it up to date"]
    updated(folder)
    moments([folder], 0, notes)
    assert len(notes) == 1


def test_dates_in_the_future_and_before_1970(folder):
    os.utime(folder / "deep" / "0.nerv", (4_000_000_000, 4_000_000_000))
    os.utime(folder / "deep" / "1.nerv", (-1_000_000, -1_000_000))
    updated(folder)
    assert updated(folder).idle
    assert_same_as_without([folder])
    shutil.copy(SOURCES[3], folder / "deep" / "0.nerv")  # newer content, earlier date
    assert updated(folder).changed == 1
    assert_same_as_without([folder])


def test_an_index_covers_folders_below(folder, monkeypatch):
    updated(folder)
    assert find_index(str(folder / "deep")) == folder
    assert find_index(str(folder.parent)) is None
    assert_same_as_without([folder / "deep"])
    assert_same_as_without([folder / "deep", folder / "cut.nerv", folder / "twin.nerv"])
    monkeypatch.chdir(folder / "deep")
    assert_same_as_without([Path(".")])
    assert_same_as_without([Path("..")])
    monkeypatch.setattr("nervcodec.search.scores.open_embeddings", None)  # no file is searched one by one
    assert moments([Path(".")], 0)[0]


def test_an_encoder_that_cannot_be_loaded_is_a_problem_of_its_files(folder):
    updated(folder)

    def encode(encoder):
        raise EncoderError("no weights")

    known = select_candidates(folder, find_containers([str(folder)]), encode, 3)
    assert [str(error) for error in known.values()].count("no weights") == 10


def test_embeddings_of_another_dimension_than_their_encoder_has(folder):
    shutil.copy(OTHER, folder / "wrong.nerv")  # its header names the offline encoder
    updated(folder)
    notes = []
    found, problems = moments([folder], 0, notes)
    assert (found, problems) == moments([folder], 0, with_index=False)
    assert any("wrong.nerv: its embeddings have 16 numbers" in problem for problem in problems)
    assert notes == []


# ---------------------------------------------------------------------- writers that stop, and several at once


def test_an_update_that_stops_at_any_statement_loses_nothing(folder, monkeypatch):
    """Each statement is the last one once; then another update completes the index."""
    left = [0]

    class Stopping(sqlite3.Connection):
        def execute(self, *arguments):
            self.count()
            return super().execute(*arguments)

        def executemany(self, *arguments):
            self.count()
            return super().executemany(*arguments)

        def count(self):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1

    connect = sqlite3.connect
    stopped = 0
    for number in range(0, 120, 3):
        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", lambda *a, **more: connect(*a, factory=Stopping, **more))
            left[0] = number
            try:
                updated(folder)
            except KeyboardInterrupt:
                stopped += 1
            else:
                break
        assert_same_as_without([folder], [number])
        if number % 2:
            assert updated(folder).files == 11
            assert_same_as_without([folder], [number])
            shutil.rmtree(folder / ".nervcodec")
    assert stopped >= 5
    assert updated(folder).idle
    with Store(folder) as opened:
        assert opened.kinds().keys() == {row.content for row in opened.files().values()} - {None}


@pytest.mark.slow
def test_a_writer_is_killed_at_random_moments(folder):
    """Searches during and after give the right moments, and the next update completes the index."""
    for number in range(60):
        with_source_name(SOURCES[number % 4], folder / "deep" / f"more {number}.nerv", f"{number}")
    code = (
        "import sys; from pathlib import Path; from nervcodec.index import update\n"
        "update._COMMIT_FILES = 5\n"
        "with update.open_writable(Path(sys.argv[1]), True) as opened:\n"
        "    print('begins', flush=True); update.update(opened, workers=1)"
    )
    rng, expected, killed = random.Random(0), moments([folder], 0, with_index=False), 0
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "begins\n"
        end = time.monotonic() + rng.uniform(0.0, 1.0)
        while time.monotonic() < end:
            assert moments([folder], 0) == expected
        killed += writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert moments([folder], 0) == expected
    assert killed >= 3
    assert updated(folder).files == 71
    notes = []
    assert moments([folder], 0, notes) == expected
    assert notes == []


def test_space_of_replaced_contents_is_used_again(folder):
    rows = updated(folder).rows
    sizes = []
    for number in range(8):
        with_source_name(SOURCES[0], folder / "deep" / "0.nerv", f"again {number}")
        report = updated(folder)
        assert (report.changed, report.rows) == (1, rows)
        sizes.append(report.size_bytes)
    assert sizes[-1] < 1.2 * sizes[0], sizes
    shutil.rmtree(folder / "deep")
    for name in ("version3_lapped.nerv", "version3_pe.nerv", "version3_scenes.nerv"):
        (folder / name).unlink()
    assert updated(folder).size_bytes < sizes[-1] / 2
    assert_same_as_without([folder])


def test_there_is_one_writer_at_a_time(folder):
    code = (
        "import sys, time; from pathlib import Path; from nervcodec.index.update import open_writable\n"
        "with open_writable(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(100)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FolderIndexError, match=rf"being written by another nervcodec \(process {holder.pid}\)"):
            updated(folder)
    finally:
        holder.kill()
        holder.communicate()
    assert updated(folder).files == 11


def test_a_reader_sees_one_state_while_a_writer_waits(folder, monkeypatch):
    updated(folder)
    (folder / "deep" / "0.nerv").unlink()
    monkeypatch.setattr(store, "_WRITE_TIMEOUT_S", 0.1)
    with Store(folder) as reader:
        assert len(reader.files()) == 11
        with pytest.raises(FolderIndexError, match="database is locked"):
            updated(folder)
        assert len(reader.files()) == 11
    assert updated(folder).gone == 1


def test_several_processes_read_what_one_reads(folder):
    names = sorted(containers_below(folder))
    alone, parallel = dict(read_all(folder, names, 1)), dict(read_all(folder, names, 2))
    assert sum(isinstance(result, Content) for result in alone.values()) == 10
    assert parallel == alone


def test_files_of_a_worker_that_dies_are_read_nevertheless(folder, monkeypatch):
    monkeypatch.setattr(updating, "_start_worker", os.abort)
    names = sorted(containers_below(folder))
    assert [name for name, _ in read_all(folder, names, 2)] == names


# ---------------------------------------------------------------------- odd folders and databases


def test_file_names_need_not_be_valid_text(folder):
    os.rename(folder / "deep" / "0.nerv", os.fsencode(folder / "deep") + b"/\xff.nerv")
    assert updated(folder).new == 11
    assert_same_as_without([folder])
    assert updated(folder).idle
    os.rename(os.fsencode(folder / "deep") + b"/\xff.nerv", os.fsencode(folder) + b"/\xfe.nerv")
    assert updated(folder).moved == 1
    assert_same_as_without([folder])


@pytest.mark.parametrize("name", [b"a ? # %20.b", b"\xff\xfe"])
def test_the_folder_may_have_any_name(folder, name):
    odd = Path(os.fsdecode(os.path.join(os.fsencode(folder.parent), name)))
    folder.rename(odd)
    assert updated(odd).new == 11
    assert (odd / DATABASE).is_file()
    assert_same_as_without([odd])


def test_a_folder_without_write_permission(folder):
    updated(folder)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from nervcodec.index.update import open_writable; from nervcodec.index.store import Store\n"
        "os.getuid() == 0 and os.setuid(65534)\n"  # root may write anywhere
        "with Store(Path(sys.argv[1])) as opened:\n    print(len(opened.files()))\n"
        "with open_writable(Path(sys.argv[1])): pass"
    )
    for place in (folder / DATABASE, folder / ".nervcodec" / "lock"):
        place.chmod(0o444)
    (folder / ".nervcodec").chmod(0o555)
    for parent in folder.parents:
        if parent.stat().st_uid == os.getuid() and parent.name.startswith(("pytest", "popen", "test_")):
            parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    (folder / ".nervcodec").chmod(0o755)
    assert done.stdout == "11\n", done.stderr
    assert "cannot be written" in done.stderr


def test_an_index_of_another_version_is_rebuilt(folder, monkeypatch):
    updated(folder)
    monkeypatch.setattr(store, "_VERSION", 99)
    notes = []
    assert moments([folder], 0, notes) == moments([folder], 0, with_index=False)
    assert "is of another version of nervcodec" in notes[0]
    assert updated(folder).new == 11
    assert_same_as_without([folder])


def test_lancedb_tables_of_an_earlier_version_are_replaced(folder):
    (folder / ".nervcodec" / "files.lance" / "data").mkdir(parents=True)
    notes = []
    assert moments([folder], 0, notes) == moments([folder], 0, with_index=False)
    assert f"is of another version of nervcodec; nervcodec index {folder} rebuilds it" in notes[0]
    updated(folder)
    assert sorted(path.name for path in (folder / ".nervcodec").iterdir()) == ["index.sqlite3", "lock"]
    assert_same_as_without([folder])


@pytest.mark.parametrize("damage", ["header", "page", "cut", "segments"])
def test_a_damaged_index_is_reported_and_not_used(folder, damage):
    updated(folder)
    database = folder / DATABASE
    if damage == "segments":
        with sqlite3.connect(database) as opened:
            opened.execute("UPDATE segments SET basis = x'00'")
        opened.close()
    else:
        data = bytearray(database.read_bytes())
        start, stop = {"header": (0, 100), "page": (16384 * 3, len(data)), "cut": (len(data) // 2, len(data))}[damage]
        data[start:stop] = b"" if damage == "cut" else bytes([7]) * (stop - start)
        database.write_bytes(data)
    notes = []
    assert moments([folder], 0, notes) == moments([folder], 0, with_index=False)
    assert "its index cannot be read" in notes[0]
    assert f"nervcodec index --force {folder} rebuilds it" in notes[0]
    if damage == "header":
        with pytest.raises(FolderIndexError, match="its index cannot be read"):
            updated(folder)
    assert updated(folder, force=True).new == 11
    assert_same_as_without([folder])
    assert not (folder / ".nervcodec" / "index.sqlite3-journal").exists()
