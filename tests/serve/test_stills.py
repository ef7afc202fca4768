# SPDX-License-Identifier: MIT
"""Frames on the page are the decoder's."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from sites import GRID, serving, spoilt

import nervcodec
from nervcodec.semantic import cache
from nervcodec.serve import limits, stills


def pixels(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("path", ["grid.nerv", "deep/er/lapped.nerv", "varied.nerv", "mute.nerv"])
def test_frames_without_loss_are_the_decoders(site, folder, path):
    with nervcodec.open(folder / path) as video:
        for number in (0, 7, 14):
            reply = site.right(f"/frame/{path}/{number}?format=png")
            assert reply.headers["content-type"] == "image/png"
            np.testing.assert_array_equal(pixels(reply.body), video[number])


def test_frames_with_loss_are_close(site, folder):
    reply = site.right("/frame/grid.nerv/3")
    assert reply.headers["content-type"] == "image/jpeg"
    image = Image.open(io.BytesIO(reply.body))
    assert image.layer[0][1:3] == image.layer[1][1:3] == (1, 1)  # as much colour as luma
    with nervcodec.open(folder / "grid.nerv") as video:
        difference = np.asarray(image, float) - video[3]
    assert np.sqrt((difference**2).mean()) < 4


def test_smaller_frames(site):
    assert pixels(site.right("/frame/grid.nerv/3?width=44").body).shape == (36, 44, 3)
    assert pixels(site.right("/frame/grid.nerv/3?width=4096").body).shape == (72, 88, 3)


def test_what_is_asked_again_is_not_sent_again(site):
    first = site.right("/frame/grid.nerv/4")
    assert first.headers["cache-control"] == "private, no-cache"
    tag = first.headers["etag"]
    assert site.ask("/frame/grid.nerv/4", **{"If-None-Match": tag}).status == 304
    assert site.ask("/frame/grid.nerv/4", **{"If-None-Match": f'"other", {tag}'}).status == 304
    for other in ("/frame/grid.nerv/5", "/frame/grid.nerv/4?format=png", "/frame/grid.nerv/4?width=20"):
        assert site.ask(other, **{"If-None-Match": tag}).status == 200


def test_frames_of_a_base_layer(layered_nerv, tmp_path):
    shutil.copy(layered_nerv, tmp_path / "a.nerv")
    with serving(tmp_path) as site, nervcodec.open(layered_nerv) as video:
        for number in (0, 29, 30, 17, 59, 16):  # in both segments, back and forth
            shown = pixels(site.right(f"/frame/a.nerv/{number}?format=png").body)
            np.testing.assert_array_equal(shown, video[number])


def test_frames_too_large_are_not_decoded(site, monkeypatch, folder, tmp_path):
    shutil.copy(GRID, tmp_path / "a.nerv")
    monkeypatch.setattr(limits, "MOST_PIXELS", 1000)
    with serving(tmp_path) as site:
        reply = site.ask("/frame/a.nerv/0")
        assert reply.status == 409
        assert "too large" in reply.error


def test_thumbnails_are_made_once_and_in_shape(tmp_path, monkeypatch):
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "cache"))
    shutil.copy(GRID, tmp_path / "a.nerv")
    shutil.copy(GRID, tmp_path / "b.nerv")
    written = set()
    for _ in range(2):
        with serving(tmp_path) as site:
            shapes = {pixels(site.right(f"/thumbnail/{name}.nerv").body).shape for name in "ab"}
            # Pixels are wider than high.
            assert shapes == {(round(320 * 72 * 117 / (88 * 128)), 320, 3)}
        written |= {path.stat().st_mtime_ns for path in (tmp_path / "cache" / "thumbnails").iterdir()}
    assert len(written) == 2
    assert len(list((tmp_path / "cache" / "thumbnails").iterdir())) == 2


def test_a_damaged_copy_has_not_the_thumbnail_of_the_whole(site, tmp_path, monkeypatch):
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "cache"))
    shutil.copy(GRID, tmp_path / "whole.nerv")
    spoilt(GRID, tmp_path / "spoilt.nerv")
    with serving(tmp_path) as site:
        site.right("/thumbnail/whole.nerv")
        assert site.ask("/thumbnail/spoilt.nerv").status == 409
        files = {file["name"]: file for file in site.right("/api/files").json["files"]}
    assert "damaged" in files["spoilt.nerv"]["damaged"]


def test_a_name_with_a_line_break(tmp_path):
    shutil.copy(GRID, tmp_path / "new\nline.nerv")
    with serving(tmp_path) as site:
        assert [file["path"] for file in site.right("/api/files").json["files"]] == ["new\nline.nerv"]
        assert site.right("/api/file/new%0Aline.nerv").json["frame_count"] == 15
        assert site.right("/frame/new%0Aline.nerv/3").headers["content-type"] == "image/jpeg"


def test_thumbnails_stay_within_bounds(tmp_path, monkeypatch):
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path))
    for number in range(10):
        cache.store_bytes("thumbnails", f"{number}.jpg", bytes(1000))
        stills._evict(tmp_path / "thumbnails", 3500)
    left = sorted(path.name for path in (tmp_path / "thumbnails").iterdir())
    assert left == ["7.jpg", "8.jpg", "9.jpg"]
    stills._evict(tmp_path / "none", 0)


def test_frames_of_a_base_layer_are_cached_up_to_a_limit(layered_nerv):
    """Stepping backwards through one group of pictures decodes it once, as far as it fits."""
    with nervcodec.open(layered_nerv) as video:
        wanted = [video[number] for number in range(30)]
        size = sum(plane.nbytes for plane in next(video.planes([0])))
    opened = stills._OpenFile(layered_nerv)
    roomy, tight = stills.FrameCache(30 * size), stills.FrameCache(4 * size)
    for decoded in (roomy, tight):
        for number in (29, 28, 27, 5, 6, 29):
            np.testing.assert_array_equal(opened.frame(number, decoded), wanted[number])
            assert decoded.used_bytes <= decoded.limit_bytes
    opened._streams = None  # nothing else can be decoded
    opened._decoder = iter(())
    assert roomy.get(opened, 12) is not None
    assert tight.get(opened, 12) is None
    opened.close()
