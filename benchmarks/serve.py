# SPDX-License-Identifier: MIT
"""The page's server: when a video begins to play in Chromium, how soon it shows another moment, for how many viewers.

    python benchmarks/serve.py FOLDER     makes containers in FOLDER where they are not there yet

Containers: ten seconds of 1280 x 640 as a network alone and as a base layer of AV1 with sound, and an hour of copied
H.264 of 480 x 240. The command runs in a process of its own, new for each part, with an empty media cache. "First
moving picture" is from the page's ``play()`` to the second picture that Chromium presents. Memory is the sum of the
proportional set sizes of all processes of the server. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from end_to_end import clip
from machine import print_rows, save

import nervcodec

COMMAND = str(Path(sys.executable).with_name("nervcodec"))
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
SEEKS, VIEWERS, EACH, HOUR_S = 40, 20, 10, 3_600
# Milliseconds from play() to the second picture that is presented.
FIRST = """() => new Promise((done) => {
  const video = document.querySelector("#video");
  const begun = performance.now();
  let pictures = 0;
  const presented = () =>
    ++pictures > 1 ? done(performance.now() - begun) : video.requestVideoFrameCallback(presented);
  video.requestVideoFrameCallback(presented);
  video.play();
})"""
# Milliseconds from setting currentTime to the picture of that moment.
SEEK = """(seconds) => new Promise((done) => {
  const video = document.querySelector("#video");
  const begun = performance.now();
  video.requestVideoFrameCallback(() => done(performance.now() - begun));
  video.currentTime = seconds;
})"""
OPENED = "document.querySelector('#main.ready') && document.querySelector('#video').getAttribute('src')"
WHOLE = "!document.querySelector('#video').src.includes('from=') && document.querySelector('#video').readyState > 1"


def make(folder: Path) -> dict[str, Path]:
    """The containers, by what they are called in the table."""
    folder.mkdir(parents=True, exist_ok=True)
    source, settings = clip("bigbuckbunny.mp4"), {"encoder": "offline", "crop": (640, 1280)}
    files = {
        "network, 10 s": folder / "network.nerv", "AV1, 10 s": folder / "av1.nerv", "copy, 1 h": folder / "hour.nerv",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        ten, hour = Path(place) / "ten.mkv", Path(place) / "hour.mkv"
        loop = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-stream_loop"]
        if not files["AV1, 10 s"].exists():
            tone = ["-f", "lavfi", "-i", "sine=frequency=440", "-map", "0:v", "-map", "1:a", "-c:a", "libopus"]
            coded = ["-t", "10", "-c:v", "libx264", "-crf", "16", "-preset", "veryfast"]
            subprocess.run([*loop, "1", "-i", str(source), *tone, *coded, str(ten)], check=True)
            nervcodec.encode(ten, files["AV1, 10 s"], base="av1", crf=35, **settings)
            nervcodec.encode(ten, files["network, 10 s"], time_s=40, **settings)
        if not files["copy, 1 h"].exists():
            small = ["-vf", "crop=1280:640,scale=480:240", "-an"]
            small += ["-c:v", "libx264", "-crf", "30", "-preset", "ultrafast"]
            subprocess.run([*loop[:-1], "-i", str(source), *small, str(ten)], check=True)
            copied = [str(HOUR_S), "-i", str(ten), "-t", str(HOUR_S), "-c", "copy", str(hour)]
            subprocess.run([*loop, *copied], check=True)
            nervcodec.encode(hour, files["copy, 1 h"], base="copy", encoder="none")
    return files


class Asking:
    """One viewer on one connection."""

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def __call__(self, address: str, **headers: str) -> tuple[float, bytes]:
        """Seconds, and the answer."""
        start = time.perf_counter()
        self._connection.request("GET", address, headers=headers)
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status in (200, 206), (address, answer.status, body[:200])
        return time.perf_counter() - start, body


class Serving:
    """The command with an empty media cache, as long as the block lasts."""

    def __init__(self, file: Path, cache: Path):
        shutil.rmtree(cache / "media", ignore_errors=True)
        self._start = time.perf_counter()
        self._process = subprocess.Popen(
            [COMMAND, "serve", str(file), "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | {"NERVCODEC_CACHE": str(cache)},
        )  # fmt: skip

    def __enter__(self) -> Serving:
        assert self._process.stdout is not None
        match = re.search(r":(\d+)/", self._process.stdout.readline())
        assert match is not None
        self.port = int(match[1])
        Asking(self.port)("/api/files")
        self.answers_s = time.perf_counter() - self._start
        self._most_mb, self._watches = 0, True
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()
        return self

    def _watch(self) -> None:
        while self._watches:
            self._most_mb = max(self._most_mb, self.memory_mb())
            time.sleep(0.1)

    def memory_mb(self) -> int:
        """Memory of all processes now."""
        pids = [str(self._process.pid)]
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pids[0]}/task").iterdir():
                pids += (task / "children").read_text().split()
        total = 0
        for pid in pids:
            with contextlib.suppress(OSError):
                match = re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
                total += int(match[1]) if match else 0
        return total // 1024

    @property
    def most_mb(self) -> int:
        """The most that they had."""
        return self._most_mb

    def end(self) -> float:
        """Interrupt it; seconds to its end."""
        start = time.perf_counter()
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(30) == 130
        return time.perf_counter() - start

    def __exit__(self, *_: object) -> None:
        self._watches = False
        self._watching.join()
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def chromium(serving: Serving, file: Path) -> Iterator:
    """The page of a file in a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://127.0.0.1:{serving.port}/watch/{file.name}")
        until(page, OPENED)
        yield page
        browser.close()


