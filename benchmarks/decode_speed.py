# SPDX-License-Identifier: MIT
"""Frames a second at 1280 x 640, handed to the caller as uint8 arrays: ours, HNeRV's decoder, the original method.

    python benchmarks/decode_speed.py [--quick] [--device cuda]

Speed does not depend on the values of weights, so every network has random ones; ours goes through a real container.
The runs take turns, three rounds, and the best of each is reported with the spread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from end_to_end import clip
from machine import print_rows, save
from peers import COMPARABLE, FULL_FRAME_NERV, HnervDecoder

import nervcodec
from nervcodec.device import Hardware, choose

SOURCE = {"crop": (640, 1280), "encoder": "none", "audio": "none", "epochs": 1, "force": True}


def container(folder: Path, name: str, **options: object) -> Path:
    """A container of the whole clip after the shortest possible fit."""
    path = folder / f"{name}.nerv"
    nervcodec.encode(clip("bigbuckbunny.mp4"), path, **{**SOURCE, **options})
    return path


def of_container(path: Path, hardware: Hardware, frames: int) -> Callable[[], int]:
    """Decode the first frames through the Python API."""
    video = nervcodec.open(path, hardware.device, hardware.precision)

    def run() -> int:
        return sum(1 for _ in video.frames(range(min(frames, len(video)))))

    return run


def of_hnerv(hardware: Hardware, frames: int) -> Callable[[], int]:
    """Decode random embeddings one frame at a time, as HNeRV's own evaluation does."""
    network = HnervDecoder().eval().requires_grad_(False).to(hardware.device, memory_format=torch.channels_last)
    embeddings = torch.randn(frames, *HnervDecoder.embedding, device=hardware.device)

    @torch.inference_mode()
    def run() -> int:
        with hardware.autocast():
            for embedding in embeddings:
                x = network(embedding[None].contiguous(memory_format=torch.channels_last))
                x.float().clamp_(0, 1).mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return frames

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer frames, one round; results are not saved")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    fast = choose(arguments.device)
    plain = Hardware(fast.device, "fp32")
    few = 4 if arguments.quick else 16
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = container(folder, "ours")
        layered = container(folder, "layered", base="av1", crf=57, epochs=None)
        runs = {
            "nervcodec --base av1": of_container(layered, fast, 132),
            f"nervcodec, {fast.precision}": of_container(ours, fast, 33 if arguments.quick else 132),
            "nervcodec, fp32": of_container(ours, plain, 33 if arguments.quick else 132),
            f"HNeRV 1.5 M, {fast.precision}": of_hnerv(fast, few),
            "HNeRV 1.5 M, fp32": of_hnerv(plain, few),
            f"original method (comparable), {fast.precision}": of_container(
                container(folder, "comparable", **{**COMPARABLE, "batch_size": 256}), fast, few
            ),
            f"full-frame NeRV, {fast.precision}": of_container(
                container(folder, "nerv", **{**FULL_FRAME_NERV, "batch_size": 32, "duration_s": 1.0}), fast, few
            ),
        }
        speeds: dict[str, list[float]] = {label: [] for label in runs}
        for run in runs.values():
            run()  # builds the network, fills caches
        for _ in range(1 if arguments.quick else 3):
            for label, run in runs.items():
                start = time.perf_counter()
                speeds[label].append(run() / (time.perf_counter() - start))
    rows = [
        {"decoder": label, "frames_per_s": round(max(values), 1), "slowest_round": round(min(values), 1)}
        for label, values in speeds.items()
    ]
    print_rows(rows)
    if not arguments.quick:
        print(save("decode_speed" if fast.device == "cpu" else "decode_speed_gpu", rows))


if __name__ == "__main__":
    main()
