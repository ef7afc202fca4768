# SPDX-License-Identifier: MIT
"""What strangers may ask: no path leaves the folder, absurd numbers cost nothing, files change under the server."""

import os
import shutil
import socket
import time
from urllib.parse import quote

import pytest
from sites import GRID, LAPPED, serving

from nervcodec.serve.store import ContainerStore

ROUTES = (
    "/watch/{}", "/api/file/{}", "/thumbnail/{}", "/frame/{}/0", "/media/{}.mp4", "/api/media/{}",
    "/api/fit/{}?add=x", "/api/patches/{}/0?add=x",
)  # fmt: skip
LEAVING = {
    "dots": "../secret/outside.nerv",
    "encoded dots": "%2e%2e/secret/outside.nerv",
    "encoded slash": "..%2fsecret%2foutside.nerv",
    "encoded twice": "%252e%252e/secret/outside.nerv",
    "dots within": "deep/../../secret/outside.nerv",
    "dots to itself": "deep/../grid.nerv",
    "one dot": "./grid.nerv",
    "backslashes": "..\\secret\\outside.nerv",
    "encoded backslashes": "..%5csecret%5coutside.nerv",
    "overlong": "%c0%ae%c0%ae/secret/outside.nerv",
    "no text": "%ff%fe.nerv",
    "zero": "grid.nerv%00",
    "zero before": "%00/grid.nerv",
    "a link out": "out.nerv",
    "through a link out": "out/outside.nerv",
    "a link to nothing": "dangling.nerv",
    "hidden": ".hidden.nerv",
    "deleted": "@eaDir/grid.nerv",
    "another kind": "notes.txt",
    "a folder": "deep",
    "two slashes": "deep//er/lapped.nerv",
    "a slash more": "grid.nerv/",
    "long": "a" * 5000 + ".nerv",
    "long and deep": "a/" * 3000 + "b.nerv",
}


@pytest.mark.parametrize("path", LEAVING.values(), ids=LEAVING)
def test_no_path_leaves_the_folder(site, path):
    for route in ROUTES:
        address = route.format(path)
        if "%" not in path:
            address = quote(address, safe="/?=\\")
        reply = site.ask(address)
        assert reply.status == 404, address[:100]
        assert len(reply.error) < 400
        assert "secret" not in reply.error or "here is no" in reply.error


def test_absolute_names_are_none(site, folder):
    for path in (str(folder / "grid.nerv"), f"/{folder / 'grid.nerv'}", str(folder.parent / "secret" / "outside.nerv")):
        for address in (f"/frame/{path}/0", f"/frame/{quote(path, safe='')}/0", f"/watch/{quote(path, safe='')}"):
            assert site.ask(address).status == 404


@pytest.mark.parametrize("name", ["../__init__.py", "%2e%2e%2fapp.py", "..%5capp.py", "x%00.js", "", "."])
def test_static_files_are_those_alone(site, name):
    assert site.ask(f"/static/{name}").status == 404


def test_a_patch_of_another_place_is_none(site):
    for path in ("../secret/outside.nerv", "out.nerv", ".hidden.nerv"):
        reply = site.ask(f"/api/search?like={quote(path)}:0:0:0")
        assert reply.status == 404
        assert site.ask(f"/api/search?add=x&in={quote(path)}").status == 404


ABSURD = [
    "/frame/grid.nerv/" + "9" * 31, "/frame/grid.nerv/-1", "/frame/grid.nerv/1e3", "/frame/grid.nerv/0x1",
    "/frame/grid.nerv/%D9%A1", "/frame/grid.nerv/1.0", "/frame/grid.nerv/%2B1", "/frame/grid.nerv/0?width=1000000000",
    "/frame/grid.nerv/0?width=0", "/frame/grid.nerv/0?width=-5", "/frame/grid.nerv/0?width=5&width=6",
    "/frame/grid.nerv/0?format=bmp", "/media/grid.nerv.mp4?from=" + "1" * 30,
    "/media/grid.nerv.mp4?from=-1", "/media/grid.nerv.mp4?from=15", "/media/grid.nerv.mp4?codec=base",
    "/media/grid.nerv.mp4?codec=x", "/api/files?limit=1000000000", "/api/files?limit=0",
    "/api/files?offset=-1", "/api/files?offset=" + "9" * 400, "/api/search", "/api/search?add=", "/api/search?add=%20",
    "/api/search?subtract=x", "/api/search?add=x&limit=1000000000", "/api/search?add=" + "x" * 201,
    "/api/search?" + "&".join(["add=x"] * 1000), "/api/search?" + "&".join(["add=x"] * 9),
    "/api/search?add=x&q=" + "y" * 17000, "/api/search?like=grid.nerv", "/api/search?like=grid.nerv:0:0",
    "/api/search?like=grid.nerv:0:0:9", "/api/search?like=grid.nerv:99:0:0", "/api/search?like=grid.nerv:1e9:0:0",
    "/api/fit/grid.nerv", "/api/fit/grid.nerv?add=x&like=a:1:1:1&like=b:1:1:1", "/api/patches/grid.nerv/0",
    "/api/patches/grid.nerv/" + "9" * 31 + "?add=x",
]  # fmt: skip


