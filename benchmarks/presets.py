# SPDX-License-Identifier: MIT
"""What presets cost: parameters, time of an epoch, peak memory, by preset and batch size.

    python benchmarks/presets.py [--device cuda] [--full]

On a CPU, two frames of carphone_pristine.mp4, cropped to 96 x 128; with --full, bunny at 640 x 1280. A forward pass of
the original method's presets costs the same for any size of patch, since their strides decide what they render before
it is brought to that size; `default` has parameters by pixels. Every row is a process of its own: a few batches are
timed, and an epoch of 100 frames of 2 x 4 patches follows. A process may take four fifths of the memory. Nothing else
may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time

from end_to_end import clip
from machine import print_rows, save

from nervcodec import options, sizing
from nervcodec.device import choose, physical_memory
from nervcodec.events import Observer, StepEvent
from nervcodec.media.reader import read_frames, read_segment
from nervcodec.media.source import scan
from nervcodec.network.build import build
from nervcodec.network.config import Geometry
from nervcodec.options import PRESETS
from nervcodec.training.datasets import SegmentData
from nervcodec.training.hooks import ProgressHook
from nervcodec.training.loop import TrainingLoop
from nervcodec.training.state import FitState

BATCHES = (1, 4)
_SMALL = {"crop": (96, 128), "duration_s": 0.067}
_FULL = {"crop": (640, 1280)}
_STEPS, _WARM, _FRAMES = 3, 1, 100
_LONGEST_STEP_MS = 15_000  # a larger batch that would take longer is left out


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
    most = physical_memory()
    if most is not None and device == "cpu":
        resource.setrlimit(resource.RLIMIT_AS, (most * 4 // 5, most * 4 // 5))
    source, chosen = clip("bigbuckbunny.mp4" if full else "carphone_pristine.mp4"), _FULL if full else _SMALL
    wanted = options.from_flat(preset=preset, batch_size=batch, epochs=1000, device=device, **chosen)
    hardware = choose(wanted.device, wanted.precision)
    info = scan(source, wanted.source)
    frames = read_segment(read_frames(info, wanted.source), info.frame_count)
    geometry = Geometry(info.frame_count, info.height, info.width, *wanted.patches)
    field = build(sizing.network_config(wanted.network, geometry))
    timer = Timer()
    TrainingLoop(FitState(field, SegmentData(frames), wanted.fit, hardware), timer, [ProgressHook(timer)]).run()
    step_s = (timer.times[-1] - timer.times[_WARM]) / (len(timer.times) - 1 - _WARM)
    batches = -(-_FRAMES * (1 if preset == "default" else 8) // batch)
    if device == "cuda":
        import torch

        memory = torch.cuda.max_memory_allocated() / 1e6
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "preset": preset,
        "batch": batch,
        "parameters": sum(p.numel() for p in field.parameters()),
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
            if rows and rows[-1]["preset"] == preset and (rows[-1]["step_ms"] or math.inf) * batch > _LONGEST_STEP_MS:
                continue
            more = ["--full"] if arguments.full else []
            command = [sys.executable, __file__, "--device", arguments.device, *more, "--one", preset, str(batch)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode == 0:
                rows.append(json.loads(result.stdout.splitlines()[-1]))
            elif "not enough memory" in result.stderr or "can't allocate memory" in result.stderr:
                missing = dict.fromkeys(("parameters", "step_ms", "epoch_s"))
                rows.append({"preset": preset, "batch": batch, **missing, "peak_memory_mb": "too much"})
            else:
                sys.exit(result.stderr)
            print(rows[-1], file=sys.stderr, flush=True)
    print_rows(rows)
    print(save(f"presets_{'full' if arguments.full else 'small'}_{arguments.device}", rows))


if __name__ == "__main__":
    main()
