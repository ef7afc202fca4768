# SPDX-License-Identifier: MIT
"""Large frames: time, memory and processes of an encode with a base layer.

    python benchmarks/large_frames.py [--quick]

Bunny with noise, 132 frames of 1920 x 1080 and 633 frames of 3840 x 2160 at 60 a second, with ``--base av1`` (the large
ones for 66 and 132 frames, to see whether memory grows with length) and ``--base copy``, and offline embeddings that no
cache holds. Every encode is a process of its own; memory is the peak of all its processes together (resident, shared
libraries included). Nothing else may run meanwhile. ``--quick`` leaves the large frames out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from end_to_end import clip
from long_video import ffmpeg
from machine import print_rows, save


def processes_of(number: int) -> list[int]:
    """A process and all below it."""
    found = [number]
    for task in Path(f"/proc/{number}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            found += processes_of(int(child))
    return found


def resident_mb(number: int) -> float:
    """Of a process; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def row(source: Path, folder: Path, *options: object) -> dict:
    """One encode."""
    command = [Path(sys.executable).with_name("nervcodec"), "encode", source, "-o", folder / "a.nerv", "--force", "-q"]
    environment = {**os.environ, "NERVCODEC_CACHE": tempfile.mkdtemp(dir=folder), "HF_HUB_OFFLINE": "1"}
    begun, peak_mb, most = time.perf_counter(), 0.0, 0
    with subprocess.Popen([*map(str, command), "--encoder", "offline", *map(str, options)], env=environment) as process:
        while process.poll() is None:
            numbers = processes_of(process.pid)
            most, peak_mb = max(most, len(numbers)), max(peak_mb, sum(map(resident_mb, numbers)))
            time.sleep(0.1)
    assert process.returncode == 0
    return {
        "source": source.stem,
        "options": " ".join(map(str, options)),
        "wall_s": round(time.perf_counter() - begun, 1),
        "peak_mb": round(peak_mb),
        "further_processes": most - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no frames of 3840 x 2160")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = folder / "bunny_1080.mp4", folder / "bunny_2160.mp4"
        coded = ("-an", "-c:v", "libx264", "-crf", 20, "-preset", "veryfast")
        ffmpeg("-i", clip("bigbuckbunny.mp4"), "-vf", "scale=1920:1080,noise=alls=8:allf=t", *coded, small)
        rows = [row(small, folder, "--base", base) for base in ("av1", "copy")]
        if not arguments.quick:
            filters = "scale=3840:2160,setpts=N/60/TB,noise=alls=8:allf=t"
            looped = ("-stream_loop", 4, "-i", clip("bigbuckbunny.mp4"))
            ffmpeg(*looped, "-vf", filters, "-r", 60, "-frames:v", 633, *coded, large)
            rows.append(row(large, folder, "--base", "copy"))
            rows += [row(large, folder, "--base", "av1", "--duration", seconds) for seconds in (1.1, 2.2)]
    print_rows(rows)
    if not arguments.quick:
        save("large_frames", rows)


if __name__ == "__main__":
    main()
