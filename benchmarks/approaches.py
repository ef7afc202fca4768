# SPDX-License-Identifier: MIT
"""Whole frames against patches against our field, at equal parameters and equal time, on the same clip, in one run.

    python benchmarks/approaches.py [--time 10m] [--scale 0.5] [--device cuda] [--quick]

Bunny, 640 x 1280 or scaled, split 6_6_10: six frames of ten are fitted, four held out. Every row is a whole encode,
judged from its file. The rows: the original patch method (`comparable`), a full-frame NeRV, ours with the parameters of
each of them, and ours as it comes. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from end_to_end import clip
from machine import print_rows, save
from peers import COMPARABLE, FULL_FRAME_NERV

import nervcodec
from nervcodec.ranges import FITTED, HELD_OUT, parse_duration, parse_split
from nervcodec.training.datasets import training_set

SPLIT = "6_6_10"


# Fields of `nervcodec.encode` beyond what all rows share; the last two get another row's count of parameters.
APPROACHES: dict[str, dict[str, object]] = {
    "patches: the original method (comparable)": {**COMPARABLE, "pixel_warmup": 0.2},
    "whole frames: NeRV": FULL_FRAME_NERV,
    "ours, parameters as comparable": {},
    "ours, parameters as NeRV": {},
    "ours, default": {},
}


def row(label: str, arguments: argparse.Namespace, parameters: int | None) -> dict:
    """One encode and what its file is worth, measured in this process."""
    source = clip("bigbuckbunny.mp4")
    encoder = "none" if "NeRV" in label and "ours" not in label else arguments.encoder
    options = {**APPROACHES[label], "encoder": encoder, "parameters": parameters, "split": SPLIT}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.nerv"
        report = nervcodec.encode(
            source, out, time_s=parse_duration(arguments.time), scale=arguments.scale, device=arguments.device,
            audio="none", crop=(640, 1280), **options,
        )  # fmt: skip
        peak_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        judged = nervcodec.evaluate(out, source, arguments.device)
        units, batch = units_and_batch(out, options)
    fitted, held_out = judged.of_role(FITTED), judged.of_role(HELD_OUT)
    fidelity = {role: judged.fidelity.get(role) for role in (FITTED, HELD_OUT)}
    return {
        "approach": label,
        "parameters": report.parameters,
        "bytes": judged.size_bytes,
        "fitted_db": round(float(fitted["psnr"]), 2),  # type: ignore[arg-type]
        "held_out_db": round(float(held_out["psnr"]), 2),  # type: ignore[arg-type]
        **{f"ndcg_{r}": None if f is None else round(f.retrieval["ndcg_at_10"], 3) for r, f in fidelity.items()},
        "steps": report.steps,
        "epoch_s": round(report.fit_s * -(-units // batch) / report.steps, 1),
        "peak_memory_mb": peak_mb,
    }


def units_and_batch(path: Path, options: dict[str, object]) -> tuple[int, int]:
    """Units that are fitted once an epoch, and those in a batch."""
    video = nervcodec.open(path)
    field = video.network(0)
    roles = parse_split(SPLIT).roles(0, len(video))
    shown = training_set(field)
    units = sum(roles[frame] == FITTED for frame in shown.frames(torch.arange(shown.count)).tolist())
    return units, int(options.get("batch_size") or shown.default_batch_size)  # type: ignore[call-overload]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", default="10m", help="of fitting, for each")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--encoder", default="offline")
    parser.add_argument("--quick", action="store_true", help="ten seconds each; results are not saved")
    parser.add_argument("--one", nargs=2, metavar=("APPROACH", "PARAMETERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.time = "10s"
    if arguments.one:
        label, parameters = arguments.one
        print(json.dumps(row(label, arguments, int(parameters) or None)))
        return
    rows: list[dict] = []
    for label in APPROACHES:
        # A process each, so that peaks of memory are their own.
        model = {"ours, parameters as comparable": 0, "ours, parameters as NeRV": 1}.get(label)
        count = 0 if model is None else rows[model]["parameters"]
        command = [sys.executable, __file__, "--time", arguments.time, "--scale", str(arguments.scale)]
        command += ["--device", arguments.device, "--encoder", arguments.encoder, "--one", label, str(count)]
        rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
    print_rows(rows)
    if not arguments.quick:
        print(save("approaches", rows, fit_s=parse_duration(arguments.time), scale=arguments.scale, split=SPLIT))


if __name__ == "__main__":
    main()
