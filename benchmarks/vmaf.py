# SPDX-License-Identifier: MIT
"""``--vmaf``: the VMAF that ffmpeg measures on all frames of the decoded file, and time over that of a fixed crf.

``python benchmarks/vmaf.py CLIP... --vmaf 93 -o OUT.json``. The other measurement decodes the base stream and the
source by ffmpeg alone, as a user would.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

import nervcodec
from nervcodec.base.export import write_base
from nervcodec.formats.container import Container
from nervcodec.media import ffmpeg

COMMON = {"base": "av1", "encoder": "none", "audio": "none", "force": True}


def encoded(clip: Path, out: Path, **settings: object) -> tuple[nervcodec.EncodeReport, float]:
    """The report of an encode, and its seconds."""
    start = time.perf_counter()
    report = nervcodec.encode(clip, out, **COMMON, **settings)
    return report, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--vmaf", type=float, default=93.0)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        for clip in arguments.clips:
            out = Path(name) / "a.nerv"
            report, searched_s = encoded(clip, out, vmaf=arguments.vmaf)
            video = Path(name) / "a.mp4"
            with Container.open(out) as opened:
                write_base(opened, video)
                crf = opened.header.base.crf
            _, fixed_s = encoded(clip, out, crf=crf or 40)
            results[clip.name] = {
                "vmaf_of_encode": round(report.vmaf.score, 3),
                "measured_frames": report.vmaf.frames,
                "vmaf_of_all_frames": measured(video, clip),
                "frames": report.frames,
                "crf": crf,
                "bytes": report.size_bytes,
                "seconds": round(searched_s, 2),
                "seconds_at_fixed_crf": round(fixed_s, 2),
                "ratio": round(searched_s / fixed_s, 2),
            }
            print(clip.name, results[clip.name], flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


def measured(video: Path, clip: Path) -> float:
    """VMAF by ffmpeg, whose threads decode both."""
    graph = "[0:v]setpts=N,format=yuv420p10le[d];[1:v]setpts=N,format=yuv420p10le[r];[d][r]libvmaf=n_threads=2"
    command = [ffmpeg.executable(), "-i", video, "-i", clip, "-lavfi", graph, "-f", "null", "-"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return float(re.search(r"VMAF score: ([\d.]+)", log)[1])


if __name__ == "__main__":
    main()