@pytest.mark.parametrize("address", ABSURD, ids=[address[:50] for address in ABSURD])
def test_absurd_numbers_are_refused_at_once(site, address):
    begun = time.thread_time()
    reply = site.ask(address)
    assert reply.status == 400, reply.body
    assert list(reply.json) == ["error"] if address.startswith("/api/") else b"<" not in reply.body
    assert len(reply.body) < 400
    assert time.thread_time() - begun < 1


@pytest.mark.parametrize("address", ["/frame/grid.nerv/15", "/api/patches/grid.nerv/15?add=x"])
def test_what_a_file_has_not(site, address):
    reply = site.ask(address)
    assert reply.status == 404
    assert "there are" in reply.error


def test_a_query_of_a_megabyte_is_not_read(site):
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as plug:
        plug.settimeout(10)
        try:
            plug.sendall(b"GET /api/search?add=" + b"x" * (1 << 20) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        except ConnectionError:
            return  # it hung up in the midst of it
        try:
            assert plug.recv(100).startswith(b"HTTP/1.1 400")
        except ConnectionError:
            return
    assert site.ask("/api/files").status == 200


def test_files_that_come_change_and_go(tmp_path):
    place = tmp_path / "videos"
    place.mkdir()
    shutil.copy(GRID, place / "a.nerv")
    with serving(place) as site:
        first = site.right("/frame/a.nerv/3")
        again = site.ask("/frame/a.nerv/3", **{"If-None-Match": first.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        version = site.right("/api/file/a.nerv").json["version"]
        site.right(f"/frame/a.nerv/3?version={version}")
        shutil.copy(LAPPED, place / "b.nerv")
        assert [file["path"] for file in site.right("/api/files").json["files"]] == ["b.nerv", "a.nerv"]
        os.replace(place / "b.nerv", place / "a.nerv")
        other = site.right("/frame/a.nerv/3", **{"If-None-Match": first.headers["etag"]})
        assert other.body != first.body
        assert other.headers["etag"] != first.headers["etag"]
        assert [file["path"] for file in site.right("/api/files").json["files"]] == ["a.nerv"]
        for address in ("frame/a.nerv/3", "media/a.nerv.mp4", "api/fit/a.nerv", "api/patches/a.nerv/3"):
            assert site.ask(f"/{address}?add=car&version={version}").status == 410
        (place / "a.nerv").write_bytes(b"nothing")
        assert site.ask("/frame/a.nerv/3").status == 409
        assert site.right("/api/files").json["files"][0]["damaged"]
        (place / "a.nerv").unlink()
        assert site.ask("/frame/a.nerv/3").status == 404
        assert site.right("/api/files").json["files"] == []
        shutil.rmtree(place)
        assert site.right("/api/files").json["files"] == []
        assert not site.notes


def test_cut_short_in_place_while_it_is_open(tmp_path):
    shutil.copy(GRID, tmp_path / "a.nerv")
    store = ContainerStore(tmp_path)
    item = store.entry("a.nerv")
    store.require_showable(item)
    os.truncate(tmp_path / "a.nerv", 5000)
    assert store.status(store.entry("a.nerv")).damaged


def test_nothing_is_written_beside_the_videos(site, folder):
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    for address in (
        "/thumbnail/grid.nerv",
        "/frame/grid.nerv/1",
        "/media/aac.nerv.mp4",
        "/media/varied.nerv.mp4?from=0",
    ):
        site.right(address)
    site.right("/api/search?add=sink")
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not site.notes


def test_nobody_is_told_where_the_folder_is(site, folder):
    addresses = [
        "/frame/spoilt.nerv/0",
        "/frame/cut.nerv/0",
        "/api/fit/mute.nerv?add=x",
    ]
    for address in (*addresses, "/api/search?add=x&in=mute.nerv", "/watch/none.nerv"):
        reply = site.ask(address)
        assert reply.status in (404, 409)
        assert str(folder) not in reply.error
        assert ".nerv" in reply.error
    assert str(folder) not in site.right("/api/search?add=x").body.decode()


def test_a_folder_may_itself_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    shutil.copy(GRID, tmp_path / "real" / "a.nerv")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = ContainerStore(tmp_path / "link")
    assert [item.path for item in store.entries()] == ["a.nerv"]
    assert store.entry("a.nerv").size == GRID.stat().st_size


def test_names_that_are_no_text(tmp_path):
    target = os.fsencode(tmp_path) + b"/\xff\xfe.nerv"
    try:
        shutil.copy(GRID, target)
    except OSError:
        pytest.skip("this file system takes text only")
    with serving(tmp_path) as site:
        (listed,) = site.right("/api/files").json["files"]
        assert "rename" in listed["damaged"]
