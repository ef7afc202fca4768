# SPDX-License-Identifier: MIT
"""What a network alone loses with ``--segment``: same bytes, same time, in one segment and in several.

    python benchmarks/segments.py [--time 180] [--kb 300] [--clips bikes,still] [--quick]

Several segments share a decoder. ``bikes`` is ten seconds of film, in five segments of two; ``still`` a camera that
stands still for thirty seconds, made as for ``long_video.py``, in three segments of ten, with embeddings. Both are one
segment by default. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from end_to_end import clip
from long_video import still
from machine import print_rows, save

import nervcodec
from nervcodec.formats.container import Container


def row(source: Path, segment: str | None, settings: dict, folder: Path) -> dict:
    """One encode."""
    out = folder / "a.nerv"
    report = nervcodec.encode(source, out, segment=segment, force=True, **settings)
    with Container.open(out) as opened:
        segments, shared = len(opened.header.segments), opened.nbytes("shared/weights")
    return {
        "video": source.stem,
        "segments": segments,
        "bytes": report.size_bytes,
        "shared_bytes": shared,
        "psnr_db": round(report.psnr_db, 2),
        "steps": report.steps,
        "embed_s": round(report.embed_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", type=float, default=180.0, help="seconds of fitting for the whole video")
    parser.add_argument("--kb", type=float, default=300.0, help="size of a file, in thousands of bytes")
    parser.add_argument("--clips", default="bikes,still")
    parser.add_argument("--quick", action="store_true", help="a few seconds; results are not saved")
    arguments = parser.parse_args()
    settings = {"time_s": 10.0 if arguments.quick else arguments.time, "size_bytes": arguments.kb * 1000}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for chosen in arguments.clips.split(","):
            is_film = chosen == "bikes"
            source = clip("bikes.mp4") if is_film else still(folder, 30)
            more = {**settings, "encoder": "none" if is_film else "offline"}
            rows += [row(source, segment, more, folder) for segment in (None, "2s" if is_film else "10s")]
    print_rows(rows)
    if not arguments.quick:
        print(save("segments", rows, time_s=arguments.time))


if __name__ == "__main__":
    main()
