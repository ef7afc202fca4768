# SPDX-License-Identifier: MIT
"""The player page in a real browser: plays, seeks, steps, follows links; what it shows is what the decoder gives."""

import base64
import io
import json
import math
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sites import GOLDEN, changed, serving

import nervcodec
from nervcodec import metrics
from nervcodec.serve.transcode import code_piece
from nervcodec.worker import Worker

pytestmark = pytest.mark.slow

CODING_LOSS_DB = 35
DRAWN = """([width, height]) => {
  const from = document.querySelector("#video");
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").drawImage(from, 0, 0, width, height);
  return canvas.toDataURL("image/png");
}"""
TIME = "document.querySelector('#video').currentTime"
SOURCE = "document.querySelector('#video').getAttribute('src')"
NO_AV1 = """
  const canPlayType = HTMLMediaElement.prototype.canPlayType;
  HTMLMediaElement.prototype.canPlayType = function (type) {
    return /av01/.test(type) ? "" : canPlayType.call(this, type);
  };
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of its own for each test."""
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def here(tmp_path, view):
    """A folder with a server of its own, which the view looks at."""
    (tmp_path / "videos").mkdir()
    with serving(tmp_path / "videos") as running:
        view.site = f"http://127.0.0.1:{running.port}"
        yield tmp_path / "videos"
        view.page.goto("about:blank")  # it requests nothing more of a server that ends


def pixels(view, width, height):
    """What the video shows, scaled."""
    data = view.value(DRAWN, [width, height]).partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def decoded(folder: Path, name: str, number: int):
    with nervcodec.open(folder / name) as video:
        return video[number]


def shown(view):
    return int(view.text("#frame"))


def shows(view, folder, name, number):
    """Whether the video shows this frame rather than its neighbours."""
    view.frame(number)
    expected = decoded(folder, name, number)
    return metrics.psnr_db(pixels(view, *expected.shape[1::-1]), expected) > CODING_LOSS_DB


def address_of(seconds):
    """Of a moment, as pages write it."""
    return f"t={math.ceil(1000 * seconds - 1e-3) / 1000:.3f}"


def long(target: Path) -> Path:
    """A network of 50 frames, ten a second, which are five pieces; Chromium plays a stream from 20 frames on."""
    return changed(GOLDEN / "version3_street.nerv", target, frame_rate=(10, 1), duration_s=5.0)


def hold_up(monkeypatch, first: int) -> threading.Event:
    """Piece ``first`` is coded once the event is set."""
    call, go_on = Worker.call, threading.Event()

    def slow(worker, function, *arguments, **options):
        if function is code_piece and arguments[2] == first:
            go_on.wait(60)
        return call(worker, function, *arguments, **options)

    monkeypatch.setattr(Worker, "call", slow)
    return go_on


def stop(view):
    """Pause, and wait for the frame at which the page stops."""
    view.value("document.querySelector('#video').addEventListener('seeked', () => (window.stopped = true))")
    view.key("k")
    view.until("window.stopped && !document.querySelector('#video').seeking")


def test_plays_with_sound_and_stops_at_the_frame_on_show(view, shelf):
    view.watch("bunny.nerv")
    assert view.value(f"{SOURCE}.startsWith('/media/bunny.nerv.mp4?codec=base')")
    view.key("k")
    view.until(f"{TIME} > 0.7")
    assert view.value("document.querySelector('#video').webkitAudioDecodedByteCount") > 0
    stop(view)
    number = shown(view)
    assert number >= 10
    assert shows(view, shelf, "bunny.nerv", number)
    view.until(f"location.search === '?t={number / 25:.3f}'")


def test_seeks_and_steps_by_keys(view, shelf):
    view.watch("bunny.nerv")
    moves = {".": 1, "ArrowRight": 126, "l": 131, ",": 130, "j": 0, "End": 131, "ArrowLeft": 6, "Home": 0}
    for key, frame in moves.items():
        view.key(key)
        assert shows(view, shelf, "bunny.nerv", frame), key
    view.key("m")
    assert view.value("document.querySelector('#video').muted")
    view.key("/")
    view.page.keyboard.type("k.")  # letters in a box are letters
    assert view.page.input_value("#query") == "k."
    assert shown(view) == 0
    view.key("Escape", "Escape", ".")  # empties the box, leaves it, moves
    view.frame(1)
    view.key("f")
    view.until("document.fullscreenElement?.id === 'video'")
    view.key("f")
    view.until("document.fullscreenElement === null")
    view.key("?")
    assert view.page.locator("#keys").is_visible()
    view.key("Escape")
    assert not view.page.locator("#keys").is_visible()


