# SPDX-License-Identifier: MIT
"""How long ``nervcodec eval`` takes: 150 frames of 768 x 576, 40 of 1920 x 1080, ten minutes of 640 x 272.

    python benchmarks/evaluation.py

The first two have an AV1 base layer and no embeddings; the third is a copy with offline embeddings. Whole commands are
timed, the start of Python included. Nothing else may run meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from end_to_end import clip
from long_video import ffmpeg
from machine import print_rows, save

import nervcodec

# Name of the result, the clip, arguments of ffmpeg before and after it, and settings of the encode.
CASES = (
    ("768 x 576", "bikes.mp4", (), ("-vf", "scale=768:576", "-frames:v", "150"), {"base": "av1", "encoder": "none"}),
    ("1920 x 1080", "bigbuckbunny.mp4", (), ("-vf", "scale=1920:1080", "-frames:v", "40"),
     {"base": "av1", "encoder": "none"}),
    ("640 x 272, ten minutes", "bikes.mp4", ("-stream_loop", "59"), ("-c", "copy"),
     {"base": "copy", "encoder": "offline"}),
)  # fmt: skip


def row(name: str, source: str, before: tuple, after: tuple, settings: dict, folder: Path) -> dict:
    """One evaluation."""
    video, file = folder / "a.mp4", folder / "a.nerv"
    ffmpeg(*before, "-i", clip(source), *after, "-an", video)
    nervcodec.encode(video, file, force=True, **settings)
    command = [sys.executable, "-m", "nervcodec", "eval", str(file), str(video), "--json", "--quiet"]
    start = time.perf_counter()
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    report = json.loads(result.stdout)
    return {
        "video": name,
        "frames": report["frames"],
        "sampled_frames": report["sampled_frames"],
        "seconds": round(seconds, 1),
        "frames_per_s": round(report["sampled_frames"] / seconds, 1),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(*case, Path(folder)) for case in CASES]
    print_rows(rows)
    print(save("evaluation", rows))


if __name__ == "__main__":
    main()
