# SPDX-License-Identifier: MIT
"""Pages and facts: what there is, what is said of it, and the headers of every answer."""

import re
import shutil
import unicodedata
from urllib.parse import quote

import pytest
from sites import GRID, serving

from nervcodec.errors import ConfigError
from nervcodec.formats.container import read_header

SHOWN = {
    "a b#c?d%41 ü.nerv", "aac.nerv", "broken.nerv", "cut.nerv", "deep/er/lapped.nerv", "grid.nerv", "mute.nerv",
    "spoilt.nerv", "varied.nerv",
}  # fmt: skip
NOT_THERE = {"missing": "/watch/none.nerv", "unknown": "/some/thing", "static": "/static/none.js"}


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
    assert "damaged" in reply.error
    assert "damaged" in site.right("/api/files?name=spoilt").json["files"][0]["damaged"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("GRID", {"grid.nerv"}),
        ("deep/", {"deep/er/lapped.nerv"}),
        ("ü", {"a b#c?d%41 ü.nerv"}),
        (unicodedata.normalize("NFD", "Ü"), {"a b#c?d%41 ü.nerv"}),
        ("zz", set()),
    ],
)
def test_names_filter(site, name, wanted):
    listed = site.right(f"/api/files?name={quote(name)}").json
    assert {file["path"] for file in listed["files"]} == wanted
    assert listed["total"] == len(wanted)


def test_names_are_compared_without_case_and_composition(tmp_path):
    names = [unicodedata.normalize("NFD", "café.nerv"), "İstanbul.nerv", "STRASSE.nerv", "UP.NERV"]
    for name in names:
        shutil.copy(GRID, tmp_path / name)
    with serving(tmp_path) as site:
        for text, name in zip(("CAFÉ", "istanbul", "straße", "up.nerv"), names, strict=True):
            (file,) = site.right(f"/api/files?name={quote(text)}").json["files"]
            assert file["path"] == name
            assert site.right(f"/frame/{quote(name)}/0").body
        assert site.right(f"/api/files?name={quote('İSTANBUL')}").json["total"] == 1
        assert site.right("/api/search?add=suit").json["moments"]


def test_lists_are_sorted_and_below_folders(site):
    def listed(query: str) -> list[dict]:
        return site.right(f"/api/files?{query}").json["files"]

    names = [file["name"].casefold() for file in listed("sort=name")]
    assert names == sorted(names)
    lengths = [file["duration_s"] or 0 for file in listed("sort=length")]
    assert lengths == sorted(lengths, reverse=True)
    assert site.ask("/api/files?sort=size").status == 400
    top, deep = (site.right(f"/api/files?folder={folder}").json for folder in ("", "deep"))
    assert top["folders"] == [{"name": "deep", "files": 1}]
    assert deep["folders"] == [{"name": "er", "files": 1}]
    assert [file["path"] for file in deep["files"]] == ["deep/er/lapped.nerv"]
    for folder in ("none", "../secret", "dee", "/"):
        assert site.right(f"/api/files?folder={folder}").json["total"] == 0
    found = site.right("/api/search?like=grid.nerv:0:0:0&folder=deep").json["moments"]
    assert {moment["path"] for moment in found} == {"deep/er/lapped.nerv"}


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
    assert (facts["frame_times_s"], facts["has_base"], facts["psnr_over_time"]) == (None, False, None)
    (form,) = facts["media"]
    assert (form["codec"], form["type"], form["is_whole"]) == ("avc", 'video/mp4; codecs="avc1.64001f"', False)
    aac = site.right("/api/file/aac.nerv").json["media"][0]
    assert aac["type"] == 'video/mp4; codecs="avc1.64001f, mp4a.40.2"'
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
@pytest.mark.parametrize("prefix", ["", "/nervcodec"])
def test_an_unknown_address_is_a_page_with_the_way_home(folder, address, prefix):
    with serving(folder, root_path=prefix) as site:
        reply = site.ask(prefix + address, Accept="text/html,*/*;q=0.8")
    assert reply.status == 404
    assert reply.headers["content-type"].startswith("text/html")
    assert f'<a href="{prefix}/">To all files</a>'.encode() in reply.body
    assert reply.error.startswith("There is no")