def test_the_browsers_own_controls(view):
    """It plays, seeks, changes the speed and comes to the end by what the element itself offers."""
    view.watch("bunny.nerv")
    assert view.value("document.querySelector('#video').controls")
    view.value(f"{TIME} = 4.1")
    view.frame(102)
    view.value("document.querySelector('#video').playbackRate = 2")
    view.value("document.querySelector('#video').play()")
    view.frame(131)
    view.until("document.querySelector('#video').ended")
    view.key("k")
    view.until(f"{TIME} < 2")


@pytest.mark.parametrize("name", ["bunny.nerv", "uneven.nerv"])
def test_a_link_leads_to_its_frame(view, shelf, name):
    with nervcodec.open(shelf / name) as video:
        count, times = len(video), video.frame_times_s.tolist()
    for number in (0, 17, 30, 31, count - 2):
        view.watch(f"{name}?{address_of(times[number])}")
        assert shows(view, shelf, name, number)
    view.key(".")
    assert shows(view, shelf, name, count - 1)
    address = f"location.search === '?{address_of(times[-1])}'"
    view.until(address)
    view.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view.page.click("#link")
    view.until("document.querySelector('#note').textContent.includes('copied')")
    copied = view.value("navigator.clipboard.readText()")
    view.page.goto(copied)
    view.frame(count - 1)
    assert view.value(address)


def test_uneven_times_are_kept_while_it_plays(view, shelf):
    """Frames 30 and 31 stand for more than half a second each."""
    view.watch("uneven.nerv?t=1.6")
    view.frame(29)
    view.key("k")
    view.until("Number(document.querySelector('#frame').textContent) >= 30")
    stop(view)
    assert shows(view, shelf, "uneven.nerv", shown(view))


def test_one_frame(view, shelf):
    view.watch("one.nerv")
    view.key(".", ",", "End", "l")
    assert shows(view, shelf, "one.nerv", 0)


def test_sound_that_begins_late_and_ends_early_holds_nothing_up(view):
    """It lasts from 0.7 to 1.3 s of 3 s."""
    view.watch("beep.nerv")
    view.key("k")
    view.frame(74)
    assert view.value("document.querySelector('#video').webkitAudioDecodedByteCount") > 0


def test_a_network_plays_while_it_is_coded_and_goes_on_with_the_whole_file(view, here, monkeypatch):
    """Coding is held up before the last piece, until the stream has played."""
    long(here / "long.nerv")
    go_on = hold_up(monkeypatch, 40)
    view.watch("long.nerv")
    assert "/frame/long.nerv/0?" in view.value("document.querySelector('#video').poster")
    assert not [address for address in view.asked if "/media/" in address]  # nothing is coded before it is played
    view.key("k")
    view.until("document.querySelector('#video').buffered.length")
    view.until("document.querySelector('#video').buffered.end(0) > 3.85")  # all that is coded
    view.until(f"{TIME} > 1.2")
    assert view.value(f"{SOURCE}.includes('from=0')")
    assert view.page.locator("#slider").is_visible()
    view.until("document.querySelector('#note').textContent === 'Preparing to play: 80 %'")
    moment = view.value(TIME)
    go_on.set()
    view.until(f"!{SOURCE}.includes('from=')")
    view.until("document.querySelector('#video').readyState > 1")
    assert view.value(TIME) > moment - 0.5
    assert not view.page.locator("#slider").is_visible()
    assert view.text("#note") == ""
    view.frame(49)  # it continues to play, to the end
    view.key("Home")
    assert shows(view, here, "long.nerv", 0)


