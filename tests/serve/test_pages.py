# SPDX-License-Identifier: MIT
"""Pages and facts: what there is, what is said of it, and the headers of every answer."""

import json
from urllib.parse import quote

import pytest
from sites import GRID, serving

from nervcodec.formats.container import read_header

SHOWN = {
    "a b#c?d%41 ü.nerv", "aac.nerv", "broken.nerv", "cut.nerv", "deep/er/lapped.nerv", "grid.nerv", "mute.nerv",
    "spoilt.nerv", "varied.nerv",
}  # fmt: skip
NOT_THERE = {"missing": "/watch/none.nerv", "deep": "/api/files/x", "static": "/static/none.js"}


def test_all_containers_are_listed_the_newest_first(site):
    listed = site.right("/api/files").json
    assert listed["folder"] == "videos"
    assert listed["total"] == len(listed["files"]) == len(SHOWN)
    assert {file["path"] for file in listed["files"]} == SHOWN
    assert [file["modified"] for file in listed["files"]] == sorted(
        (f["modified"] for f in listed["files"]), reverse=True
    )
    found = {file["path"]: file for file in listed["files"]}
    header = read_header(GRID)
    grid = found["grid.nerv"]
    assert (grid["width"], grid["height"], grid["frame_count"]) == (88, 72, 15)
    assert grid["frame_rate"] == pytest.approx(30000 / 1001)
    assert grid["pixel_aspect"] == pytest.approx(128 / 117)
    assert grid["psnr_db"] == header.fit.psnr_db
    assert (grid["searchable"], grid["has_sound"], grid["damaged"]) == (True, False, None)
    assert (found["mute.nerv"]["searchable"], found["aac.nerv"]["has_sound"]) == (False, True)
    assert found["deep/er/lapped.nerv"]["name"] == "lapped.nerv"


def test_damaged_files_are_listed_as_such(site):
    found = {file["path"]: file for file in site.right("/api/files").json["files"]}
    assert found["broken.nerv"]["damaged"] == "not a .nerv file"
    assert "cut short" in found["cut.nerv"]["damaged"]
    assert found["cut.nerv"]["frame_count"] is None
    # Of one whose header is whole it is known once somebody looked.
    reply = site.ask("/frame/spoilt.nerv/0")
    assert reply.status == 409
    assert "damaged" in reply.json["error"]
    assert "damaged" in site.right("/api/files?name=spoilt").json["files"][0]["damaged"]


@pytest.mark.parametrize(
    ("name", "wanted"), [("GRID", {"grid.nerv"}), ("deep/", {"deep/er/lapped.nerv"}), ("zz", set())]
)
def test_names_filter(site, name, wanted):
    listed = site.right(f"/api/files?name={quote(name)}").json
    assert {file["path"] for file in listed["files"]} == wanted
    assert listed["total"] == len(wanted)


def test_the_list_comes_in_parts(site):
    whole = [file["path"] for file in site.right("/api/files").json["files"]]
    parts = [site.right(f"/api/files?offset={n}&limit=2").json for n in range(0, 10, 2)]
    assert [file["path"] for part in parts for file in part["files"]] == whole
    assert all(part["total"] == len(whole) for part in parts)
    assert site.right("/api/files?offset=50").json["files"] == []


def test_facts_of_a_file(site):
    facts = site.right(f"/api/file/{quote('a b#c?d%41 ü.nerv')}").json
    assert facts["name"] == "a b#c?d%41 ü.nerv"
    assert facts["grid"] == {"rows": 1, "cols": 2}
    assert sum(part["bytes"] for part in facts["parts"]) == GRID.stat().st_size
    assert {"source", "network", "quality"} <= {fact["name"] for fact in facts["facts"]}
    assert (facts["frame_times_s"], facts["has_base"], facts["audio"], facts["psnr_over_time"]) == (
        None,
        False,
        None,
        None,
    )
    assert facts["video"]["fragment_s"] * facts["video"]["count"] >= facts["duration_s"] - 0.1
    assert site.right("/api/file/deep/er/lapped.nerv").json["path"] == "deep/er/lapped.nerv"
    assert len(site.right("/api/file/varied.nerv").json["frame_times_s"]) == 15
    assert site.ask("/api/file/broken.nerv").status == 409


def test_pages_and_what_they_are_made_of(site):
    for address in ("/", "/watch/grid.nerv", "/watch/deep/er/lapped.nerv?t=0.4&q=sink"):
        reply = site.right(address)
        assert reply.headers["content-type"].startswith("text/html")
        assert b"<html" in reply.body
    assert site.right("/static/watch.html").body == site.right("/watch/grid.nerv").body


def test_a_file_alone(folder):
    with serving(folder / "grid.nerv") as site:
        reply = site.ask("/")
        assert (reply.status, reply.headers["location"]) == (307, "/watch/grid.nerv")
        listed = site.right("/api/files").json
        assert [file["path"] for file in listed["files"]] == ["grid.nerv"]
        assert site.ask("/watch/mute.nerv").status == 404
        assert site.ask("/frame/deep/er/lapped.nerv/0").status == 404


@pytest.mark.parametrize(
    "address", ["/", "/api/files", "/static/watch.html", "/nothing", "/frame/none.nerv/0", "/frame/grid.nerv/x"]
)
def test_every_answer_has_the_headers(site, address):
    headers = site.ask(address).headers
    assert headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' blob: data:;")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


@pytest.mark.parametrize("address", NOT_THERE.values(), ids=NOT_THERE)
def test_what_is_not_there(site, address):
    reply = site.ask(address)
    assert reply.status == 404
    assert list(reply.json) == ["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_but_get_and_head(site, method):
    for address in ("/", "/api/files", "/frame/grid.nerv/0"):
        reply = site.ask(address, method)
        assert reply.status == 405
        assert json.loads(reply.body)["error"]
    assert site.ask("/frame/grid.nerv/0", "HEAD").status == 200


@pytest.mark.parametrize(("host", "status"), [
    ("localhost", 200), ("127.0.0.1:1", 200), ("[::1]:80", 200), ("evil.example", 400), ("127.0.0.1.evil.example", 400),
    ("", 400), ("localhost@evil.example", 400),
])  # fmt: skip
def test_only_its_own_names_are_answered(site, host, status):
    assert site.ask("/api/files", Host=host).status == status
