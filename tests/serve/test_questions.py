# SPDX-License-Identifier: MIT
"""Questions to containers are answered as the command ``search`` answers them."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from sites import GRID, MUTE, OTHER, Site, changed, serving

from nervcodec.errors import EncoderError
from nervcodec.search.files import find_containers
from nervcodec.search.moments import find_moments
from nervcodec.search.query import Query, QueryEncoder, Term, encode_query
from nervcodec.search.scores import VideoEmbeddings, open_videos
from nervcodec.semantic.encoder import load
from nervcodec.serve import answers, questions
from nervcodec.serve.answers import Question

QUERIES = ["seat belt", "suit", "a man in a car", "sink"]


def moments(site: Site, query: str) -> list[dict]:
    return site.right(f"/api/search?{query}").json["moments"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A folder without what is damaged."""
    place = tmp_path_factory.mktemp("asked")
    shutil.copy(GRID, place / "grid.nerv")
    shutil.copy(MUTE, place / "mute.nerv")
    (place / "deep").mkdir()
    shutil.copy(OTHER, place / "deep" / "other.nerv")
    with serving(place) as running:
        yield running


def found_by_the_command(place, query: str) -> list[dict]:
    """What it prints, without starting it."""
    ask = QueryEncoder(Query((Term(query),)))
    found = find_moments(open_videos(find_containers([str(place)]), ask, []), ask, 24)
    return [moment.to_json() for moment in found]


def test_moments_are_those_of_the_command(asked, run):
    printed = json.loads(run("search", QUERIES[0], asked.place, "-k", "24", "--json").stdout)
    assert printed == found_by_the_command(asked.place, QUERIES[0])
    for query in QUERIES:
        wanted = found_by_the_command(asked.place, query)
        told = asked.right(f"/api/search?add={quote(query)}").json
        assert bool(wanted) == (query != "sink") == (told["empty"] is None)
        for found, expected in zip(told["moments"], wanted, strict=True):
            assert str(asked.place / found["path"]) == expected["file"]
            assert found["score"] == pytest.approx(expected["score"], abs=2e-6)
            assert found["start_s"] == pytest.approx(expected["start"], abs=1e-5)
            assert found["stop_s"] == pytest.approx(expected["end"], abs=1e-5)
            assert found["frame"] == expected["frame"]
            assert found["time_s"] == pytest.approx(found["frame"] * 1001 / 30000)
            (box,) = found["boxes"]
            pixels = [box["x"] * 88, box["y"] * 72, box["w"] * 88, box["h"] * 72]
            assert pixels == pytest.approx(expected["box"])


def test_an_index_of_the_folder_changes_nothing(asked):
    from nervcodec.index.update import open_writable, update

    before = {query: moments(asked, f"add={quote(query)}") for query in QUERIES}
    with open_writable(asked.place) as store:
        update(store, workers=1)
    try:
        with serving(asked.place) as site:
            for query, wanted in before.items():
                for found, expected in zip(moments(site, f"add={quote(query)}"), wanted, strict=True):
                    assert found["score"] == pytest.approx(expected.pop("score"), abs=2e-6)
                    assert {key: found[key] for key in expected} == expected
    finally:
        shutil.rmtree(asked.place / ".nervcodec")


def test_nothing_matches_is_an_answer(asked):
    told = asked.right(f"/api/search?add={quote('a violin')}&subtract=car").json
    assert told["moments"] == []
    assert told["empty"].startswith('nothing certain for "a violin - car"; nearest: ')
    assert (told["notes"], told["unsearchable"]) == ([], 1)
    told = asked.right(f"/api/search?add={quote('машина')}").json
    assert told["empty"] == 'nothing matches "машина"'
    assert any("reads English only" in note for note in told["notes"])
    told = asked.right(f"/api/search?add={quote('a car with no wheels')}").json
    assert 'no encoder understands "no"; subtract what should not be there: - wheel' in told["notes"]


def test_copies_of_a_video_are_one_result(tmp_path):
    for name in ("a", "b"):
        shutil.copy(GRID, tmp_path / f"{name}.nerv")
    with serving(tmp_path) as site:
        found = moments(site, "add=car")
        assert found
        assert all({row["path"], *row["also_in"]} == {"a.nerv", "b.nerv"} for row in found)


def test_one_file_alone(asked):
    found = moments(asked, "like=grid.nerv:0:0:0&in=deep/other.nerv")
    assert {moment["path"] for moment in found} == {"deep/other.nerv"}
    reply = asked.ask("/api/search?add=car&in=mute.nerv")
    assert reply.status == 409
    assert "no embeddings" in reply.error


