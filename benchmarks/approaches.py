# SPDX-License-Identifier: MIT
"""Whole frames against patches against our field, at equal parameters and equal time, on the same clip, in one run.

    python benchmarks/approaches.py [--time 10m] [--scale 0.5] [--device cuda] [--quick]

Bunny, 640 x 1280 or scaled, split 6_6_10: six frames of ten are fitted, four held out. Every row is a whole encode,
judged from its file. The rows: the original patch method (`comparable`), a full-frame NeRV, ours with the parameters of
each of them, and ours as it comes. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

from end_to_end import clip
from machine import print_rows, save
from peers import COMPARABLE, FULL_FRAME_NERV

import nervcodec
from nervcodec.ranges import parse_duration
from nervcodec.split import FITTED, HELD_OUT

SPLIT = "6_6_10"


def row(label: str, seconds: float, scale: float, device: str, folder: Path, encoder: str, **options: object) -> dict:
    """One encode and what its file is worth."""
    source, out = clip("bigbuckbunny.mp4"), folder / "a.nerv"
    options = {**options, "encoder": encoder, "audio": "none", "crop": (640, 1280), "split": SPLIT, "device": device}
    report = nervcodec.encode(source, out, time_s=seconds, scale=scale, force=True, **options)
    judged = nervcodec.evaluate(out, source, device)
    fitted, held_out = judged.of_role(FITTED), judged.of_role(HELD_OUT)
    result = {
        "approach": label,
        "parameters": report.parameters,
        "bytes": judged.size_bytes,
        "fitted_db": round(float(fitted["psnr"]), 2),  # type: ignore[arg-type]
        "held_out_db": round(float(held_out["psnr"]), 2),  # type: ignore[arg-type]
        "steps": report.steps,
    }
    for role, name in ((FITTED, "fitted"), (HELD_OUT, "held_out")):
        found = judged.fidelity.get(role)
        result[f"ndcg_{name}"] = None if found is None else round(found.retrieval["ndcg_at_10"], 3)
    result["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", default="10m", help="of fitting, for each")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--encoder", default="offline")
    parser.add_argument("--quick", action="store_true", help="ten seconds each; results are not saved")
    arguments = parser.parse_args()
    seconds = 10.0 if arguments.quick else parse_duration(arguments.time)
    shared = (seconds, arguments.scale, arguments.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = {**COMPARABLE, "pixel_warmup": 0.2}
        patches = row("patches: the original method (comparable)", *shared, folder, arguments.encoder, **own)
        frames = row("whole frames: NeRV", *shared, folder, "none", **FULL_FRAME_NERV)
        rows = [patches, frames]
        for other in (patches, frames):
            label = f"ours with {other['parameters']:,} parameters"
            rows.append(row(label, *shared, folder, arguments.encoder, parameters=int(other["parameters"])))
        rows.append(row("ours, default", *shared, folder, arguments.encoder))
    print_rows(rows)
    if not arguments.quick:
        print(save("approaches", rows, fit_s=seconds, scale=arguments.scale, split=SPLIT))


if __name__ == "__main__":
    main()
