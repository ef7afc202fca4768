# SPDX-License-Identifier: MIT
"""What key frames of an AV1 base cost: one a segment, SVT-AV1's default interval, and those that nervcodec forces.

    python benchmarks/key_frames.py [--clips bikes,bunny] [--preset 4]

Bytes and PSNR do not depend on the load of the machine. The BD-rate is of the PSNR in RGB, against one key a segment.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bjontegaard import bd_rate
from end_to_end import clip
from machine import print_rows, save

from nervcodec import metrics
from nervcodec.base import codec, obu
from nervcodec.base.codec import base_format, to_base
from nervcodec.colour import to_rgb8
from nervcodec.formats.header import PlaneFormat
from nervcodec.media.options import SourceOptions
from nervcodec.media.reader import plane_format, read_planes
from nervcodec.media.shots import find_cuts, thumbnails
from nervcodec.media.source import scan

DEPTH, CRFS = 10, (35, 43, 50, 57)
SVT_INTERVAL = 161  # frames, at 25 a second
CLIPS = {"bikes": ("bikes.mp4", None), "bunny": ("bigbuckbunny.mp4", (640, 1280))}


def rows_of(name: str, source: Path, crop: tuple[int, int] | None, preset: int) -> list[dict]:
    """All figures of one clip."""
    options = SourceOptions(crop=crop)
    info = scan(source, options)
    native = plane_format(info, options)
    form, size = base_format(native, DEPTH), (info.width, info.height)
    planes = list(read_planes(info, options, native))
    pixels = [to_rgb8(frame, native)[0] for frame in planes]
    frames = [to_base(frame, native, DEPTH) for frame in planes]
    cuts = find_cuts(np.stack([thumbnails(f.y >> (native.depth - 8))[0] for f in planes])[..., None])
    ways: dict[str, Sequence[int]] = {
        "one a segment": (),
        "SVT-AV1's interval": range(SVT_INTERVAL, len(frames), SVT_INTERVAL),
        "at cuts, at most 6.5 s apart": codec.key_frames(len(frames), info.frame_rate, cuts),
    }
    rows, curves = [], {}
    for way, keys in ways.items():
        points = []
        for crf in CRFS:
            stream = codec.encode(frames, form, *size, info.frame_rate, crf, preset, keys)
            decoded = codec.decode(obu.temporal_units(stream), form, *size)
            psnr_db = np.mean([metrics.psnr_db(to_rgb8(f, form)[0], p) for f, p in zip(decoded, pixels, strict=True)])
            points.append((len(stream), float(psnr_db)))
        curves[way] = points
        starts = [0, *sorted(set(keys) - {0}), len(frames)]
        longest = int(np.argmax(np.diff(starts)))
        worst_s = _decode_s(stream, form, size, *starts[longest : longest + 2])
        rows.append(
            {
                "clip": name,
                "key_frames": way,
                "numbers": starts[:-1],
                "crf_bytes_db": [(crf, size_, round(db, 3)) for crf, (size_, db) in zip(CRFS, points, strict=True)],
                "worst_frame_s": round(worst_s, 3),
                "bd_rate_percent": round(_bd_rate(curves["one a segment"], points), 2),
            }
        )
    return rows


def _decode_s(stream: bytes, form: PlaneFormat, size: tuple[int, int], first: int, end: int) -> float:
    """Seconds to decode the frame before ``end`` from the key frame ``first`` on, and to convert it to RGB."""
    start = time.perf_counter()
    with contextlib.closing(codec.decode(obu.temporal_units(stream)[first:], form, *size)) as decoded:
        (last,) = itertools.islice(decoded, end - first - 1, end - first)
    to_rgb8(last, form)
    return time.perf_counter() - start


def _bd_rate(anchor: list[tuple[int, float]], other: list[tuple[int, float]]) -> float:
    (rate_a, db_a), (rate_b, db_b) = (tuple(map(list, zip(*sorted(points), strict=True))) for points in (anchor, other))
    return bd_rate(rate_a, db_a, rate_b, db_b, method="akima", require_matching_points=False, min_overlap=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="bikes,bunny")
    parser.add_argument("--preset", type=int, default=4)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.clips.split(","):
        file, crop = CLIPS[name]
        rows += rows_of(name, clip(file), crop, arguments.preset)
    print_rows(rows)
    print(save("key_frames", rows, preset=arguments.preset))


if __name__ == "__main__":
    main()
