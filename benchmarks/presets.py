# SPDX-License-Identifier: MIT
"""What presets cost: parameters, time of an epoch, peak memory, by preset and batch size.

    python benchmarks/presets.py [--device cuda] [--full]

On a CPU, carphone_pristine.mp4's first second, cropped to 96 x 128; with --full, bunny at 640 x 1280. Every row is a
process of its own: a few batches are timed, and an epoch follows from them. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from end_to_end import clip
from machine import print_rows, save

import nervcodec
from nervcodec.events import Observer, StepEvent
from nervcodec.options import PRESETS

BATCHES = (4, 16)
_SMALL = {"crop": (96, 128), "duration_s": 1.0}
_FULL = {"crop": (640, 1280)}
_STEPS, _WARM = 6, 2


class Timer(Observer):
    """Stops after a few steps and remembers when each was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def stop_requested(self) -> bool:
        self.times.append(time.perf_counter())
        return len(self.times) > _STEPS

    def step(self, event: StepEvent) -> None:
        """Nothing to draw."""


def one(preset: str, batch: int, device: str, full: bool) -> dict:
    """A row, measured in this process."""
    source = clip("bigbuckbunny.mp4" if full else "carphone_pristine.mp4")
    timer = Timer()
    with tempfile.TemporaryDirectory() as name:
        report = nervcodec.encode(
            source, Path(name) / "a.nerv", observer=timer, preset=preset, batch_size=batch, encoder="none",
            audio="none", split="9_10_10", device=device, epochs=1000, **(_FULL if full else _SMALL),
        )  # fmt: skip
    step_s = (timer.times[-1] - timer.times[_WARM]) / (len(timer.times) - 1 - _WARM)
    patches = 1 if preset == "default" else 8
    batches = -(-round(report.frames * 0.9) * patches // batch)
    if device == "cuda":
        import torch

        memory = torch.cuda.max_memory_allocated() / 1e6
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "preset": preset,
        "batch": batch,
        "parameters": report.parameters,
        "step_ms": round(1000 * step_s, 1),
        "epoch_s": round(step_s * batches, 1),
        "peak_memory_mb": round(memory),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--full", action="store_true", help="bunny at 640 x 1280")
    parser.add_argument("--one", nargs=2, metavar=("PRESET", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one[0], int(arguments.one[1]), arguments.device, arguments.full)))
        return
    rows = []
    for preset in PRESETS:
        if preset == "debug":
            continue
        for batch in BATCHES:
            more = ["--full"] if arguments.full else []
            command = [sys.executable, __file__, "--device", arguments.device, *more, "--one", preset, str(batch)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append(json.loads(output.splitlines()[-1]))
    print_rows(rows)
    print(save(f"presets_{'full' if arguments.full else 'small'}_{arguments.device}", rows))


if __name__ == "__main__":
    main()
