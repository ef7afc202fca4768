# SPDX-License-Identifier: MIT
"""Library, search and inspection in a real browser."""

import http.client
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from PIL import ImageColor
from sites import GOLDEN, serving

import nervcodec

pytestmark = pytest.mark.slow

RESULTS = """() => [...document.querySelectorAll("a.moment")].map(link => ({
  frame: Number(link.querySelector("img").alt.match(/\\d+/)[0]),
  score: link.querySelector(".score").getAttribute("aria-label").match(/[\\d.]+/)[0],
  box: ["left", "top", "width", "height"].map(side => parseFloat(link.querySelector(".outline").style[side])),
}))"""
# Of each visible text: its colour, and the colours behind it from the nearest outwards, until one hides the rest.
TEXTS = """() => {
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const own = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !own.checkVisibility({visibilityProperty: true})) continue;
    if (own.closest(".hidden, svg, :disabled")) continue;
    const behind = [];
    for (let e = own; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      behind.push(colour);
      if (/^rgb\\(/.test(colour)) break;
    }
    found.push([walk.currentNode.textContent.trim().slice(0, 40), getComputedStyle(own).color, behind]);
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll("button, a, input, [role=tab], [tabindex='0']")]
  .filter(e => e.checkVisibility() && !e.labels?.length && !e.innerText?.trim())
  .filter(e => !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby"))
  .map(e => e.outerHTML)"""
TOO_WIDE = """() => document.documentElement.scrollWidth > innerWidth ||
  [...document.querySelectorAll("button, input, a")].filter(e => e.checkVisibility() && !e.closest(".scope"))
    .some(e => e.getBoundingClientRect().right > innerWidth + 1)"""
FOUND = "document.querySelectorAll('a.moment').length > 0"


def searched(view, text):
    view.page.fill("#query", text)
    view.key("Enter")


