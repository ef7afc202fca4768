# SPDX-License-Identifier: MIT
"""Files encoded by worker processes against one after the other in this process; the cost of a worker and of a task.

    python benchmarks/workers.py [--files 8] [--epochs 8,30] [--simulated 8] [--quick]

The same clips of three seconds, the same passes: in this process with two threads, by one worker with two threads (as a
folder is encoded without --workers), and by two workers with a thread each. Then the time until a new worker has done
its first task, most of it the import of torch; and tasks that only sleep, with arguments and results as large as those
of real segments: the processor time of the process that submits them, and how near all of it comes to the sleep alone.
Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from end_to_end import clip
from machine import print_rows, save

import nervcodec
from nervcodec import options
from nervcodec.encoding.pipeline import TaskRunner
from nervcodec.events import Observer
from nervcodec.jobs.workers import LocalWorkers
from nervcodec.media.ffmpeg import executable

_SECONDS = 3
_RESULT_BYTES, _SENT_BYTES = 60_000, 130_000  # of a segment's stream; of a plan and embeddings
_STARTS = 3


def cut(folder: Path, count: int) -> list[Path]:
    """A number of clips of three seconds."""
    sources = []
    for number in range(count):
        source, name = folder / f"{number}.mp4", ("bikes.mp4", "carphone_pristine.mp4")[number % 2]
        start = str(number // 2 * 2 % 6) if name == "bikes.mp4" else "0"
        how = ["-ss", start, "-i", clip(name), "-t", str(_SECONDS), "-an", "-crf", "18", str(source)]
        subprocess.run([executable(), "-v", "error", *how], check=True)
        sources.append(source)
    return sources


def encode_all(folder: Path, sources: list[Path], epochs: int) -> list[dict]:
    """Rows of the three ways."""
    rows: list[dict] = []
    settings = {"epochs": epochs, "encoder": "none", "scale": 0.5, "precision": "fp32"}
    ways = {"in this process, two threads": None, "one worker, two threads": 1, "two workers, a thread each": 2}
    for label, workers in ways.items():
        start = time.perf_counter()
        reports = nervcodec.encode_many(
            sources, folder / label.replace(" ", "_"), workers=workers, force=True, **settings
        )
        seconds = time.perf_counter() - start
        assert all(report.status == "done" for report in reports), reports
        psnr_db = float(np.mean([report.report.psnr_db for report in reports if report.report is not None]))
        row = {"what": label, "files": len(sources), "epochs": epochs}
        rows.append({**row, "seconds": round(seconds, 1), "psnr_db": round(psnr_db, 2)})
        rows[-1]["times_as_fast"] = round(rows[0]["seconds"] / seconds, 2)
    return rows


class Sleeper(TaskRunner):
    """Has a task that only sleeps."""

    def sleep(self, _arguments: np.ndarray, seconds: float) -> np.ndarray:
        """Return as many bytes as a segment has."""
        time.sleep(seconds)
        return np.zeros(_RESULT_BYTES, np.uint8)


def starting() -> dict:
    """A row of the time until a new worker has done its first task."""
    seconds = []
    for _ in range(_STARTS):
        with closing(LocalWorkers(1, Observer())) as executor:
            begun = time.perf_counter()
            executor.submit(None, "setup", (options.from_flat(encoder="none"),))
            while executor.next_done(0.05) is None:
                continue
            seconds.append(time.perf_counter() - begun)
    return {"what": "start of a worker, first task done", "seconds": round(statistics.median(seconds), 2)}


def sleeping(workers: int, tasks: int, seconds: float) -> dict:
    """A row of tasks that only sleep."""
    arguments = np.zeros(_SENT_BYTES, np.uint8)
    with closing(LocalWorkers(workers, Observer(), Sleeper)) as executor:

        def run(count: int, each_s: float) -> None:
            left = count
            while left or executor.running:
                while left and executor.running < executor.slots:
                    executor.submit(left, "sleep", (arguments, each_s))
                    left -= 1
                if (done := executor.next_done(0.1)) is not None and done.error is not None:
                    raise done.error

        run(workers, 1.0)  # all of them are started
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
    parser.add_argument("--epochs", default="8,30")
    parser.add_argument("--simulated", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="a few seconds; results are not saved")
    arguments = parser.parse_args()
    files, epochs, simulated = arguments.files, arguments.epochs, arguments.simulated
    if arguments.quick:
        files, epochs, simulated = 2, "2", 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = cut(folder, files)
        rows = [row for each in epochs.split(",") for row in encode_all(folder, sources, int(each))]
        print_rows(rows)
    costs = [starting(), sleeping(simulated, 8 * simulated, 1.0)]
    print_rows(costs)
    if not arguments.quick:
        print(save("workers", [*rows, *costs]))


if __name__ == "__main__":
    main()
