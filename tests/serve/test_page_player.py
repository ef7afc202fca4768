# SPDX-License-Identifier: MIT
"""The player page in a real browser: plays, scrubs, steps, follows links; pixels are the decoder's."""

import asyncio
import base64
import io
import json
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sites import serving

import nervcodec
from nervcodec import metrics

pytestmark = pytest.mark.slow

CODING_LOSS_DB = 35
DRAWN = """selector => {
  const from = document.querySelector(selector);
  const canvas = document.createElement("canvas");
  canvas.width = from.naturalWidth || from.videoWidth;
  canvas.height = from.naturalHeight || from.videoHeight;
  canvas.getContext("2d").drawImage(from, 0, 0);
  return canvas.toDataURL("image/png");
}"""

# Seconds that are decoded beyond what is played, of the range in which that is.
AHEAD_S = """() => {
  const {buffered, currentTime} = document.querySelector("#video");
  const begun = [...Array(buffered.length).keys()].filter(i => buffered.start(i) <= currentTime);
  return Math.max(...begun.map(i => buffered.end(i))) - currentTime;
}"""


def pixels(view, selector):
    data = view.value(DRAWN, selector).partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def decoded(shelf: Path, name: str, number: int):
    with nervcodec.open(shelf / name) as video:
        return video[number]


def shown(view):
    return int(view.text("#frame"))


def stopped(view):
    """The frame at which it stops, once the browser has presented what was on its way."""
    view.key("k")
    view.page.wait_for_timeout(250)
    number = shown(view)
    view.frame(number)
    return number


def address_of(seconds):
    """Of a moment, as pages write it."""
    return f"t={math.ceil(1000 * seconds - 1e-3) / 1000:.3f}"


def test_plays_with_sound_and_stops_at_the_exact_frame(view, shelf):
    view.watch("bunny.nerv")
    view.until("document.querySelector('#video').buffered.length > 0")  # a little is fetched ahead
    begun = time.monotonic()
    view.key("k")
    view.until("document.querySelector('#exact').hidden")  # the browser presents moving pictures
    assert time.monotonic() - begun < 10
    assert view.value("document.querySelector('#play').getAttribute('aria-label')") == "Pause"
    view.until("document.querySelector('#video').currentTime > 0.7")
    assert view.value("document.querySelector('#video').webkitAudioDecodedByteCount") > 0
    number = stopped(view)
    assert number >= 10
    wanted = decoded(shelf, "bunny.nerv", number)
    assert metrics.psnr_db(pixels(view, "#exact"), wanted) > CODING_LOSS_DB
    assert (
        metrics.psnr_db(pixels(view, "#video"), wanted) > CODING_LOSS_DB
    )  # it was this one that the video had come to
    view.until(f"location.search === '?t={number / 25:.3f}'")


def test_comes_to_the_end_and_begins_again(view):
    view.watch("bunny.nerv?t=4.8")
    view.key("Space")
    view.frame(131)
    assert view.value("document.querySelector('#play').getAttribute('aria-label')") == "Play"
    view.key("Space")
    view.until("document.querySelector('#exact').hidden && document.querySelector('#video').currentTime < 2")
    view.key("ArrowRight")  # 5 s on while it plays: near the end
    view.frame(131)


def test_a_click_on_the_picture_plays_and_pauses(view):
    view.watch("uneven.nerv")
    view.page.click("#stage")
    view.until("document.querySelector('#video').currentTime > 0.2")
    view.page.click("#stage")
    assert view.value("document.querySelector('#play').getAttribute('aria-label')") == "Play"
    assert view.page.locator("#silent").is_visible()
    assert not view.page.locator("#mute").is_visible()


def test_keys_move_as_in_other_players(view):
    view.watch("bunny.nerv")
    moves = {".": 1, "ArrowRight": 126, "l": 131, ",": 130, "j": 0, "End": 131, "ArrowLeft": 6, "Home": 0}
    for key, frame in moves.items():
        view.key(key)
        view.frame(frame)
        assert shown(view) == frame
    view.key("ArrowDown", "ArrowDown")
    assert view.value("document.querySelector('#video').volume") == pytest.approx(0.8)
    view.key("m")
    assert view.value("document.querySelector('#video').muted")
    view.key("m", "ArrowUp")
    assert not view.value("document.querySelector('#video').muted")
    view.key("/")
    view.page.keyboard.type("k.")  # letters in a box are letters
    assert view.page.input_value("#query") == "k."
    assert shown(view) == 0
    view.key("Escape", "Escape", ".")  # empties the box, leaves it, moves
    assert shown(view) == 1
    view.key("f")
    view.until("document.fullscreenElement?.id === 'player'")
    view.key("f")
    view.until("document.fullscreenElement === null")
    view.key("?")
    assert view.page.locator("#keys").is_visible()
    view.key("Escape")
    assert not view.page.locator("#keys").is_visible()


@pytest.mark.parametrize("name", ["bunny.nerv", "uneven.nerv"])
def test_a_link_leads_to_its_frame(view, shelf, name):
    with nervcodec.open(shelf / name) as video:
        count, times = len(video), video.frame_times_s.tolist()
    for number in (0, 17, 30, 31, count - 2):
        view.watch(f"{name}?{address_of(times[number])}")
        assert shown(view) == number
    view.key(".")
    view.frame(count - 1)
    address = f"location.search === '?{address_of(times[-1])}'"
    view.until(address)
    assert metrics.psnr_db(pixels(view, "#exact"), decoded(shelf, name, count - 1)) > CODING_LOSS_DB
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
    assert shown(view) == 29
    view.key("k")
    view.until("Number(document.querySelector('#frame').textContent) >= 30")
    number = stopped(view)
    assert metrics.psnr_db(pixels(view, "#video"), decoded(shelf, "uneven.nerv", number)) > CODING_LOSS_DB


