# SPDX-License-Identifier: MIT
"""Rate-distortion curves: ours at several sizes beside x264, x265, SVT-AV1 and VVenC on the same frames, in one run.

    python benchmarks/rate_distortion.py [CLIP] [--crop 640_1280] [--sizes 150KB,300KB] [--times 3m,10m] [--quick]

Without CLIP: bunny, cropped to 640 x 1280. Every point is a file that was written, decoded and compared with the
decoded source: PSNR and MS-SSIM in RGB, VMAF through libvmaf. Bytes are the whole container for ours, the packets of
the video stream for the others. BD-rate (Bjontegaard 2001, by the package ``bjontegaard``, Akima interpolation) says
how many more bytes ours takes at equal PSNR. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bjontegaard import bd_rate
from end_to_end import clip
from machine import RESULTS, print_rows, save

import nervcodec
from nervcodec import metrics
from nervcodec.evaluation import classical, plots
from nervcodec.evaluation.classical import CODECS, Point
from nervcodec.ranges import parse_duration, parse_pair, parse_size
from nervcodec.video.source import SourceOptions, VideoInfo, scan

QUALITIES = {
    "x264": (30, 34, 38, 42, 46),
    "x265": (30, 34, 38, 42, 46),
    "svtav1": (45, 51, 57, 63),
    "vvenc": (34, 39, 44, 49),
}
OURS = "nervcodec"


def ours(source: Path, size: float, seconds: float, device: str, info: VideoInfo, options: SourceOptions) -> Point:
    """One container of ours, at a size, judged as the others are."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "a.nerv"
        start = time.perf_counter()
        report = nervcodec.encode(
            source, out, size_bytes=size, time_s=seconds, crop=options.crop, encoder="none", audio="none", device=device
        )
        encode_s = time.perf_counter() - start
        video = nervcodec.open(out, device)
        start = time.perf_counter()
        for _ in video.frames():
            pass
        decode_s = time.perf_counter() - start
        quality = classical.judge(video.frames(), info, options)
    rate = metrics.rate_bpp(report.size_bytes, info.frame_count, info.height, info.width)
    return Point(OURS, f"{size / 1000:g}KB, {seconds:g} s", report.size_bytes, rate, quality, encode_s, decode_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", help="a video; default: bunny")
    parser.add_argument("--crop", help="height and width; default: 640_1280 for bunny, none for CLIP")
    parser.add_argument("--sizes", default="150KB,300KB,450KB,900KB", help="of our containers")
    parser.add_argument("--times", default="10m", help="of fitting: one, or one for each size")
    parser.add_argument("--codecs", default=",".join(CODECS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="20 s for each of ours, x264 alone; results are not saved")
    arguments = parser.parse_args()

    source = Path(arguments.clip) if arguments.clip else clip("bigbuckbunny.mp4")
    crop = arguments.crop or (None if arguments.clip else "640_1280")
    options = SourceOptions(crop=parse_pair(crop, "x_") if crop else None)
    info = scan(source, options)
    sizes = [parse_size(text) for text in arguments.sizes.split(",")]
    times = [20.0] if arguments.quick else [parse_duration(text) for text in arguments.times.split(",")]
    times = times * len(sizes) if len(times) == 1 else times
    names = ["x264"] if arguments.quick else classical.parse_codecs(arguments.codecs)

    curves: dict[str, list[Point]] = {OURS: []}
    for size, seconds in zip(sizes, times, strict=True):
        curves[OURS].append(ours(source, size, seconds, arguments.device, info, options))
    for name in names:
        codec = CODECS[name]
        curves[codec.label] = [classical.run(codec, quality, info, options) for quality in QUALITIES[name]]

    rows = [point.to_json() for points in curves.values() for point in points]
    print_rows(rows)
    differences = [{"against": label, **bd(points, curves[OURS])} for label, points in curves.items() if label != OURS]
    print_rows(differences)
    if not arguments.quick:
        stem = f"rate_distortion_{source.stem}"
        print(save(stem, rows, clip=source.name, size=[info.width, info.height], bd_rate=differences))
        drawn = {label: [(p.size_bytes, p.quality.psnr_db) for p in points] for label, points in curves.items()}
        title = f"{source.name}, {info.frame_count} frames of {info.width} x {info.height}"
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
