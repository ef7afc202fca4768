# SPDX-License-Identifier: MIT
"""Search over a folder of many containers: the first query, which fills the cache, and the next ones.

    python benchmarks/library.py [--files 1000] [--container FILE]

The files are copies of a real container of ten seconds (made here with 20 s of fitting, or named), each under a header
of its own, so that each has embeddings of its own in the cache. One in a hundred is cut short. "process" is the whole
command with the start of Python and the text encoder; "library" is reading the cache and ranking, once the query is
embedded; "memory" is the process's peak. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from end_to_end import clip
from machine import print_rows, save

import nervcodec
from nervcodec.formats.container import Container
from nervcodec.formats.writer import Writer
from nervcodec.search.index import open_index
from nervcodec.search.moments import find_moments
from nervcodec.semantic.encoder import load

_DAMAGED_EVERY = 100


def fill(folder: Path, source: Path, count: int) -> None:
    """Write ``count`` copies under different headers, one in a hundred cut short."""
    with Container.at(source) as opened:
        header, arrays = opened.header, {name: opened.array(name) for name in opened.header.tensors}
    for number in range(count):
        target = folder / f"clip_{number:05d}.nerv"
        with Writer(target) as writer:
            for name, array in arrays.items():
                writer.add(name, array, header.tensors[name].code)
            size = writer.finish(replace(header, video=replace(header.video, source_name=f"clip {number:05d}.mp4")))
        if number % _DAMAGED_EVERY == _DAMAGED_EVERY - 1:
            os.truncate(target, size // 2)


def command(folder: Path, query: str) -> dict:
    """One run of the command."""
    start = time.perf_counter()
    process = subprocess.run(
        [str(Path(sys.executable).with_name("nervcodec")), "search", query, str(folder), "--min-score", "-2"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"s": round(seconds, 2), "found": process.stdout.count("\n"), "skipped": process.stderr.count("skipped"),
            "memory_mb": round(peak_mb)}  # fmt: skip


def library(folder: Path, query: str) -> dict:
    """Ranking in this process, the encoder loaded and the query embedded."""
    vector = load("offline").embed_text([query])[0]
    files = sorted(folder.iterdir())
    start = time.perf_counter()
    indexes = []
    for file in files:
        try:
            indexes.append(open_index(file))
        except nervcodec.NervError:
            continue
    found = find_moments(indexes, lambda _: (vector, None), 10)
    return {"s": round(time.perf_counter() - start, 3), "found": len(found), "skipped": len(files) - len(indexes),
            "memory_mb": None}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--container", help="a .nerv file of ten seconds, made with the offline encoder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Path(arguments.container) if arguments.container else folder / "one.nerv"
        if not arguments.container:
            nervcodec.encode(clip("bikes.mp4"), source, encoder="offline", time_s=20)
        os.environ["NERVCODEC_CACHE"] = str(folder / "cache")
        files = folder / "files"
        files.mkdir()
        fill(files, source, arguments.files)
        rows = [
            {"what": "one file, process", **command(source, "a bicycle")},
            {"what": "one file again, process", **command(source, "a van")},
            {"what": "folder, first query, process", **command(files, "a bicycle")},
            {"what": "folder, second query, process", **command(files, "a van")},
            {"what": "folder, third query, library", **library(files, "a fence")},
        ]
        indexes = sum(file.stat().st_size for file in (folder / "cache" / "index").iterdir())
        containers = sum(file.stat().st_size for file in files.iterdir())
    rows.append({"what": f"cache of {containers:,} bytes of containers", "s": None, "found": None, "skipped": None,
                 "memory_mb": round(indexes / 1e6, 1)})  # fmt: skip
    print_rows(rows)
    print(save("library", rows, files=arguments.files))


if __name__ == "__main__":
    main()
