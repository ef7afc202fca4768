# SPDX-License-Identifier: MIT
"""The page's server: when a video begins to play, how soon a frame is there, and for how many.

    python benchmarks/serve.py FOLDER     makes two containers of 1280 x 640 in FOLDER where they are not there yet

One is a network alone (five seconds), one a base layer of AV1 in three segments (25 seconds, with sound that has to be
coded anew). The command runs in a process of its own, new for each container.
Frames are asked for in full size as JPEG, no frame twice in the same form. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from end_to_end import clip
from machine import print_rows, save

import nervcodec

COMMAND = str(Path(sys.executable).with_name("nervcodec"))
SCRUBS, VIEWERS, EACH, LOOPS, LONG_S = 60, 20, 10, 5, 25
KEPT_S = 3.0  # what is decoded ahead after a frame is there by then


def make(folder: Path) -> list[Path]:
    """The two containers."""
    folder.mkdir(parents=True, exist_ok=True)
    source, alone, layered = clip("bigbuckbunny.mp4"), folder / "bunny640.nerv", folder / "long640.nerv"
    settings = {"encoder": "offline", "crop": (640, 1280)}
    if not alone.exists():
        nervcodec.encode(source, alone, time_s=40, **settings)
    if not layered.exists():
        with tempfile.TemporaryDirectory() as place:
            looped = Path(place) / "looped.mkv"
            tone = ["-f", "lavfi", "-i", "sine=frequency=440", "-map", "0:v", "-map", "1:a", "-c:a", "libopus"]
            video = ["-t", str(LONG_S), "-c:v", "libx264", "-crf", "16", "-preset", "veryfast"]
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-stream_loop", str(LOOPS), "-i", str(source)]
            subprocess.run([*command, *tone, *video, str(looped)], check=True)
            nervcodec.encode(looped, layered, base="av1", crf=35, **settings)
    return [alone, layered]


class Asking:
    """One viewer on one connection."""

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def __call__(self, address: str) -> tuple[float, bytes]:
        """Seconds, and the answer."""
        start = time.perf_counter()
        self._connection.request("GET", address)
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (address, answer.status, body[:200])
        return time.perf_counter() - start, body


class Serving:
    """The command, as long as the block lasts."""

    def __init__(self, file: Path):
        self._start, arguments = time.perf_counter(), [COMMAND, "serve", str(file), "--port", "0"]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def __enter__(self) -> Serving:
        assert self._process.stdout is not None
        found = re.search(r":(\d+)/", self._process.stdout.readline())
        assert found is not None
        self.port = int(found[1])
        Asking(self.port)("/api/files")
        self.answers_s = time.perf_counter() - self._start
        time.sleep(KEPT_S)  # it imports torch meanwhile
        return self

    def memory_mb(self) -> int:
        """The most that it had."""
        said = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", said)[1]) // 1024

    def end(self) -> float:
        """Interrupt it; seconds to its end."""
        start = time.perf_counter()
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(30) == 130
        return time.perf_counter() - start

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


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


def playing(file: Path) -> list[dict]:
    """From the beginning to the end, as a player asks."""
    with Serving(file) as serving:
        ask, name = Asking(serving.port), file.name
        seconds, body = ask(f"/api/file/{name}")
        facts = json.loads(body)
        first, _ = ask(f"/media/{name}/video/0")
        rows = [row(name, "server answers, from the start of its process", [serving.answers_s])]
        rows.append(row(name, "page's facts and first fragment, file not open before", [seconds + first]))
        rest = [ask(f"/media/{name}/video/{number}")[0] for number in range(1, facts["video"]["count"])]
        length = facts["video"]["fragment_s"]
        speed = length * len(rest) / sum(rest)
        rows.append(row(name, f"fragment of {length:g} s", rest, f"{speed:.2f} x real time"))
        if facts["audio"]:
            sound = [ask(f"/media/{name}/audio/{number}")[0] for number in range(facts["audio"]["count"])]
            rows.append(row(name, "first fragment of sound", sound[:1]))
            rows.append(row(name, "fragment of sound", sound[1:]))
        return rows


def scrubbing(file: Path) -> list[dict]:
    """Random frames: at first, when all is decoded that is kept, and by many at once."""
    with Serving(file) as serving:
        ask, name, chance = Asking(serving.port), file.name, random.Random(0)
        count = json.loads(ask(f"/api/file/{name}")[1])["frame_count"]
        forms = iter(range(1281, 4096))

        def address(number: int) -> str:
            return f"/frame/{name}/{number}?width={next(forms)}"  # larger than it is: as it is, and another form

        rows = [row(name, "first frame, file not open before", [ask(address(0))[0]])]
        again = [ask(address(chance.randrange(count)))[0] for _ in range(SCRUBS)]
        rows.append(row(name, "scrub at random, from then on", again))
        drawn = [ask(address(int(count * place)))[0] for place in np.linspace(0.95, 0.7, SCRUBS)]
        rows.append(row(name, "drag backwards over a quarter of the video", drawn))
        time.sleep(KEPT_S)
        later = [ask(address(chance.randrange(count)))[0] for _ in range(SCRUBS)]
        rows.append(row(name, "scrub at random, a while later", later))
        seconds: list[float] = []
        start = time.perf_counter()

        def viewer() -> None:
            own = Asking(serving.port)
            for _ in range(EACH):
                seconds.append(own(address(chance.randrange(count)))[0])

        viewers = [threading.Thread(target=viewer) for _ in range(VIEWERS)]
        for one in viewers:
            one.start()
        for one in viewers:
            one.join()
        speed = len(seconds) / (time.perf_counter() - start)
        assert len(seconds) == VIEWERS * EACH
        rows.append(row(name, f"{VIEWERS} viewers, each without a pause", seconds, f"{speed:.0f} frames a second"))
        memory = f"{serving.memory_mb():,} MB of memory at most"
        busy = [http.client.HTTPConnection("127.0.0.1", serving.port) for _ in range(3)]
        for number, connection in enumerate(busy):
            connection.request("GET", f"/media/{name}/video/{number}")
        time.sleep(0.05)
        rows.append(row(name, "Ctrl-C with three fragments under way", [serving.end()], memory))
        return rows


def asking(file: Path) -> list[dict]:
    """Questions."""
    with Serving(file) as serving:
        ask, name = Asking(serving.port), file.name
        rows = [row(name, "thumbnail", [ask(f"/thumbnail/{name}")[0]])]
        texts = ["rabbit", "tree", "a bird in the sky", "violin", "grass", "squirrel"]
        asked = [ask(f"/api/search?add={text.replace(' ', '%20')}")[0] for text in texts]
        rows.append(row(name, "first question", asked[:1]))
        rows.append(row(name, "question", asked[1:]))
        fits = [ask(f"/api/fit/{name}?add={text.replace(' ', '%20')}")[0] for text in texts]
        return [*rows, row(name, "fit over time", fits)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    rows = [
        row for file in make(parser.parse_args().folder) for part in (playing, scrubbing, asking) for row in part(file)
    ]
    print_rows(rows)
    print(save("serve", rows))


if __name__ == "__main__":
    main()
