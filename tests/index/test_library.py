# SPDX-License-Identifier: MIT
"""An index of a folder: it gives what asking file by file gives, whatever happened to the folder or to who wrote it."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from nervcodec.errors import EncoderError, LibraryError
from nervcodec.formats.container import Container, Writer
from nervcodec.formats.header import SemanticFacts
from nervcodec.index import ask as library_ask
from nervcodec.index import reading, store, tables
from nervcodec.index.ask import Library, choose, covering
from nervcodec.index.choose import best_scores
from nervcodec.index.store import Store
from nervcodec.index.update import Update, writing
from nervcodec.search.ask import Answer
from nervcodec.search.collection import containers, containers_below
from nervcodec.search.index import EmbeddingIndex, open_index, open_indexes
from nervcodec.search.moments import find_moments

pytest.importorskip("lancedb")
GOLDEN = Path(__file__).parents[1] / "golden"
SOURCES = [GOLDEN / f"version3_{name}.nerv" for name in ("grid", "lapped", "pe", "scenes")]
OTHER = GOLDEN / "version3_shared.nerv"  # embeddings of 16 numbers
DIMENSIONS = {"offline": 384, "openclip:toy/toy": 16}


def named_anew(source: Path, target: Path, name: str, **more: object) -> Path:
    """A copy under another header."""
    with Container.at(source) as opened, Writer(target) as writer:
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
        named_anew(source, tmp_path / "videos" / "deep" / f"{number}.nerv", f"{number}.mp4")
    named_anew(OTHER, tmp_path / "videos" / "other.nerv", "x", semantic=SemanticFacts("openclip:toy/toy", 16, 8.0))
    shutil.copy2(tmp_path / "videos" / "version3_grid.nerv", tmp_path / "videos" / "twin.nerv")
    (tmp_path / "videos" / "cut.nerv").write_bytes(SOURCES[0].read_bytes()[:-9])
    return tmp_path / "videos"


def update(folder):
    with writing(folder) as opened:
        return Update(folder, opened, workers=1).run()


def answers(seed):
    """Any encoder's answer to one query."""
    rng = np.random.default_rng(seed)
    vectors = {}

    def ask(encoder):
        if encoder not in vectors:
            vector = rng.normal(size=DIMENSIONS[encoder])
            vectors[encoder] = Answer((vector / np.linalg.norm(vector)).astype(np.float32))
        return vectors[encoder]

    return ask


def moments(paths, seed, notes=None, k=3, with_index=True, **more):
    """What search finds, as JSON, and what it says."""
    files, ask, problems = containers([str(path) for path in paths]), answers(seed), []
    note = (lambda text: None) if notes is None else notes.append
    folders = [str(path) for path in paths if path.is_dir()]
    known = choose(files, folders, ask, k, note) if with_index else {}
    found = find_moments(open_indexes(files, ask, problems, known=known), ask, k, **more)
    return [moment.to_json() for moment in found], sorted(map(str, problems))


def assert_right(paths, seeds=range(3)):
    for seed in seeds:
        assert moments(paths, seed) == moments(paths, seed, with_index=False)


def test_the_index_scores_as_containers_do(folder):
    update(folder)
    library = Library(folder)
    kinds = set(library._kinds.values())
    assert len(kinds) == 3  # two encoders, and codes of two widths
    checked = 0
    for kind in kinds:
        for seed in range(20):
            vector = np.random.default_rng(seed).normal(size=kind.dimension)
            vector = (vector / np.linalg.norm(vector)).astype(np.float32)
            parts = library._store.segments(kind), library._store.codes(kind)
            for number, score in zip(*best_scores(*parts, kind.width, vector), strict=True):
                path = next(path for path, row in library.files.items() if row.number == number)
                assert score == pytest.approx(open_index(folder / path).scores(vector).max(), abs=0.02)
                checked += 1
    assert checked == 20 * 9