def test_errors_are_json_only_below_api(site):
    reply = site.ask("/api/files/x", Accept="text/html")
    assert (reply.status, reply.json) == (404, {"error": "there is no such page"})
    reply = site.ask("/frame/none.nerv/0", Accept="*/*")
    assert (reply.status, reply.body, reply.headers["content-type"]) == (
        404, b"there is no none.nerv", "text/plain; charset=utf-8",
    )  # fmt: skip
    assert site.ask("/frame/none.nerv/0", Accept="text/html").body.startswith(b"<!doctype html>")
    name = quote("<script>alert(1)</script>.nerv")
    assert b"<script>" not in site.ask(f"/watch/{name}").body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_get_and_head_are_answered(site, method):
    for address in ("/", "/api/files", "/frame/grid.nerv/0", "/static/style.css"):
        reply = site.ask(address, method)
        assert (reply.status, reply.error.rstrip(".").lower()) == (405, "only get and head are answered")
    assert site.ask("/frame/grid.nerv/0", "HEAD").status == 200


@pytest.mark.parametrize(("host", "status"), [
    ("localhost", 200), ("LOCALHOST.:80", 200), ("127.0.0.1:1", 200), ("[::1]:80", 200), ("192.168.1.7:8000", 200),
    ("[fe80::1]", 200), ("laptop.local:8000", 200), ("evil.example", 400), ("127.0.0.1.evil.example", 400),
    ("", 400), ("localhost@evil.example", 400), ("evil.example#.local", 400), ("local", 400), ("0x7f000001", 400),
])  # fmt: skip
def test_names_need_permission_and_addresses_in_digits_do_not(site, host, status):
    reply = site.ask("/api/files", Host=host)
    assert reply.status == status
    assert status == 200 or "--name" in reply.error


def test_a_name_of_a_proxy(folder):
    with serving(folder, names=("video.example",)) as site:
        assert site.ask("/", Host="video.example").status == 200
        reply = site.ask("/", Host="other.example", Accept="text/html")
        assert (reply.status, reply.headers["content-type"]) == (400, "text/html; charset=utf-8")
        assert "does not answer to the name" in reply.error


@pytest.mark.parametrize("strips", [True, False])
def test_a_proxy_below_a_path(folder, strips):
    """What the page links to is below the prefix, whether or not the proxy strips it."""
    with serving(folder, root_path="/nerv/codec") as site:

        def ask(address: str):
            assert address.startswith("/nerv/codec"), address
            return site.ask(address.removeprefix("/nerv/codec") or "/" if strips else address)

        for page in ("/nerv/codec", "/nerv/codec/", "/nerv/codec/watch/deep/er/lapped.nerv"):
            reply = ask(page)
            assert reply.status == 200
            links = set(re.findall(r'(?:href|src)="([^"#]+)"', reply.body.decode()))
            assert len(links) >= 3
            assert {link: ask(link).status for link in links} == dict.fromkeys(links, 200)
        assert ask("/nerv/codec/api/files").json["total"] == len(SHOWN)
        assert ask("/nerv/codec/frame/grid.nerv/0").status == 200
        assert ask("/nerv/codec/none").status == 404
    with serving(folder / "grid.nerv", root_path="/nerv/codec/") as site:
        assert site.ask("/").headers["location"] == "/nerv/codec/watch/grid.nerv"


@pytest.mark.parametrize("prefix", ["nervcodec", "/a b", "/a?b", "/watch", "/api/x", "//x", '/"'])
def test_root_paths_that_cannot_be(tmp_path, prefix):
    with pytest.raises(ConfigError, match="--root-path"), serving(tmp_path, root_path=prefix):
        pass