def test_a_seek_to_what_is_not_coded_shows_the_frame_and_plays_from_there(view, here, monkeypatch):
    """Two seeks, one right after the other: a stream begins at the second."""
    long(here / "long.nerv")
    go_on = hold_up(monkeypatch, 30)
    view.watch("long.nerv")
    view.key("k")
    view.until(f"{TIME} > 0.1")
    view.value(
        """for (const seconds of [4.51, 3.31]) {
          const slider = document.querySelector("#slider");
          slider.value = String(seconds);
          slider.dispatchEvent(new Event("input"));
        }"""
    )
    view.until("document.querySelector('#video').poster.includes('/frame/long.nerv/33?')")
    view.until(f"{SOURCE}?.includes('from=33')")
    go_on.set()
    view.until(f"{TIME} > 3.5")
    requests = [address for address in view.asked if "from=" in address]
    assert [address.partition("from=")[2].partition("&")[0] for address in requests] == ["0", "33"]
    view.frame(49)


def test_a_browser_without_av1_gets_h264(view, here, layered_nerv):
    shutil.copy(layered_nerv, here / "a.nerv")
    view.watch("a.nerv")
    assert "codec=base" in view.value(SOURCE)
    view.page.add_init_script(NO_AV1)
    view.watch("a.nerv?t=1.0")
    assert "codec=avc" in view.value(SOURCE)
    view.key("k")
    view.until(f"!{SOURCE}.includes('from=')")
    view.frame(59)
    view.frame(59)


def test_an_error_of_the_video_leads_to_h264(view, here, layered_nerv):
    """A browser may say that it plays a codec and then not do so."""
    shutil.copy(layered_nerv, here / "a.nerv")
    view.page.route(
        "**/media/a.nerv.mp4?codec=base*", lambda route: route.fulfill(body=b"no video", content_type="video/mp4")
    )
    view.watch("a.nerv?t=1.0")
    view.until(f"{SOURCE}.includes('codec=avc')")
    view.key("k")
    view.until(f"!{SOURCE}.includes('from=')")
    view.frame(59)


def test_a_browser_that_plays_no_stream_waits_for_the_whole_file(view, here):
    """As Safari, which asks for ranges."""
    long(here / "long.nerv")
    view.page.route("**/media/long.nerv.mp4?codec=avc&from*", lambda route: route.fulfill(status=404))
    view.watch("long.nerv?t=2.0")
    view.key("k")
    view.until(f"{SOURCE}?.includes('codec=avc&version')")
    view.frame(49)
    assert all("404" in problem for problem in view.problems)
    view.problems.clear()


def test_a_file_that_was_coded_meanwhile_is_played_whole(view, here):
    """The server refuses a stream of it."""
    long(here / "long.nerv")
    view.watch("long.nerv?t=2.0")
    view.page.request.get(f"{view.site}/media/long.nerv.mp4")
    view.key("k")
    view.until(f"{SOURCE}?.includes('codec=avc&version')")
    view.frame(49)
    assert all("400" in problem for problem in view.problems)
    view.problems.clear()


def test_a_clip_is_saved_and_a_frame_previewed(view, here, monkeypatch):
    long(here / "long.nerv")
    go_on = hold_up(monkeypatch, 10)
    view.watch("long.nerv?t=2.0")
    view.until("document.querySelector('#save').getAttribute('href')?.includes('start=2.000&stop=5.000')")
    with view.page.expect_download() as download:
        view.page.locator("#save").click()
    assert download.value.suggested_filename == "long 2.0-5.0.mp4"
    view.key("k")
    view.until("document.querySelector('#growing').offsetHeight")
    view.page.locator("#axis").hover(position={"x": 400, "y": 10})
    view.until("!document.querySelector('#preview').hidden && document.querySelector('#preview').naturalWidth")
    go_on.set()


def test_a_browser_that_plays_nothing_shows_frames(view):
    view.page.add_init_script("HTMLMediaElement.prototype.canPlayType = () => ''")
    view.go("/watch/bunny.nerv")
    view.until("document.querySelector('#note').textContent.includes('cannot play')")
    view.key(".", ".")
    view.until("document.querySelector('#video').poster.includes('/frame/bunny.nerv/2?')")


