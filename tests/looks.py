# SPDX-License-Identifier: MIT
"""Small real containers, and a browser that looks at pages of them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sites import GRID, serving

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--mute-audio"]


@pytest.fixture(scope="session")
def shelf(bikes, bunny, ffmpeg, tmp_path_factory) -> Path:
    """Containers of each kind; the newest is face.nerv."""
    import nervcodec

    folder, sources = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("sources")
    kept = {"base": "copy", "encoder": "none"}
    nervcodec.encode(bunny, folder / "bunny.nerv", **kept)
    coded = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0"]
    uneven = "select='lt(n,30)+eq(n,45)+eq(n,60)+between(n,81,99)'"
    ffmpeg("-i", bikes, "-vf", uneven, "-fps_mode", "vfr", *coded, sources / "uneven.mkv")
    nervcodec.encode(sources / "uneven.mkv", folder / "uneven.nerv", **kept)
    tone = ["-itsoffset", "0.7", "-f", "lavfi", "-t", "0.6", "-i", "sine=sample_rate=44100"]
    ffmpeg("-i", bikes, *tone, "-map", "0:v", "-map", "1:a", "-t", "3", *coded, "-c:a", "aac", sources / "beep.mkv")
    nervcodec.encode(sources / "beep.mkv", folder / "beep.nerv", **kept)
    ffmpeg("-i", bikes, "-frames:v", "1", *coded, sources / "one.mkv")
    nervcodec.encode(sources / "one.mkv", folder / "one.nerv", **kept)
    (folder / "old").mkdir()
    whole = GRID.read_bytes()
    (folder / "old" / "cut short.nerv").write_bytes(whole[:9000])
    (folder / "face.nerv").write_bytes(whole)
    names = ("bunny.nerv", "beep.nerv", "uneven.nerv", "one.nerv", "old/cut short.nerv", "face.nerv")
    for age, name in enumerate(reversed(names)):
        os.utime(folder / name, (1_700_000_000 - age, 1_700_000_000 - age))
    return folder


@pytest.fixture(scope="module")
def shop(shelf) -> Iterator[str]:
    """The address of a server for all of the shelf."""
    with serving(shelf) as running:
        yield f"http://127.0.0.1:{running.port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the tests of a module."""
    if BROWSER is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield chromium
        chromium.close()


class View:
    """A page in the browser, and what it did that it should not.

    Attributes:
        page: Playwright's.
        problems: messages of its console and errors of its scripts.
        asked: addresses of its requests.
    """

    def __init__(self, page: Any, site: str):
        self.page, self.site = page, site
        self.problems: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def go(self, address: str) -> View:
        """Open an address of the site and wait for its first picture, or for what is said in place of one."""
        self.page.goto(self.site + address)
        return self

    def watch(self, address: str) -> View:
        """Open a file and wait until it shows a picture."""
        self.go(f"/watch/{address}")
        self.until(
            "document.querySelector('#main.ready') && (document.querySelector('#video').readyState > 1"
            " || document.querySelector('#video').preload === 'none')"
        )
        return self

    def value(self, expression: str, argument: Any = None) -> Any:
        """What a script says."""
        return self.page.evaluate(expression, argument)

    def until(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression is true; the page's policy forbids Playwright's own way."""
        end = time.monotonic() + seconds
        while not self._holds(expression):
            assert time.monotonic() < end, f"still not: {expression}"
            self.page.wait_for_timeout(20)

    def _holds(self, expression: str) -> bool:
        from playwright.sync_api import Error

        try:
            return bool(self.page.evaluate(expression))
        except Error:  # one page is just giving way to another
            return False

    def frame(self, number: int) -> None:
        """Wait until the page has come to this frame and shows it."""
        self.until(
            f"document.querySelector('#frame').textContent === '{number}'"
            " && (document.querySelector('#video').readyState > 1 && !document.querySelector('#video').seeking"
            f" || document.querySelector('#video').poster.includes('/{number}?'))"
        )

    def key(self, *names: str) -> None:
        """Press keys."""
        for name in names:
            self.page.keyboard.press(name)

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.page.inner_text(selector)


@pytest.fixture
def look(browser, shop) -> Iterator[Callable[..., View]]:
    """Opens a view: ``look(width=360, height=740, site=address, **options of a browser context)``.

    Checks at the end that no view reported a problem or requested another host.
    """
    views: list[View] = []

    def open_view(width: int = 1280, height: int = 800, site: str = shop, **options: Any) -> View:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        view = View(context.new_page(), site)
        views.append(view)
        return view

    yield open_view
    for view in views:
        view.page.context.close()
    for view in views:
        assert view.problems == [], view.problems
        hosts = {urlsplit(address).netloc for address in view.asked if not address.startswith(("blob:", "data:"))}
        assert hosts <= {urlsplit(view.site).netloc}


@pytest.fixture
def view(look) -> View:
    """One view of a desktop's size."""
    return look()
