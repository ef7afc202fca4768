# SPDX-License-Identifier: MIT
"""Everything that wants a GPU, in one call of under nine minutes, as one table.

    python benchmarks/gpu.py

Fits bunny (640 x 1280) for 30 and 240 s, measures decoding to the GPU's memory and to the caller, and compares the
pixels that CUDA and the CPU give for the same container.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from end_to_end import clip
from machine import print_rows, save

import nervcodec
from nervcodec.decoding.pixels import rendered_there
from nervcodec.network.inputs import Inputs

BUDGETS_S = (30, 240)


def fits(folder: Path) -> list[dict]:
    """Rows for whole encodes, judged from their files."""
    rows = []
    for seconds in BUDGETS_S:
        out = folder / f"{seconds}.nerv"
        report = nervcodec.encode(
            clip("bigbuckbunny.mp4"),
            out,
            crop=(640, 1280),
            encoder="none",
            audio="none",
            time_s=seconds,
            device="cuda",
            force=True,
        )
        rows.append(
            {
                "what": f"bunny, {seconds} s of fitting",
                "value": f"{report.psnr_db:.2f} dB, {report.size_bytes:,} bytes",
                "note": f"{report.steps} steps, {1000 * report.fit_s / report.steps:.2f} ms each",
            }
        )
    return rows


def decoding(path: Path) -> list[dict]:
    """Rows for decoding speed and for agreement with the CPU."""
    video = nervcodec.open(path, device="cuda")
    batch, rounds = 8, 40

    def render(start: int) -> torch.Tensor:
        frames = (torch.arange(batch) + start) % len(video)
        return rendered_there(video.network(0), Inputs(frames), video.hardware)

    render(0)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for index in range(rounds):
        render(index * batch)
    torch.cuda.synchronize()
    to_gpu = batch * rounds / (time.perf_counter() - start)
    start = time.perf_counter()
    count = sum(1 for _ in video.frames())
    to_caller = count / (time.perf_counter() - start)
    on_cpu = nervcodec.open(path, device="cpu", precision="fp32")
    chosen = range(0, len(video), 16)
    gap = np.mean([np.abs(video[i].astype(float) - on_cpu[i].astype(float)).mean() for i in chosen])
    return [
        {"what": "decode to GPU memory", "value": f"{to_gpu:.0f} frames/s", "note": f"1280 x 640, batches of {batch}"},
        {"what": "decode to uint8 arrays", "value": f"{to_caller:.0f} frames/s", "note": "1280 x 640, Python API"},
        {"what": "CUDA against CPU fp32", "value": f"{gap:.3f} of 255", "note": "mean difference of pixels"},
    ]


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = fits(folder)
        rows += decoding(folder / f"{BUDGETS_S[0]}.nerv")
    print_rows(rows)
    print(save("gpu", rows))


if __name__ == "__main__":
    main()