def test_one_frame(view, shelf):
    view.watch("one.nerv")
    view.key("k")
    view.until("document.querySelector('#play').getAttribute('aria-label') === 'Play'")
    view.key(".", ",", "End", "l")
    view.frame(0)
    assert metrics.psnr_db(pixels(view, "#exact"), decoded(shelf, "one.nerv", 0)) > CODING_LOSS_DB


def test_scrubbing_never_piles_up_and_ends_at_the_right_frame(view, shelf):
    view.watch("bunny.nerv")
    under_way, most = set(), [0]

    def begun(request):
        if "/frame/" in request.url:
            under_way.add(request)
            most[0] = max(most[0], len(under_way))

    view.page.on("request", begun)
    for end in ("requestfinished", "requestfailed"):
        view.page.on(end, lambda request: under_way.discard(request))
    before = len(view.asked)
    box = view.page.locator("#slider").bounding_box()
    middle = box["y"] + box["height"] / 2
    view.page.mouse.move(box["x"] + 8, middle)
    view.page.mouse.down()
    view.page.mouse.move(box["x"] + box["width"] * 0.75, middle, steps=60)
    view.page.mouse.up()
    wanted = view.value("Number(document.querySelector('#slider').value)") * 25
    number = shown(view)
    assert number == pytest.approx(wanted, abs=1)
    assert 90 < number < 105
    view.frame(number)
    assert most[0] == 1
    assert sum("/frame/" in address for address in view.asked[before:]) < 60
    assert metrics.psnr_db(pixels(view, "#exact"), decoded(shelf, "bunny.nerv", number)) > CODING_LOSS_DB


def slowly(app):
    """The same application, decoding at less than real time."""

    async def slow(scope, receive, send):
        if "/video/" in scope.get("path", ""):
            await asyncio.sleep(0.75)
        await app(scope, receive, send)

    return slow


@pytest.fixture
def slow_shop(shelf):
    with serving(shelf / "bunny.nerv", slowly) as running:
        yield f"http://127.0.0.1:{running.port}"


def test_slow_decoding_is_said(slow_shop, view):
    view.site = slow_shop
    view.go("/")  # of a single file it leads to the player
    view.until("!document.querySelector('#exact').hidden")
    assert view.value("location.pathname") == "/watch/bunny.nerv"
    view.key("k")
    view.until("/^Decoding … 0\\.\\d of real time$/.test(document.querySelector('#word').textContent)")
    view.until("document.querySelector('#exact').hidden && document.querySelector('#word').textContent === ''")
    for _ in range(60):  # with sound, Chromium's clock would run on for seconds without pictures
        assert view.value(AHEAD_S) > -0.05
        view.page.wait_for_timeout(30)


def test_sound_that_begins_late_and_ends_early_holds_nothing_up(view):
    """It lasts from 0.7 to 1.3 s of 3 s; a browser plays nothing where one of its tracks has a gap."""
    view.watch("beep.nerv")
    view.key("k")
    view.until("document.querySelector('#video').currentTime > 0.1")
    view.until("document.querySelector('#video').buffered.length === 1")
    view.frame(74)
    assert view.value("document.querySelector('#video').webkitAudioDecodedByteCount") > 0


def test_a_busy_server_is_asked_again_and_sound_may_fail(view):
    busy = {"frame": 1, "video": 2}

    def answered(route):
        kind = "frame" if "/frame/" in route.request.url else "video"
        busy[kind] -= 1
        if busy[kind] < 0:
            return route.continue_()
        return route.fulfill(status=503, json={"error": "busy"})

    view.page.route("**/frame/**", answered)
    view.page.route("**/video/*", answered)
    view.page.route("**/audio/*", lambda route: route.fulfill(status=409, json={"error": "it is damaged"}))
    view.watch("bunny.nerv")
    view.key("k")
    view.until("document.querySelector('#video').currentTime > 0.2 && document.querySelector('#exact').hidden")
    assert view.text("#note") == "The sound is left out: it is damaged"
    assert not view.page.locator("#mute").is_visible()
    assert all("503" in problem or "409" in problem for problem in view.problems)
    view.problems.clear()


def test_without_h264_frames_can_be_looked_at(view):
    view.page.add_init_script("MediaSource.isTypeSupported = () => false")
    view.watch("bunny.nerv")
    assert "plays no H.264" in view.text("#note")
    assert view.page.locator("#play").is_disabled()
    view.key("k", ".")
    view.frame(1)


def test_a_file_that_is_replaced_is_shown_anew_at_the_same_moment(view, shelf, tmp_path):
    shutil.copy(shelf / "bunny.nerv", tmp_path / "a.nerv")
    shutil.copy(shelf / "beep.nerv", tmp_path / "b.nerv")
    with serving(tmp_path) as running:
        view.site = f"http://127.0.0.1:{running.port}"
        view.watch("a.nerv?t=1.000")
        before = view.text("#facts")
        os.replace(tmp_path / "b.nerv", tmp_path / "a.nerv")
        view.key(".")
        view.until(f"document.querySelector('#facts').innerText !== {json.dumps(before)}")
        view.frame(26)
        assert metrics.psnr_db(pixels(view, "#exact"), decoded(tmp_path, "a.nerv", 26)) > CODING_LOSS_DB
    assert all("410" in problem for problem in view.problems)
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