def test_what_was_done_is_told(folder):
    report = update(folder)
    assert (report.files, report.new, report.read) == (11, 11, 11)
    assert list(report.unreadable) == ["cut.nerv"]
    assert "cut short" in report.unreadable["cut.nerv"]
    assert report.rows > 0
    assert report.size_bytes > 10_000
    again = update(folder)
    assert again.idle
    assert (again.read, again.rows) == (0, report.rows)
    (folder / "deep" / "0.nerv").rename(folder / "deep" / "moved.nerv")
    (folder / "deep" / "1.nerv").unlink()
    named_anew(SOURCES[2], folder / "deep" / "2.nerv", "another")
    shutil.copy(SOURCES[3], folder / "new.nerv")
    after = update(folder)
    assert (after.new, after.changed, after.moved, after.gone, after.read) == (1, 1, 1, 1, 2)
    assert_right([folder])


def test_a_moved_file_is_not_read_again(folder, monkeypatch):
    update(folder)
    for file in folder.glob("deep/*.nerv"):
        file.rename(folder / f"moved_{file.name}")
    monkeypatch.setattr(reading, "read", None)
    report = update(folder)
    assert (report.moved, report.gone, report.read) == (4, 0, 0)
    assert_right([folder])


def test_one_content_is_stored_once(folder):
    update(folder)
    rows = {row.path: row.number for row in Store(folder).files()}
    assert rows["twin.nerv"] == rows["version3_grid.nerv"]
    assert len(Store(folder).contents()) == 9


@pytest.mark.parametrize("spare", [0, 2])
def test_the_same_is_found_where_most_files_are_not_looked_into(folder, monkeypatch, spare):
    monkeypatch.setattr(library_ask, "SPARE", spare)
    monkeypatch.setattr("nervcodec.search.moments.SPARE", spare)
    update(folder)
    for seed in range(12):
        for k in (1, 2, 5):
            assert moments([folder], seed, k=k) == moments([folder], seed, k=k, with_index=False)
    files = containers([str(folder)])
    known = Library(folder).choose(Library(folder).rows(files), answers(0), 1)
    assert sum(isinstance(index, EmbeddingIndex) for index in known.values()) <= 8 + spare
    assert len(known) == 11
    assert moments([folder], 1, per_patch=True) == moments([folder], 1, with_index=False, per_patch=True)
    assert moments([folder], 1, min_score=0.1) == moments([folder], 1, with_index=False, min_score=0.1)


def test_what_the_index_does_not_know_is_asked_one_by_one(folder):
    update(folder)
    notes = []
    moments([folder], 0, notes)
    assert notes == []
    shutil.copy(SOURCES[1], folder / "deep" / "late.nerv")
    (folder / "version3_pe.nerv").unlink()
    os.utime(folder / "deep" / "3.nerv")
    assert_right([folder])
    moments([folder], 0, notes)
    assert notes == [f"2 files are newer than the index of {folder}; nervcodec index {folder} brings it up to date"]
    update(folder)
    moments([folder], 0, notes)
    assert len(notes) == 1


def test_a_folder_below_is_covered_too(folder, monkeypatch):
    update(folder)
    assert covering(str(folder / "deep")) == folder
    assert covering(str(folder.parent)) is None
    assert_right([folder / "deep"])
    assert_right([folder / "deep", folder / "cut.nerv", folder / "twin.nerv"])
    monkeypatch.chdir(folder / "deep")
    assert_right([Path(".")])
    assert_right([Path("..")])
    monkeypatch.setattr("nervcodec.search.index.open_index", None)  # nothing is asked one by one
    assert moments([Path(".")], 0)[0]


def test_an_encoder_that_cannot_be_had_is_the_files_problem(folder):
    update(folder)

    def ask(encoder):
        raise EncoderError("no weights")

    rows = Library(folder).rows(containers([str(folder)]))
    known = Library(folder).choose(rows, ask, 3)
    assert [str(error) for error in known.values()].count("no weights") == 10


