# SPDX-License-Identifier: MIT
"""PSNR over seconds of fitting on bunny, 640 x 1280: ours at several budgets and each peer, in one run.

    python benchmarks/time_to_quality.py [--quick] [--device cuda] [--only-base]

A point of the table is a whole encode with that budget, judged from the container that was written: after quantisation,
all frames, all bytes. The last of ours holds out four frames of ten and is judged on those too. The curves are the PSNR
of the batches of the longest run of each codec, as the progress bar shows it; seconds count the fit alone. Rows with
``--base`` are whole commands, from the start of the process to the file. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from end_to_end import clip
from machine import RESULTS, print_rows, save
from peers import COMPARABLE, FULL_FRAME_NERV, HnervDecoder

import nervcodec
from nervcodec.device import choose
from nervcodec.events import Observer, StepEvent
from nervcodec.media.reader import read_frames, read_segment
from nervcodec.media.source import SourceOptions, scan
from nervcodec.training.config import parse_schedule

OURS = (5, 10, 20, 30, 100, 480)
BASES = (("--crf", "57"), ("--psnr", "35"), ("--size", "140KB"))
ORIGINAL_S, NERV_S, HNERV_S = 600, 300, 300
_WEIGHT_BYTES = 1  # of a parameter quantised to 8 bits, for the peer that has no container


class Curve(Observer):
    """Remembers (seconds, PSNR of the latest batches)."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    def step(self, event: StepEvent) -> None:
        if not math.isnan(event.psnr_db) and (not self.points or event.elapsed_s - self.points[-1][0] >= 1):
            self.points.append((round(event.elapsed_s, 1), round(event.psnr_db, 2)))


def encode(label: str, seconds: float, device: str, folder: Path, **options: object) -> tuple[dict, list]:
    """One encode through the library."""
    curve = Curve()
    out = folder / "a.nerv"
    options = {"encoder": "none", "audio": "none", "crop": (640, 1280), "time_s": seconds, "device": device, **options}
    report = nervcodec.encode(clip("bigbuckbunny.mp4"), out, observer=curve, force=True, **options)
    gc.collect()
    row = {
        "codec": label,
        "fit_s": round(report.fit_s, 1),
        "psnr_db": round(report.psnr_db, 2),
        "held_out_db": None if report.held_out_psnr_db is None else round(report.held_out_psnr_db, 2),
        "bytes": report.size_bytes,
        "parameters": report.parameters,
        "steps": report.steps,
    }
    return row, curve.points