@contextmanager
def proxy(port, prefix, strips):
    """A reverse proxy below a prefix, which it strips or passes on; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if not self.path.startswith(prefix):
                return self.send_error(404)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request(
                "GET", self.path.removeprefix(prefix) or "/" if strips else self.path, headers=self.headers
            )
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name not in ("transfer-encoding", "connection", "date"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def luminance(colour):
    channels = [value / 255 for value in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(text, behind):
    """Of colours as browsers compute them; what is behind may let through what is behind it."""
    under = (255, 255, 255)
    for colour in reversed(behind):
        red, green, blue, *alpha = ImageColor.getrgb(colour) if colour.startswith("rgb(") else transparent(colour)
        share = alpha[0] if alpha else 1.0
        under = tuple(share * new + (1 - share) * old for new, old in zip((red, green, blue), under, strict=True))
    light, dark = sorted((luminance(ImageColor.getrgb(text)), luminance(under)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def transparent(colour):
    return [float(part) for part in colour.removeprefix("rgba(").rstrip(")").split(",")]


def test_library_shows_each_file_newest_first(view, shelf):
    view.go("/")
    view.until("document.querySelectorAll('.card').length === 6")
    view.until("[...document.querySelectorAll('.card .name')].every(name => name.innerText)")
    names = view.page.locator(".card .name").all_inner_texts()
    assert names == ["face.nerv", "cut short.nerv", "one.nerv", "uneven.nerv", "beep.nerv", "bunny.nerv"]
    assert "cut short" in view.text(".card.damaged .reason")
    assert view.page.locator(".card.damaged a").count() == 0
    whole = view.text(".card:last-child")
    assert "1280 × 720" in whole
    assert "0:05" in whole
    assert "sound" in whole
    assert "not searchable" in whole
    assert "88 × 72" in view.text(".card:first-child")
    view.until("[...document.querySelectorAll('.card img')].every(i => i.complete && i.naturalWidth === 320)")
    view.page.fill("#filter", "UNeven")
    view.until("document.querySelectorAll('.card').length === 1")
    view.until("location.search === '?name=UNeven'")
    view.page.fill("#filter", "zebra")
    view.until("document.querySelector('#state').textContent === 'No name contains “zebra”.'")
    view.page.fill("#filter", "one")
    view.page.click(".card a")
    view.frame(0)
    assert view.value("location.pathname") == "/watch/one.nerv"


def test_files_are_sorted_and_one_frame_says_so(view):
    view.go("/")
    view.until("document.querySelectorAll('.card').length === 6")
    view.until("[...document.querySelectorAll('.card .length')].some(length => length.innerText === '1 frame')")
    view.page.select_option("#sort", "name")
    names = "[...document.querySelectorAll('.card .name')].map(name => name.textContent).join()"
    view.until(f"{names} === 'beep.nerv,bunny.nerv,cut short.nerv,face.nerv,one.nerv,uneven.nerv'")
    view.until("location.search === '?sort=name'")
    view.page.select_option("#sort", "length")
    view.until(f"{names}.startsWith('bunny.nerv')")


def test_a_folder_is_entered_and_searched(look, shelf, tmp_path):
    (tmp_path / "trips" / "2024").mkdir(parents=True)
    shutil.copy(shelf / "face.nerv", tmp_path / "face.nerv")
    shutil.copy(shelf / "face.nerv", tmp_path / "trips" / "2024" / "a.nerv")
    with serving(tmp_path) as running:
        view = look(site=f"http://127.0.0.1:{running.port}")
        view.go("/?q=suit")
        view.until("document.querySelector('a.moment .also') !== null")
        assert view.text("a.moment .also") in ("also in trips/2024/a.nerv", "also in face.nerv")
        view.page.click("text=trips")
        view.until("location.search === '?folder=trips&q=suit'")
        view.until("document.querySelectorAll('.card').length === 1")
        view.until(FOUND)
        assert set(view.page.locator("a.moment .name").all_inner_texts()) == {"a.nerv"}
        view.page.click(".folders >> text=2024")
        view.until("document.querySelector('#folder').textContent.endsWith(' / trips / 2024')")
        view.page.go_back()
        view.until("document.querySelector('#folder').textContent.endsWith(' / trips')")
        view.page.click("#folder a")
        view.until("document.querySelectorAll('.card').length === 2")
        view.page.goto("about:blank")  # before the server ends


def test_new_files_appear_on_focus(look, shelf, tmp_path):
    shutil.copy(shelf / "face.nerv", tmp_path / "a.nerv")
    with serving(tmp_path) as running:
        view = look(site=f"http://127.0.0.1:{running.port}")
        view.go("/")
        view.until("document.querySelectorAll('.card').length === 1")
        shutil.copy(shelf / "face.nerv", tmp_path / "b.nerv")
        view.value("dispatchEvent(new Event('focus'))")
        view.until("document.querySelectorAll('.card').length === 2")
        (tmp_path / "a.nerv").unlink()
        view.value("dispatchEvent(new Event('focus'))")
        view.until("document.querySelector('#state').textContent === '1 file'")
        view.page.goto("about:blank")  # before the server ends


@pytest.mark.parametrize("strips", [True, False])
def test_the_page_works_below_the_path_of_a_proxy(look, shelf, strips):
    prefix = "/video/nervcodec"
    with serving(shelf, root_path=prefix) as running, proxy(running.port, prefix, strips) as outer:
        view = look(site=f"http://127.0.0.1:{outer}")
        view.go(prefix)
        view.until("document.querySelectorAll('.card').length === 6")
        view.until("[...document.querySelectorAll('.card img')].every(i => i.complete && i.naturalWidth === 320)")
        searched(view, "suit")
        view.until(FOUND)
        view.until(f"location.pathname === '{prefix}/' && location.search === '?q=suit'")
        view.page.click("a.moment")
        view.until(
            f"location.pathname === '{prefix}/watch/face.nerv' && document.querySelectorAll('a.moment').length > 0"
        )
        view.until("document.querySelector('#main.ready') !== null")
        view.go(f"{prefix}/watch/bunny.nerv")
        view.until("document.querySelector('#main.ready') !== null")
        view.key("k")
        view.until("Number(document.querySelector('#frame').textContent) > 5")
        view.page.click(".brand")
        view.until(f"location.pathname === '{prefix}/'")
        view.page.goto("about:blank")  # before the server ends
        assert all(urlsplit(address).path.startswith(prefix) for address in view.asked if address.startswith("http"))


def test_hundreds_of_files_come_as_one_scrolls(view, shop):
    first = view.page.request.get(f"{shop}/api/files?limit=1").json()["files"][0]

    def many(route):
        offset = int(route.request.url.partition("offset=")[2].partition("&")[0])
        files = [{**first, "path": "face.nerv", "name": f"{n}.nerv"} for n in range(offset, min(offset + 60, 500))]
        route.fulfill(json={"folder": "many", "folders": [], "newest": 1, "total": 500, "files": files})

    view.page.route("**/api/files?*", many)
    view.go("/")
    view.until("document.querySelectorAll('.card').length === 60")
    assert view.text("#state") == "500 files"
    view.page.mouse.wheel(0, 100_000)
    view.until("document.querySelectorAll('.card').length >= 120")
    asked = [address for address in view.asked if "/api/files" in address]
    assert len(asked) == view.value("document.querySelectorAll('.card').length") / 60


def test_an_empty_folder_says_so(view):
    nothing = {"folder": "videos", "folders": [], "newest": 0, "total": 0, "files": []}
    view.page.route("**/api/files?*", lambda route: route.fulfill(json=nothing))
    view.go("/")
    view.until("document.querySelector('#state').textContent.includes('no .nerv files')")


def test_search_finds_what_the_command_finds_and_goes_there(view, shelf):
    with nervcodec.open(shelf / "face.nerv") as video:
        wanted = video.search("suit", k=24)
        size = video.header.video.width, video.header.video.height
    view.watch("face.nerv")
    searched(view, "a suit")
    view.until(FOUND)
    results = view.value(RESULTS)
    assert [(r["frame"], r["score"]) for r in results] == [(m.frame, f"{m.score:.3f}") for m in wanted]
    x, y, w, h = wanted[0].box
    fractions = [100 * x / size[0], 100 * y / size[1], 100 * w / size[0], 100 * h / size[1]]
    assert results[0]["box"] == pytest.approx(fractions, abs=0.01)
    view.until("document.querySelector('#fit .line.above') !== null")
    assert view.value("document.querySelector('#fit').getAttribute('aria-label')").startswith("How well “a suit” fits")
    view.page.click("li:last-child > a.moment")
    view.frame(wanted[-1].frame)
    view.until("new URLSearchParams(location.search).get('q') === 'a suit'")
    view.until("document.querySelectorAll('#shades rect').length > 0")
    assert view.value("Number(document.querySelector('#shades rect').getAttribute('fill-opacity'))") > 0.1
    view.page.click("#shade")
    view.until("document.querySelectorAll('#shades rect').length === 0")


def test_a_link_with_a_query_asks_it_and_goes_to_the_best(view, shelf):
    with nervcodec.open(shelf / "face.nerv") as video:
        best = video.search("suit")[0].frame
    view.watch("face.nerv?q=suit&minus=tree")
    view.until(FOUND)
    assert view.page.input_value("#query") == "suit - tree"
    view.watch("face.nerv?q=suit")
    view.until(FOUND)
    view.frame(best)
    view.watch("face.nerv?q=suit&t=0.09")
    view.until(FOUND)
    view.frame(2)


def test_the_query_stays_in_the_box_and_can_be_corrected(view):
    view.watch("face.nerv")
    searched(view, "siut")
    view.until("document.querySelector('.answer').textContent.includes('siut')")
    assert view.page.input_value("#query") == "siut"
    searched(view, "suit + person - tree")
    asked = "new URLSearchParams(location.search)"
    view.until(f"{asked}.getAll('q').join() === 'suit,person' && {asked}.get('minus') === 'tree'")
    assert any("add=suit&add=person&subtract=tree" in address for address in view.asked)
    assert view.page.input_value("#query") == "suit + person - tree"
    searched(view, "- tree")
    view.until("document.querySelector('.answer').textContent.startsWith('Add a text as well')")
    searched(view, "")
    view.until("!location.search.includes('minus')")
    assert view.page.locator("a.moment").count() == 0


@pytest.mark.parametrize("address", ["/?sort=name", "/watch/face.nerv"])
def test_back_undoes_a_search(view, address):
    view.go("/?name=face")
    view.go(address)
    for text in ("suit", "suit + person"):
        searched(view, text)
        view.until(FOUND)
        view.until(f"new URLSearchParams(location.search).getAll('q').join(' + ') === '{text}'")
    view.page.go_back()
    view.until("document.querySelector('#query').value === 'suit'")
    view.until(FOUND)
    assert "q=suit" in view.value("location.search")
    assert "person" not in view.value("location.search")
    view.page.go_back()
    view.until("document.querySelector('#query').value === '' && !location.search.includes('q=')")
    assert view.page.locator("a.moment").count() == 0
    view.page.go_forward()
    view.until("document.querySelector('#query').value === 'suit'")
    view.until(FOUND)
    view.page.go_back()
    view.until("document.querySelector('#query').value === ''")
    view.page.go_back()
    view.until("location.search === '?name=face'")


def test_a_result_shows_start_length_and_a_bar(view, shelf):
    with nervcodec.open(shelf / "face.nerv") as video:
        moments = video.search("suit", k=24)
    view.watch("face.nerv")
    searched(view, "suit")
    view.until(FOUND)
    assert view.page.locator("a.moment .when").all_inner_texts() == [f"0:{m.start_s:04.1f}" for m in moments]
    lengths = [m.end_s - m.start_s for m in moments]
    assert view.page.locator("a.moment .length").all_inner_texts() == [
        "< 0.1 s" if s < 0.05 else f"{s:.1f} s" for s in lengths
    ]
    widths = view.value("[...document.querySelectorAll('.score span')].map(bar => parseFloat(bar.style.width))")
    assert widths == pytest.approx([max(2, 100 * m.score / moments[0].score) for m in moments], abs=0.01)


def test_keys_go_to_the_next_and_previous_result(look, tmp_path):
    shutil.copy(GOLDEN / "version3_street.nerv", tmp_path / "street.nerv")
    with serving(tmp_path) as running:
        view = look(site=f"http://127.0.0.1:{running.port}")
        view.watch("street.nerv?q=car&t=0")
        view.until(FOUND)
        frames = [result["frame"] for result in view.value(RESULTS)]
        assert len(frames) > 2
        for key, number in ("n", 0), ("n", 1), ("n", 2), ("p", 1), ("p", 0), ("p", 0):
            view.key(key)
            view.frame(frames[number])
        view.go("/?q=car")
        view.until(FOUND)
        view.key("n", "n", "p", "Enter")
        view.until("location.pathname === '/watch/street.nerv'")
        view.page.goto("about:blank")  # before the server ends


def test_nothing_matches_looks_like_an_answer(view):
    view.watch("face.nerv")
    searched(view, "an elephant")
    view.until("document.querySelector('.answer.nothing') !== null")
    assert view.text(".answer.nothing .strong") == "Nothing certain for “an elephant”."
    assert "Nearest: face.nerv 0:0" in view.text(".answer.nothing")


def test_more_like_a_patch_by_keyboard_only(view):
    view.watch("face.nerv?t=0.19")
    for _ in range(30):
        view.key("Tab")
        if view.value("document.activeElement.textContent") == "Like a patch …":
            break
    view.key("Enter")
    assert view.page.locator("#picker button").count() == 2
    view.key("ArrowLeft", "ArrowRight", "Enter")
    view.until(FOUND)
    view.until("new URLSearchParams(location.search).get('like') === 'face.nerv:5:0:1'")
    assert view.value(RESULTS)[0] == {"frame": 5, "score": "1.000", "box": [50, 0, 50, 100]}
    view.key("Tab", "Tab")
    assert view.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_what_cannot_be_searched_says_why_and_all_files_can(view):
    view.watch("bunny.nerv")
    searched(view, "suit")
    view.until("document.querySelector('.answer.refused')?.textContent.includes('without embeddings') === true")
    view.page.click("label[for=everywhere]")
    view.until(FOUND)
    view.page.click("a.moment")
    view.until("location.pathname === '/watch/face.nerv' && document.querySelector('#main.ready') !== null")


def test_search_over_all_files(view):
    view.go("/")
    searched(view, "suit")
    view.until(FOUND)
    assert set(view.page.locator("a.moment .name").all_inner_texts()) == {"face.nerv"}
    view.until("location.search === '?q=suit'")
    view.page.click("a.moment")
    view.until("location.pathname === '/watch/face.nerv' && document.querySelectorAll('a.moment').length > 0")


def test_inspection_adds_up(view, shelf):
    view.watch("face.nerv")
    view.page.click("#tab-inspect")
    size = (shelf / "face.nerv").stat().st_size
    assert f"{size / 1000:.1f} KB" in view.text(".parts tfoot")
    wide = "[...document.querySelectorAll('.bar span')].reduce((sum, s) => sum + Number(s.style.flexGrow), 0)"
    assert view.value(wide) == pytest.approx(1)
    assert "offline" in view.text(".settings")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names(look, scheme):
    view = look(color_scheme=scheme)
    for address, ready in {
        "/?q=suit": f"{FOUND} && document.querySelectorAll('.card').length === 6",
        "/watch/face.nerv?q=suit&minus=tree": FOUND,
        "/watch/face.nerv?q=elephant": "document.querySelector('.answer.nothing') !== null",
        "/watch/bunny.nerv?q=suit": "document.querySelector('.answer.refused') !== null",
    }.items():
        view.go(address)
        view.until(ready)
        for tab in ("#tab-inspect", "#help") if "watch" in address else ():
            texts = view.value(TEXTS)
            assert len(texts) > 10
            assert {text: found for text, *colours in texts if (found := contrast(*colours)) < 4.5} == {}
            assert view.value(NAMELESS) == []
            view.page.click(tab)
        texts = view.value(TEXTS)
        assert {text: found for text, *colours in texts if (found := contrast(*colours)) < 4.5} == {}
        assert view.value(NAMELESS) == []


def test_a_phone_needs_no_scrolling_sideways(look):
    view = look(360, 740, has_touch=True, is_mobile=True)
    for address in (
        "/?q=suit",
        "/watch/face.nerv?q=suit&minus=a+rather+long+text+that+is+subtracted",
        "/watch/bunny.nerv",
    ):
        view.go(address)
        view.until(FOUND if "?" in address else "document.querySelector('#main.ready') !== null")
        assert not view.value(TOO_WIDE)
    view.page.tap("#tab-inspect")
    assert not view.value(TOO_WIDE)
    view.page.tap("#forth")
    view.frame(1)
