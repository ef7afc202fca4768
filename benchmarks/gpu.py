# SPDX-License-Identifier: MIT
"""Everything that wants a GPU, in one call of about four minutes, as one table.

    python benchmarks/gpu.py

Whole encodes of two clips, beside x264 and SVT-AV1 on the same machine; embeddings by a ViT-B/32 of random weights,
whose speed is that of trained ones; decoding to the GPU's memory and to the caller, and the pixels that CUDA and the
CPU give for the same container. Every quality is read from the file that was written.
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
from nervcodec.decoding.rendering import render_tensor
from nervcodec.evaluation import classical
from nervcodec.evaluation.classical import Original
from nervcodec.events import Observer
from nervcodec.media.source import SourceOptions, scan
from nervcodec.network.field import Inputs

CROP = (640, 1280)  # of bunny
FITS = (
    ("bikes.mp4", {"time_s": 30}),
    ("bigbuckbunny.mp4", {"time_s": 30, "crop": CROP}),
    ("bigbuckbunny.mp4", {"time_s": 60, "crop": CROP}),
    ("bigbuckbunny.mp4", {"base": "av1", "crop": CROP}),
)
PEERS = (("x264", 28), ("svtav1", 43))


class Notes(Observer):
    """Keeps what a fit tells its user."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def fits(folder: Path) -> list[dict]:
    """Rows for whole encodes; the last network alone is kept as ``kept.nerv``."""
    rows = []
    for name, options in FITS:
        out = folder / ("based.nerv" if "base" in options else "kept.nerv")
        notes, start = Notes(), time.perf_counter()
        settings = {"encoder": "none", "audio": "none", "device": "cuda", "force": True, **options}
        report = nervcodec.encode(clip(name), out, observer=notes, **settings)
        wall_s = time.perf_counter() - start
        how = f"fitted for {options['time_s']} s" if "time_s" in options else f"--base {options['base']}"
        steps = f"{report.steps} steps, {1000 * report.fit_s / report.steps:.2f} ms each, " if report.steps else ""
        rows.append(
            {
                "what": f"{name}, {how}",
                "value": f"{report.psnr_db:.2f} dB, {report.size_bytes:,} bytes",
                "note": "; ".join([f"{steps}{wall_s:.1f} s in all", *notes.said]),
            }
        )
    return rows


def peers() -> list[dict]:
    """Rows for classical codecs on the CPU of the same machine."""
    rows, chosen = [], SourceOptions(crop=CROP)
    info = scan(clip("bigbuckbunny.mp4"), chosen)
    original = Original(info, chosen)
    for codec, crf in PEERS:
        point = classical.run(classical.CODECS[codec], crf, original)
        decoded = info.frame_count / point.decode_s
        rows.append(
            {
                "what": f"bigbuckbunny.mp4, {point.codec} {point.setting}",
                "value": f"{point.quality.psnr_db:.2f} dB, {point.size_bytes:,} bytes",
                "note": f"{point.encode_s:.1f} s on the CPU, decoded at {decoded:.0f} frames/s",
            }
        )
    return rows


def embedding(folder: Path) -> list[dict]:
    """A row for embedding bikes by a ViT-B/32."""
    import open_clip

    weights = folder / "random.pt"
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), weights)
    report = nervcodec.encode(
        clip("bikes.mp4"),
        folder / "searched.nerv",
        base="av1",
        encoder=f"openclip:ViT-B-32={weights}",
        audio="none",
        device="cuda",
        force=True,
    )
    with nervcodec.open(folder / "searched.nerv", device="cpu") as video:
        frames = len(video.embedded_frames(0))
    return [
        {
            "what": "embedding bikes.mp4, ViT-B/32",
            "value": f"{report.embed_s:.1f} s",
            "note": f"10 s of video, {frames} frames of 8 patches, random weights: speed only",
        }
    ]


def decoding(path: Path) -> list[dict]:
    """Rows for decoding speed and for agreement with the CPU."""
    video = nervcodec.open(path, device="cuda")
    batch, rounds = 8, 40

    def render(start: int) -> torch.Tensor:
        frames = (torch.arange(batch) + start) % len(video)
        return render_tensor(video.network(0), Inputs(frames), video.hardware)

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
        rows += decoding(folder / "kept.nerv")
        rows += peers()
        rows += embedding(folder)
    print_rows(rows)
    print(save("gpu", rows))


if __name__ == "__main__":
    main()