def command(*options: str) -> dict:
    """A whole command with a base layer, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.nerv"
        asked = ["encode", str(clip("bigbuckbunny.mp4")), "-o", str(out), "--crop", "640_1280", "--json", "--quiet"]
        asked += ["--encoder", "none", "--audio", "none", "--base", "av1", *options]
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "nervcodec", *asked], capture_output=True, check=True)
        seconds = time.perf_counter() - start
    report = json.loads(done.stdout)
    return {
        "codec": f"nervcodec --base av1 {' '.join(options)}",
        "fit_s": round(seconds, 1),
        "psnr_db": round(report["psnr"], 2),
        "held_out_db": None,
        "bytes": report["bytes"],
        "parameters": report["parameters"],
        "steps": report["steps"],
    }


def hnerv(seconds: float, device: str) -> tuple[dict, list]:
    """HNeRV's 1.5 M decoder with a free embedding for each frame, Adam at its 1e-3, batch 1, L2; not quantised.

    HNeRV computes the embeddings with a ConvNeXt that is thrown away after the fit; here they are fitted directly,
    which saves it the encoder's time.
    """
    hardware = choose(device)
    options = SourceOptions(crop=(640, 1280))
    info = scan(clip("bigbuckbunny.mp4"), options)
    frames = torch.from_numpy(read_segment(read_frames(info, options), info.frame_count)).to(hardware.device)
    torch.manual_seed(0)
    network = HnervDecoder().to(hardware.device, memory_format=torch.channels_last)
    embeddings = torch.nn.Parameter(torch.randn(len(frames), *HnervDecoder.embedding, device=hardware.device))
    optimizer = torch.optim.Adam([*network.parameters(), embeddings], lr=1e-3, betas=(0.9, 0.999), fused=True)
    schedule = parse_schedule("cosine_0.1_1_0.1")

    def predict(index: int) -> torch.Tensor:
        with hardware.autocast():
            x = embeddings[index : index + 1].contiguous(memory_format=torch.channels_last)
            return network(x)[0].float().permute(1, 2, 0)

    points: list[tuple[float, float]] = []
    steps, smoothed, start = 0, math.nan, time.perf_counter()
    order: list[int] = []
    while (elapsed := time.perf_counter() - start) < seconds:
        order = order or torch.randperm(len(frames)).tolist()
        index = order.pop()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * schedule(elapsed / seconds)
        optimizer.zero_grad(set_to_none=True)
        loss = F.mse_loss(predict(index), frames[index].float() / 255)
        loss.backward()
        optimizer.step()
        steps += 1
        mse = loss.item()
        smoothed = mse if math.isnan(smoothed) else 0.9 * smoothed + 0.1 * mse
        if not points or elapsed - points[-1][0] >= 1:
            points.append((round(elapsed, 1), round(-10 * math.log10(smoothed), 2)))
    with torch.inference_mode():
        total = 0.0
        for index in range(len(frames)):
            image = predict(index).clamp(0, 1).mul(255).round()
            total += 10 * math.log10(255**2 / (image - frames[index].float()).square().mean().item())
    parameters = sum(p.numel() for p in network.parameters()) + embeddings.numel()
    row = {
        "codec": "HNeRV 1.5 M decoder, free embeddings",
        "fit_s": round(elapsed, 1),
        "psnr_db": round(total / len(frames), 2),
        "held_out_db": None,
        "bytes": parameters * _WEIGHT_BYTES,
        "parameters": parameters,
        "steps": steps,
    }
    return row, points


def plot(curves: dict[str, list], rows: list[dict], path: Path) -> None:
    """Curves and points as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for label, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=label, linewidth=1)
    ours = [r for r in rows if r["codec"] == "nervcodec"]
    axes.plot([r["fit_s"] for r in ours], [r["psnr_db"] for r in ours], "ko", label="nervcodec, files with this budget")
    axes.set(xscale="log", xlabel="seconds of fitting", ylabel="PSNR (dB)", title="bunny, 132 frames of 640 x 1280")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of every budget; results are not saved")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only-base", action="store_true", help="only files with a base layer")
    arguments = parser.parse_args()
    share = 1 / 20 if arguments.quick else 1.0
    rows = [command(*options) for options in BASES]
    if arguments.only_base:
        print_rows(rows)
        if not arguments.quick:
            print(save("time_to_quality_base", rows))
        return
    curves: dict[str, list] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seconds in OURS:
            row, curves["nervcodec, longest run"] = encode("nervcodec", seconds * share, arguments.device, folder)
            rows.append(row)
        row, _ = encode("nervcodec, split 6_6_10", OURS[-1] * share, arguments.device, folder, split="6_6_10")
        rows.append(row)
        for label, seconds, options in (
            ("original method (comparable)", ORIGINAL_S, COMPARABLE),
            ("full-frame NeRV", NERV_S, FULL_FRAME_NERV),
        ):
            row, curves[label] = encode(label, seconds * share, arguments.device, folder, **options)
            rows.append(row)
    row, points = hnerv(HNERV_S * share, arguments.device)
    curves[str(row["codec"])] = points
    rows.append(row)
    print_rows(rows)
    if not arguments.quick:
        print(save("time_to_quality", rows, curves=curves))
        plot(curves, rows, RESULTS / "time_to_quality.png")


if __name__ == "__main__":
    main()