def test_hdr_is_tone_mapped_on_a_screen_without_it(view, here, bikes):
    """Of a base layer in HDR the browser gets the H.264 that is made of tone-mapped frames."""
    nervcodec.encode(bikes, here / "a.nerv", base="av1", crf=40, encoder="none", duration_s=0.4)
    with nervcodec.open(here / "a.nerv"):
        pass
    view.page.route("**/api/file/a.nerv", lambda route: marked(route))

    def marked(route):
        file = route.fetch().json()
        file["media"][0]["hdr"] = True
        route.fulfill(json=file)

    view.watch("a.nerv")
    assert "codec=avc" in view.value(SOURCE)


def test_a_killed_decoder_is_said(view, here, monkeypatch):
    long(here / "long.nerv")
    call = Worker.call

    def killed(worker, function, *arguments, **options):
        if function is code_piece and arguments[2] == 20:
            return call(worker, os.abort)
        return call(worker, function, *arguments, **options)

    monkeypatch.setattr(Worker, "call", killed)
    view.watch("long.nerv")
    view.key("k")
    view.until("document.querySelector('#note').textContent.includes('crashed')")
    monkeypatch.setattr(Worker, "call", call)
    view.key("Home", "k")
    view.until(f"{SOURCE} !== null && !{SOURCE}.includes('from=')")
    view.problems.clear()


def test_a_file_that_is_replaced_is_loaded_again_at_the_same_moment(view, shelf, here):
    shutil.copy(shelf / "bunny.nerv", here / "a.nerv")
    shutil.copy(shelf / "beep.nerv", here / "b.nerv")
    view.watch("a.nerv?t=1.000")
    before = view.text("#facts")
    os.replace(here / "b.nerv", here / "a.nerv")
    view.page.fill("#query", "dog")
    view.key("Enter")
    view.value("import('/static/api.js').then((api) => api.fitOverTime('a.nerv', [['add', 'dog']]).catch(() => 0))")
    view.until(f"!['', {json.dumps(before)}].includes(document.querySelector('#facts').innerText)")
    view.until("document.querySelector('#main.ready') && document.querySelector('#video').readyState > 1")
    assert shows(view, here, "a.nerv", 25)
    view.problems.clear()


@pytest.mark.parametrize(
    ("address", "title", "status"),
    [("old/cut%20short.nerv", "This file cannot be shown", 409), ("gone.nerv", "Not found", 404)],
)
def test_what_cannot_be_shown_is_said(view, address, title, status):
    view.go(f"/watch/{address}")
    view.until("document.querySelector('.unplayable h2') !== null")
    assert view.text(".unplayable h2") == title
    assert ("damaged" if status == 409 else "there is no gone.nerv") in view.text("main").lower()
    assert all(str(status) in problem for problem in view.problems)
    view.problems.clear()
    view.page.click("text=To all files")
    view.until("document.querySelectorAll('.card').length === 6")


@pytest.mark.parametrize(("width", "height"), [(1366, 650), (390, 844), (844, 390)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_tall_video_fits(look, shelf, here, ffmpeg, bikes, tmp_path, width, height, scheme):
    """Picture, time line and buttons are on the screen, with the curve of a query between them."""
    ffmpeg("-i", bikes, "-vf", "crop=ih*9/16:ih", "-frames:v", "10", "-pix_fmt", "yuv420p", tmp_path / "tall.mp4")
    nervcodec.encode(tmp_path / "tall.mp4", here / "tall.nerv", base="copy", encoder="offline")
    tall = look(width, height, color_scheme=scheme)
    with serving(here) as running:
        tall.site = f"http://127.0.0.1:{running.port}"
        tall.watch("tall.nerv?q=bicycle")
        tall.until("!document.querySelector('#fitting').hidden")
        for selector in ("#video", "#fit", "#back", "#link"):
            box = tall.page.locator(selector).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] + box["height"] <= height, selector
        box = tall.page.locator("#video").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(9 / 16, rel=0.03)
        assert box["height"] > 0.3 * height
        brightness = tall.value("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0]")
        assert (brightness < 80) == (scheme == "dark")