def test_more_like_a_patch(asked):
    found = moments(asked, "like=grid.nerv:7:0:1&limit=3")
    assert found[0]["path"] == "grid.nerv"
    assert found[0]["frame"] == 7
    assert found[0]["score"] == pytest.approx(1, abs=1e-5)
    assert found[0]["boxes"][0]["x"] == 0.5
    away = moments(asked, "like=grid.nerv:7:0:1&subtract=car&limit=3")
    assert away[0]["score"] < 1


def test_the_fit_over_time_is_the_score_of_each_frame(asked):
    told = asked.right("/api/fit/grid.nerv?add=car").json
    wanted = VideoEmbeddings.read(GRID).scores(encode_query(Question(("car",)).query, load("offline")).vector)
    assert told["scores"] == pytest.approx(wanted.max(axis=1).tolist(), abs=1e-5)
    assert told["times_s"] == pytest.approx([n * 1001 / 30000 for n in range(15)])
    patches = asked.right("/api/patches/grid.nerv/4?add=car").json
    assert (patches["rows"], patches["cols"], patches["threshold"]) == (1, 2, told["threshold"])
    assert [box["score"] for box in patches["boxes"]] == pytest.approx(wanted[4].tolist(), abs=1e-5)
    assert [box["x"] for box in patches["boxes"]] == [0, 0.5]
    for address in ("/api/fit/mute.nerv?add=car", "/api/patches/mute.nerv/0?add=car"):
        assert asked.ask(address).status == 409


def test_long_curves_have_two_thousand_points_and_keep_their_peaks(monkeypatch):
    monkeypatch.setattr(questions, "MOST_POINTS", 5)
    index = VideoEmbeddings.read(GRID)
    asked = encode_query(Question(("car",)).query, load("offline"))
    fit = questions._fitting(index, asked)
    best = index.scores(asked.vector).max(axis=1)
    assert len(fit.scores) == len(fit.times_s) == 5
    assert max(fit.scores) == pytest.approx(best.max())
    assert fit.times_s == sorted(fit.times_s)


def test_an_encoder_that_is_not_here(asked, monkeypatch):
    def missing(name):
        raise EncoderError(f"{name} is not here")

    monkeypatch.setattr(answers, "load", missing)
    with serving(asked.place) as site:
        for address in ("/api/search?add=car", "/api/fit/grid.nerv?add=car", "/api/patches/grid.nerv/0?add=car"):
            reply = site.ask(address)
            assert (reply.status, reply.error) == (409, "offline is not here")
        assert site.right("/api/search?like=grid.nerv:0:0:0").json["moments"]


def test_parts_that_cancel_each_other_out_are_refused(asked):
    for address in ("/api/search?", "/api/fit/grid.nerv?"):
        reply = asked.ask(f"{address}add=car&subtract=car")
        assert reply.status == 400
        assert "cancel each other out" in reply.error


def test_files_that_change_are_read_anew(tmp_path):
    shutil.copy(GRID, tmp_path / "a.nerv")
    with serving(tmp_path) as site:
        before = site.right("/api/fit/a.nerv?like=a.nerv:0:0:0").json["scores"]
        changed(OTHER, tmp_path / "b.nerv", source_name="other.mp4")
        (tmp_path / "b.nerv").replace(tmp_path / "a.nerv")
        assert site.right("/api/fit/a.nerv?like=a.nerv:0:0:0").json["scores"] != before


def test_searches_hold_up_nothing_else(folder, monkeypatch):
    begun, gone_on = threading.Semaphore(0), threading.Event()

    def slow(*_):
        begun.release()
        assert gone_on.wait(60)
        return {"moments": [], "empty": "nothing", "notes": []}

    monkeypatch.setattr(questions.Questions, "search", slow)
    with serving(folder) as site, ThreadPoolExecutor(20) as viewers:
        searches = [viewers.submit(site.right, f"/api/search?add=thing{number}") for number in range(20)]
        assert begun.acquire(timeout=60)
        assert site.right("/api/files").json["total"] > 3
        assert site.right("/api/file/grid.nerv").json["frame_count"] == 15
        assert site.right("/media/aac.nerv.mp4").headers["content-type"] == "video/mp4"
        assert not any(search.done() for search in searches)
        gone_on.set()
        assert all(search.result().status == 200 for search in searches)


def test_embeddings_of_another_length_than_their_encoder_has(tmp_path):
    shutil.copy(Path(__file__).parents[1] / "golden" / "version3_shared.nerv", tmp_path / "wrong.nerv")
    with serving(tmp_path) as running:
        for address in ("/api/fit/wrong.nerv?add=car", "/api/patches/wrong.nerv/0?add=car"):
            told = running.ask(address)
            assert told.status == 409
            assert told.error.startswith("wrong.nerv: its embeddings have 16 numbers")
