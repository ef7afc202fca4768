# SPDX-License-Identifier: MIT
"""Files side by side by workers against one after the other in one process; and what handing out a task costs.

    python benchmarks/workers.py [--files 8] [--epochs 8,80] [--simulated 64] [--quick]

The same clips of three seconds, the same passes: by one process with two threads, and by two workers with a thread
each; few passes, of which a large part is starting, and more. Then tasks that only sleep, as large on their way as
those of real segments, for so many simulated workers, all of which are there: the driver's own work for each, and how
near the whole comes to sleeping alone. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from end_to_end import clip
from machine import print_rows, save

import nervcodec
from nervcodec.formats.atomic import replacing
from nervcodec.jobs.cluster import Cluster, Workers, started
from nervcodec.media.ffmpeg import executable

_SECONDS = 3
_RESULT_BYTES, _SENT_BYTES = 60_000, 30_000  # of a segment's stream; of embeddings that go with a task


def cut(folder: Path, count: int) -> list[Path]:
    """So many clips of three seconds."""
    sources = []
    for number in range(count):
        source, name = folder / f"{number}.mp4", ("bikes.mp4", "carphone_pristine.mp4")[number % 2]
        start = str(number // 2 * 2 % 6) if name == "bikes.mp4" else "0"
        how = ["-ss", start, "-i", clip(name), "-t", str(_SECONDS), "-an", "-crf", "18", str(source)]
        subprocess.run([executable(), "-v", "error", *how], check=True)
        sources.append(source)
    return sources


def side_by_side(folder: Path, sources: list[Path], epochs: int) -> list[dict]:
    """Rows of the two ways."""
    rows: list[dict] = []
    settings = {"epochs": epochs, "encoder": "none", "scale": 0.5, "precision": "fp32"}
    for label, workers in (("one process, two threads", None), ("two workers, a thread each", 2)):
        start = time.perf_counter()
        reports = nervcodec.encode_many(
            sources, folder / label.replace(" ", "_"), workers=workers, force=True, **settings
        )
        seconds = time.perf_counter() - start
        assert all(report.status == "done" for report in reports), reports
        psnr_db = float(np.mean([report.report.psnr_db for report in reports if report.report is not None]))
        rows.append(
            {
                "what": label,
                "files": len(sources),
                "epochs": epochs,
                "seconds": round(seconds, 1),
                "psnr_db": round(psnr_db, 2),
            }
        )
    rows[1]["times_as_fast"] = round(rows[0]["seconds"] / rows[1]["seconds"], 2)
    return rows


def asleep(_threads: int, _plan: object, _known: object, seconds: float) -> np.ndarray:
    """A task that only sleeps."""
    time.sleep(seconds)
    return np.zeros(_RESULT_BYTES, np.uint8)


def awake(_threads: int, seconds: float) -> int:
    """The worker that did it."""
    time.sleep(seconds)
    return os.getpid()


def start(cluster: Cluster) -> None:
    """Wait until each of the workers has done something."""
    seen: set[int] = set()
    while len(seen) < cluster.slots:
        while cluster.running < cluster.slots:
            cluster.submit(None, awake, 1.0)
        if (found := cluster.next_done(0.2)) is not None:
            seen.add(found[1])
    while cluster.running:
        cluster.next_done(0.2)


def handing_out(folder: Path, workers: int, tasks: int, seconds: float) -> dict:
    """A row of tasks that only sleep."""
    with started(Workers(workers)) as cluster:
        plan = cluster.put(np.zeros(100_000, np.uint8))
        known = np.zeros(_SENT_BYTES, np.uint8)

        def run(count: int, each_s: float) -> None:
            left = count
            while left or cluster.running:
                while left and cluster.running < cluster.slots:
                    cluster.submit(left, asleep, plan, known, each_s)
                    left -= 1
                if (found := cluster.next_done(0.2)) is not None:
                    with replacing(folder / f"segment_{found[0]}") as temporary:
                        found[1].tofile(temporary)

        start(cluster)
        own, begun = _own_s(), time.perf_counter()
        run(tasks, seconds)
        passed = time.perf_counter() - begun
        own = _own_s() - own
    return {
        "what": f"{tasks} tasks that sleep {seconds:g} s, {workers} workers",
        "seconds": round(passed, 1),
        "driver_ms_a_task": round(1000 * own / tasks, 2),
        "of_linear": round(tasks / workers * seconds / passed, 3),
    }


def _own_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--epochs", default="8,80")
    parser.add_argument("--simulated", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="a few seconds; results are not saved")
    arguments = parser.parse_args()
    files, epochs, simulated = arguments.files, arguments.epochs, arguments.simulated
    if arguments.quick:
        files, epochs, simulated = 2, "2", 4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = cut(folder, files)
        rows = [row for each in epochs.split(",") for row in side_by_side(folder, sources, int(each))]
        print_rows(rows)
        tasks = [handing_out(folder, simulated, 4 * simulated, 10.0 if not arguments.quick else 1.0)]
        print_rows(tasks)
    if not arguments.quick:
        print(save("workers", [*rows, *tasks]))


if __name__ == "__main__":
    main()