def until(page, expression: str) -> None:
    """Wait until a script says yes."""
    while not page.evaluate(f"Boolean({expression})"):
        page.wait_for_timeout(10)


def row(name: str, what: str, seconds: list[float], more: str = "") -> dict:
    """A line of the table, in milliseconds."""
    some = 1e3 * np.array(seconds)
    return {
        "file": name,
        "what": what,
        "median_ms": round(float(np.median(some)), 1),
        "p95_ms": round(float(np.percentile(some, 95)), 1),
        "answers": len(some),
        "note": more,
    }


def playing(name: str, file: Path, cache: Path) -> list[dict]:
    """In Chromium: the beginning, the whole file, and random seeks in it."""
    with Serving(file, cache) as serving:
        rows = [row(name, "server answers, from the start of its process", [serving.answers_s])]
        begun = time.perf_counter()
        with chromium(serving, file) as page:
            opened = time.perf_counter()
            first = page.evaluate(FIRST) / 1e3
            rows.append(row(name, "page is opened", [opened - begun]))
            rows.append(row(name, "first moving picture, file not open before", [first]))
            until(page, WHOLE)
            rows.append(row(name, "whole file plays, from play()", [time.perf_counter() - opened]))
            page.evaluate("document.querySelector('#video').pause()")
            chance, end = random.Random(0), page.evaluate("document.querySelector('#video').duration")
            seeks = [page.evaluate(SEEK, chance.uniform(0, 0.98 * end)) / 1e3 for _ in range(SEEKS)]
        rows.append(row(name, "seek to a random moment and show it", seeks, f"{serving.most_mb:,} MB at most"))
        return rows


def watching(name: str, file: Path, cache: Path) -> list[dict]:
    """Twenty viewers, who load parts of the file to play and stills of other moments."""
    with Serving(file, cache) as serving:
        ask = Asking(serving.port)
        count = json.loads(ask(f"/api/file/{file.name}")[1])["frame_count"]
        first = [ask(f"/frame/{file.name}/{count // 2}")[0]]
        size = len(ask(f"/media/{file.name}.mp4")[1])
        stills: list[float] = []
        parts: list[float] = []

        def viewer(seed: int) -> None:
            own, chance = Asking(serving.port), random.Random(seed)
            for _ in range(EACH):
                begin = chance.randrange(size)
                parts.append(own(f"/media/{file.name}.mp4", Range=f"bytes={begin}-{begin + 500_000}")[0])
                stills.append(own(f"/frame/{file.name}/{chance.randrange(count)}")[0])

        viewers = [threading.Thread(target=viewer, args=(seed,)) for seed in range(VIEWERS)]
        for one in viewers:
            one.start()
        for one in viewers:
            one.join()
        memory = f"{serving.most_mb:,} MB at most"
        return [
            row(name, "first still, file not open before", first),
            row(name, f"{VIEWERS} viewers without a pause: 0.5 MB of the file", parts),
            row(name, f"{VIEWERS} viewers without a pause: a still", stills, memory),
            row(name, "Ctrl-C", [serving.end()]),
        ]


def asking(name: str, file: Path, cache: Path) -> list[dict]:
    """Questions."""
    with Serving(file, cache) as serving:
        ask = Asking(serving.port)
        rows = [row(name, "thumbnail", [ask(f"/thumbnail/{file.name}")[0]])]
        texts = ["rabbit", "tree", "a bird in the sky", "violin", "grass", "squirrel"]
        asked = [ask(f"/api/search?add={text.replace(' ', '%20')}")[0] for text in texts]
        rows.append(row(name, "first question", asked[:1]))
        rows.append(row(name, "question", asked[1:]))
        fits = [ask(f"/api/fit/{file.name}?add={text.replace(' ', '%20')}")[0] for text in texts]
        return [*rows, row(name, "fit over time", fits)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for name, file in make(parser.parse_args().folder).items():
            parts = (playing, watching) if name == "copy, 1 h" else (playing, watching, asking)
            rows += [row for part in parts for row in part(name, file, Path(cache))]
    print_rows(rows)
    print(save("serve", rows))


if __name__ == "__main__":
    main()
