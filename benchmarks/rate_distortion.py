# SPDX-License-Identifier: MIT
"""Rate-distortion curves: ours at several sizes beside x264, x265, SVT-AV1 and VVenC on the same frames, in one run.

    python benchmarks/rate_distortion.py [CLIP] [--crop 640_1280] [--sizes 150KB,300KB] [--times 3m,10m] [--quick]
    python benchmarks/rate_distortion.py [CLIP] --base av1 [--crfs 38,46,54,60] [--times 100s] [--encoder offline]

Without CLIP: bunny, cropped to 640 x 1280. Every point is a file that was written, decoded and compared with the
decoded source: PSNR and MS-SSIM in RGB, VMAF through libvmaf. Bytes are the whole container for ours, the packets of
the video stream for the others. BD-rate (Bjontegaard 2001, by the package ``bjontegaard``, Akima interpolation) says
how many more bytes ours takes at equal quality. Nothing else may run meanwhile.

With ``--base av1`` source and all codecs become RGB by the same arithmetic of ours, from their own samples; there are
three curves of ours: the base alone (the same frames, its streams' bytes), the files as they are, and with embeddings
where an encoder is named. Without it ffmpeg's scaler makes RGB of all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from bjontegaard import bd_rate
from end_to_end import clip
from machine import RESULTS, print_rows, save

import nervcodec
from nervcodec import metrics
from nervcodec.evaluation import classical, plots
from nervcodec.evaluation.classical import CODECS, Original, Point
from nervcodec.media.source import SourceOptions, scan
from nervcodec.ranges import parse_duration, parse_pair, parse_size

QUALITIES = {
    "x264": (30, 34, 38, 42, 46),
    "x265": (30, 34, 38, 42, 46),
    "svtav1": (45, 51, 57, 63),
    "svtav1-10bit": (45, 51, 57, 63),
    "vvenc": (34, 39, 44, 49),
}
BESIDE_BASE = {**QUALITIES, "svtav1": (38, 46, 54, 60, 63), "svtav1-10bit": (38, 46, 54, 60, 63)}
OURS, BASE_ALONE, SEARCHABLE = "nervcodec", "its base alone", "nervcodec with embeddings"


def ours(label: str, original: Original, device: str, **options: object) -> list[Point]:
    """One container of ours, judged as the others are; and its base alone, where it has one."""
    info = original.info
    setting = ", ".join(f"{name} {value:g}" for name, value in options.items() if _is_number(value))
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "a.nerv"
        start = time.perf_counter()
        report = nervcodec.encode(info.path, out, crop=original.options.crop, audio="none", device=device, **options)
        encode_s = time.perf_counter() - start
        video = nervcodec.open(out, device)
        start = time.perf_counter()
        for _ in video.frames():
            pass
        decode_s = time.perf_counter() - start
        points = [_point(label, setting, report.size_bytes, video.frames(), original, (encode_s, decode_s))]
        if report.base is not None:
            base = report.base.size_bytes
            points.append(_point(BASE_ALONE, setting, base, video.frames(), original, (encode_s, decode_s)))
            print(f"{label}, {setting}: {report.base.in_words()}", flush=True)
    return points


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _point(
    label: str, setting: str, size: int, frames: Iterable[np.ndarray], original: Original, seconds: tuple[float, float]
) -> Point:
    info = original.info
    rate = metrics.rate_bpp(size, info.frame_count, info.height, info.width)
    return Point(label, setting, size, rate, classical.judge(frames, original), *seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", help="a video; default: bunny")
    parser.add_argument("--crop", help="height and width; default: 640_1280 for bunny, none for CLIP")
    parser.add_argument("--sizes", default="150KB,300KB,450KB,900KB", help="of our containers without a base")
    parser.add_argument("--base", choices=("none", "av1"), default="none")
    parser.add_argument("--crfs", default="38,46,54,60,63", help="of our base")
    parser.add_argument("--encoder", default="none", help="also measure files with embeddings by this encoder")
    parser.add_argument(
        "--times",
        help="of fitting, or (with a base) of coding: one, or one for each size or crf; default: 10m, with a base 100s",
    )
    parser.add_argument("--codecs", help="default: x264,x265,svtav1,vvenc; with a base SVT-AV1 and x265")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="20 s for each of ours, x264 alone; results are not saved")
    arguments = parser.parse_args()

    source = Path(arguments.clip) if arguments.clip else clip("bigbuckbunny.mp4")
    crop = arguments.crop or (None if arguments.clip else "640_1280")
    options = SourceOptions(crop=parse_pair(crop, "x_") if crop else None)
    has_base = arguments.base != "none"
    original = Original(scan(source, options), options, has_base)
    usual = "svtav1,svtav1-10bit,x265" if has_base else "x264,x265,svtav1,vvenc"
    names = ["x264"] if arguments.quick else classical.parse_codecs(arguments.codecs or usual)
    settings = (
        [{"base": arguments.base, "crf": float(text)} for text in arguments.crfs.split(",")]
        if has_base
        else [{"size_bytes": parse_size(text)} for text in arguments.sizes.split(",")]
    )
    stated = "20s" if arguments.quick else arguments.times or ("100s" if has_base else "10m")
    times = [None if text == "none" else parse_duration(text) for text in stated.split(",")]
    times = times * len(settings) if len(times) == 1 else times

    curves: dict[str, list[Point]] = {}
    for chosen, seconds in zip(settings, times, strict=True):
        for point in ours(OURS, original, arguments.device, encoder="none", time_s=seconds, **chosen):
            curves.setdefault(point.codec, []).append(point)
        if arguments.encoder != "none":
            found = ours(SEARCHABLE, original, arguments.device, encoder=arguments.encoder, time_s=seconds, **chosen)
            curves.setdefault(SEARCHABLE, []).append(found[0])
    for name in names:
        codec = CODECS[name]
        qualities = (BESIDE_BASE if has_base else QUALITIES)[name]
        curves[codec.label] = [classical.run(codec, quality, original) for quality in qualities]

    rows = [point.to_json() for points in curves.values() for point in points]
    print_rows(rows)
    own = [label for label in (OURS, BASE_ALONE, SEARCHABLE) if label in curves]
    differences = [
        {"curve": label, "against": anchor, **bd(curves[anchor], curves[label])}
        for label in own
        for anchor in curves
        if anchor not in own
    ]
    print_rows(differences)
    if not arguments.quick:
        stem = f"rate_distortion_{source.stem}{'_base' if has_base else ''}"
        facts = {"clip": source.name, "size": [original.info.width, original.info.height], "bd_rate": differences}
        print(save(stem, rows, **facts))
        drawn = {label: [(p.size_bytes, p.quality.psnr_db) for p in points] for label, points in curves.items()}
        title = f"{source.name}, {original.info.frame_count} frames of {original.info.width} x {original.info.height}"
        plots.rate_distortion(drawn, title, RESULTS / f"{stem}.png")


def bd(anchor: list[Point], test: list[Point]) -> dict[str, float | None]:
    """BD-rate of one curve against another in percent, by each measure; None where the curves do not overlap."""

    def by(measure: str) -> float | None:
        a, b = (
            sorted(
                (getattr(p.quality, measure), p.size_bytes) for p in points if getattr(p.quality, measure) is not None
            )
            for points in (anchor, test)
        )
        if not a or not b or min(a[-1][0], b[-1][0]) <= max(a[0][0], b[0][0]):
            return None
        (qa, ra), (qb, rb) = zip(*a, strict=True), zip(*b, strict=True)
        found = bd_rate(ra, qa, rb, qb, method="akima", require_matching_points=False, min_overlap=0)
        return round(float(found), 1)

    return {f"bd_rate_{measure}_percent": by(measure) for measure in ("psnr_db", "ms_ssim", "vmaf")}


if __name__ == "__main__":
    main()
