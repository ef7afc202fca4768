# SPDX-License-Identifier: MIT
"""How the cost of a fit grows with frames, pixels and parameters, on bunny.

    python benchmarks/scaling.py [--quick] [--device cuda]

Each row is a process of its own (so that its peak memory is its own), fitting for a few seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from machine import print_rows, save

SIZES = {
    "frames": [{"duration_s": 1.32}, {"duration_s": 2.64}, {}],
    "pixels": [{"scale": 0.25}, {"scale": 0.5}, {}, {"crop": None}],
    "parameters": [{"parameters": 600_000}, {"parameters": 1_200_000}, {"parameters": 2_400_000}],
}


def one(options: dict) -> None:
    """Encode with these options and print a row as JSON; runs in a process of its own."""
    import resource
    import tempfile

    from end_to_end import clip

    import nervcodec
    from nervcodec.training.datasets import training_set

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.nerv"
        report = nervcodec.encode(clip("bigbuckbunny.mp4"), out, encoder="none", audio="none", **options)
        video = nervcodec.open(out)
    batch = training_set(video.network(0)).default_batch_size
    row = {
        "frames": report.frames,
        "pixels": f"{video.header.video.width}x{video.header.video.height}",
        "parameters": report.parameters,
        "ms_per_step": round(1000 * report.fit_s / report.steps, 1),
        "s_per_epoch": round(report.fit_s / report.steps * -(-report.frames // batch), 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
    }
    print("ROW " + json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 seconds a fit; results are not saved")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(json.loads(arguments.one))
        return
    rows = []
    for what, sizes in SIZES.items():
        for size in sizes:
            options = {"crop": [640, 1280], "time_s": 2 if arguments.quick else 8, "device": arguments.device, **size}
            command = [sys.executable, __file__, "--one", json.dumps(options)]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            line = next(line for line in result.stdout.splitlines() if line.startswith("ROW "))
            rows.append({"varied": what, **json.loads(line[4:])})
    print_rows(rows)
    if not arguments.quick:
        print(save("scaling", rows))


if __name__ == "__main__":
    main()