def test_whoever_stops_in_between_loses_nothing(folder, monkeypatch):
    """Every step of writing is the last one, once; then somebody else brings the index up to date."""
    steps = {"left": 0}
    for name in ("append", "replace", "delete"):
        whole = getattr(tables.Tables, name)

        def step(self, *arguments, whole=whole):
            if steps["left"] == 0:
                raise KeyboardInterrupt
            steps["left"] -= 1
            return whole(self, *arguments)

        monkeypatch.setattr(tables.Tables, name, step)
    stopped = 0
    for number in range(40):
        steps["left"] = number
        try:
            update(folder)
        except KeyboardInterrupt:
            stopped += 1
            assert_right([folder], [number])
            steps["left"] = 1000
            if number % 2:
                report = update(folder)
                assert report.files == 11
                assert_right([folder], [number])
                shutil.rmtree(folder / ".nervcodec")
        else:
            break
    assert stopped >= 5
    assert update(folder).idle
    live = {row.number for row in Store(folder).files()} - {store.NOTHING}
    for name, numbers in Store(folder)._numbers().items():
        assert set(numbers.tolist()) <= live, name


def test_what_was_replaced_is_taken_away_and_versions_do_not_pile_up(folder, monkeypatch):
    monkeypatch.setattr("nervcodec.index.update._TIDY_VERSIONS", 4)
    monkeypatch.setattr(tables, "_KEPT", timedelta(milliseconds=1))
    rows = update(folder).rows
    sizes = []
    for number in range(8):
        named_anew(SOURCES[0], folder / "deep" / "0.nerv", f"again {number}")
        report = update(folder)
        assert (report.changed, report.rows) == (1, rows)
        sizes.append(report.size_bytes)
    assert sizes[-1] < 2 * sizes[0], sizes
    assert_right([folder])


def test_there_is_one_writer_at_a_time(folder):
    code = (
        "import sys, time; from pathlib import Path; from nervcodec.index.update import writing\n"
        "with writing(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(100)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LibraryError, match=rf"being written by another nervcodec \(process {holder.pid}\)"):
            update(folder)
    finally:
        holder.kill()
        holder.communicate()
    assert update(folder).files == 11


def test_several_processes_read_what_one_reads(folder):
    names = sorted(containers_below(folder))
    alone = dict(reading.read_all(folder, names, 1))
    shared = dict(reading.read_all(folder, names, 2))
    assert alone.keys() == shared.keys()
    for name, read in alone.items():
        assert shared[name].problem == read.problem
        if read.content is not None:
            assert shared[name].content.checksum == read.content.checksum
            codes = [
                (a.codes, b.codes) for a, b in zip(read.content.segments, shared[name].content.segments, strict=True)
            ]
            assert all(np.array_equal(*pair) for pair in codes)


def test_a_name_need_be_no_text(folder):
    os.rename(folder / "deep" / "0.nerv", os.fsencode(folder / "deep") + b"/\xff.nerv")
    assert update(folder).new == 11
    assert_right([folder])
    assert update(folder).idle
    os.rename(os.fsencode(folder / "deep") + b"/\xff.nerv", os.fsencode(folder) + b"/\xfe.nerv")
    assert update(folder).moved == 1
    assert_right([folder])


def test_an_index_of_another_form_is_made_anew(folder, monkeypatch):
    update(folder)
    monkeypatch.setattr(store, "_FORM", "another")
    assert_right([folder])
    assert update(folder).new == 11
    assert_right([folder])


def test_a_damaged_index_is_said_and_not_used(folder):
    update(folder)
    for file in (folder / ".nervcodec" / "files.lance" / "data").iterdir():
        file.write_bytes(b"nothing")
    notes = []
    assert moments([folder], 0, notes) == moments([folder], 0, with_index=False)
    assert "its index cannot be read" in notes[0]
    with pytest.raises(LibraryError, match="its index cannot be read") as refused:
        update(folder)
    assert f"nervcodec index --force {folder} makes it anew" in str(refused.value)
    assert ".rs:" not in str(refused.value)
    with writing(folder) as opened:
        opened.clear()
        assert Update(folder, opened, workers=1).run().new == 11
    assert_right([folder])


def test_without_lancedb_search_goes_file_by_file(folder, monkeypatch):
    update(folder)
    monkeypatch.setattr(library_ask, "available", lambda: False)
    notes = []
    assert moments([folder], 0, notes) == moments([folder], 0, with_index=False)
    assert 'pip install "nervcodec[library]"' in notes[0]
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(LibraryError, match="pip install"):
        update(folder)
