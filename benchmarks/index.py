# SPDX-License-Identifier: MIT
"""The index of a folder of many containers, and searches with it.

    python benchmarks/index.py make FOLDER     10,000 perturbed containers and 1,000 copies (2.5 GB)
    python benchmarks/index.py measure FOLDER  times, memory and sizes
    python benchmarks/index.py compare FOLDER  top ten with the index and file by file, 50 queries
    python benchmarks/index.py kill FOLDER     an update killed 20 times at random moments, with searches meanwhile

Each adds its rows to results/index.json. Perturbed containers have the network of a real fit of one of three clips
and a semantic head of their own: codes stretched and shaken, three directions replaced by classes that appear for a
while in some patches. Their heads are kept as float16, since coding them would take a tenth of a second each; copies
have real heads under headers of their own. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command has it

import numpy as np
from end_to_end import clip
from machine import RESULTS, print_rows, save

import nervcodec
from nervcodec.evaluation.fidelity import shipped_queries as queries
from nervcodec.formats import bitstream
from nervcodec.formats.container import Container, Writer
from nervcodec.formats.weights import MARK
from nervcodec.index.lookup import search_files, select_candidates
from nervcodec.search.files import find_containers
from nervcodec.search.moments import EXTRA_VIDEOS, Moment, find_moments
from nervcodec.search.query import EncodedQuery, Query, QueryEncoder, Term, encode_query
from nervcodec.search.scores import VideoEmbeddings
from nervcodec.semantic.encoder import load

CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
COPIES, KILLS, KILLED_FILES, TOP = 1000, 20, 300, 10
COMMAND = str(Path(sys.executable).with_name("nervcodec"))
SEMANTIC = "semantic."
LAUNCH = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def bases(folder: Path) -> list[Path]:
    """Small real fits, made once."""
    found = []
    for name in CLIPS:
        out = folder / f"{Path(name).stem}.nerv"
        found.append(out)
        if not out.exists():
            settings = {"encoder": "offline", "time_s": 15, "size_bytes": 90_000, "audio": "none"}
            # The other clips are half as long as bikes: twice the embeddings a second make as many of them.
            nervcodec.encode(clip(name), out, semantic_fps=5.0 if name == CLIPS[0] else 10.0, **settings)
    return found


class Perturbed:
    """Containers like a real one whose semantic head is another."""

    def __init__(self, source: Path, classes: np.ndarray):
        with Container.open(source) as opened:
            self.header = opened.header
            (name,) = (name for name in opened.header.tensors if opened.header.tensors[name].code is not None)
            stream = opened.array(name)
        self.name, self.code, self.classes = name, self.header.tensors[name].code, classes
        read = bitstream.read(stream)
        self.rest = {n: t for n, t in read.items() if not n.startswith(SEMANTIC)}
        heads = {n: t for n, t in read.items() if n.startswith(SEMANTIC)}
        self.head = bitstream.values(heads)
        tables = {n: t for n, t in self.rest.items() if n.startswith(MARK)}
        others = {n: t for n, t in self.rest.items() if not n.startswith(MARK)}
        self.order = [*tables, *self.head, *others]
        plain = bitstream.encode({n: self.rest.get(n, self.head.get(n)) for n in self.order})
        lines, start = bitstream.read_table(plain)
        self.halves = [line.name for line in lines if not line.steps]
        size = sum(2 * line.size for line in lines if not line.steps)
        self.begin, self.end = plain[:start].tobytes(), plain[start + size :].tobytes()

    def write(self, target: Path, seed: int) -> None:
        """One of them."""
        rng = np.random.default_rng(seed)
        head = {name: values.copy() for name, values in self.head.items()}
        codes, directions = head["semantic.codes"], head["semantic.directions.weight"]
        entries, rank, rows, columns = codes.shape
        codes *= rng.normal(1, 0.2, (1, rank, 1, 1)) * rng.normal(1, 0.05, codes.shape)
        for place in range(rank - 3, rank):
            directions[:, place] = self.classes[rng.integers(len(self.classes))]
            head["semantic.gain"][place] = 1
            first, last = np.sort(rng.integers(0, entries + 1, 2))
            shown = rng.random((rows, columns)) < 0.25
            codes[:, place] = 0
            codes[first:last, place] = shown * rng.uniform(0.1, 0.8)
        values = {n: head[n] if n in head else self.rest[n] for n in self.halves}
        halves = b"".join(values[n].astype("<f2").tobytes() for n in self.halves)
        stream = np.frombuffer(self.begin + halves + self.end, np.uint8)
        with Writer(target) as writer:
            writer.add(self.name, stream, self.code)
            facts = replace(self.header.video, source_name=f"clip {seed:05d}.mp4")
            writer.finish(replace(self.header, video=facts, tensors=writer.tensors))


def make(folder: Path, count: int) -> None:
    """Fill ``many`` with perturbed containers and ``copies`` with copies."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("many", "copies"):
        (folder / name).mkdir(exist_ok=True)
    classes = load("offline").mixture.class_vectors
    kinds = [Perturbed(source, classes) for source in bases(folder)]
    start = time.perf_counter()
    for number in range(count):
        place = folder / "many" / f"{number // 500:02d}"
        place.mkdir(exist_ok=True)
        kinds[number % len(kinds)].write(place / f"{number:05d}.nerv", number)
    for number in range(COPIES):
        with Container.open(bases(folder)[number % len(CLIPS)]) as opened:
            header, arrays = opened.header, {name: opened.array(name) for name in opened.header.tensors}
        with Writer(folder / "copies" / f"{number:05d}.nerv") as writer:
            for name, array in arrays.items():
                writer.add(name, array, header.tensors[name].code)
            facts = replace(header.video, source_name=f"copy {number:05d}.mp4")
            writer.finish(replace(header, video=facts))
    print(f"made in {time.perf_counter() - start:.0f} s")


def command(*arguments: object) -> dict:
    """One run of the command, with the peak of its own memory."""
    # Through a small process: the peak of a child is never less than what its parent had when it was started.
    process = subprocess.run([sys.executable, "-S", "-c", LAUNCH, COMMAND, *map(str, arguments)],
                             capture_output=True, text=True, check=True)  # fmt: skip
    seconds, memory_kb = process.stdout.split()[-2:]
    return {"s": round(float(seconds), 2), "memory_mb": round(int(memory_kb) / 1024)}


def size_mb(folder: Path) -> int:
    """Of all files in a folder."""
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6)


def row(what: str, value: float) -> dict:
    """A line without a time."""
    return {"what": what, "s": None, "memory_mb": value}


def encoded(text: str) -> EncodedQuery:
    return encode_query(Query((Term(text),)), ENCODER)


def search(folder: Path, query: Callable[[str], EncodedQuery], with_index: bool = True) -> list[Moment]:
    """The best moments below a folder."""
    folders = [str(folder)] if with_index else []
    return search_files(find_containers([str(folder)]), folders, query, TOP).moments


def measure(folder: Path) -> list[dict]:
    """Times and memory."""
    many, copies = folder / "many", folder / "copies"
    for place in (many, copies):
        shutil.rmtree(place / ".nervcodec", ignore_errors=True)
    rows = [{"what": "first index of 1,000, process", **command("index", copies)}]
    count = len(find_containers([str(many)]))
    rows.append({"what": f"first index of {count:,} perturbed, process", **command("index", many)})
    own = size_mb(many / ".nervcodec")
    rows.append(row(f"size of it, beside {size_mb(many) - own:,} MB of containers", own))
    changed = next(many.rglob("*.nerv"))
    shutil.copy(copies / "00000.nerv", changed)
    rows.append({"what": "up to date after one change, process", **command("index", many)})
    rows.append({"what": "up to date, nothing changed, process", **command("index", many)})
    rows.append({"what": "query, process", **command("search", "a bicycle", many)})
    rows.append({"what": "query again, process", **command("search", "a violin", many)})
    seconds = []
    for text in queries()[:50]:
        query = encoded(text)
        start = time.perf_counter()
        search(many, lambda _, query=query: query)
        seconds.append(time.perf_counter() - start)
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    what = "query, encoder loaded, folder and index read, median of 50"
    return [*rows, {"what": what, "s": round(float(np.median(seconds)), 3), "memory_mb": peak}]


def exact(files: list[Path], vectors: np.ndarray) -> list[list[tuple[float, str]]]:
    """The best containers for each query, from the containers themselves."""
    best = np.full((len(files), len(vectors)), -9.0, np.float32)
    for scores, file in zip(best, files, strict=True):
        video = VideoEmbeddings.read(file)
        scores[:] = [video.scores(vector).max() for vector in vectors]
    order = np.argsort(-best, axis=0, kind="stable")[: TOP + EXTRA_VIDEOS]
    return [[(float(best[n, q]), str(files[n])) for n in order[:, q]] for q in range(len(vectors))]


def alike(some: list[Moment], others: list[Moment]) -> bool:
    """The same moments and scores, but for the seventh digit: it changes with the place of numbers in memory."""
    pairs = list(zip(some, others, strict=False))
    same = all(replace(a, score=0) == replace(b, score=0) and abs(a.score - b.score) < 2e-6 for a, b in pairs)
    return same and len(some) == len(others)


def compare(folder: Path) -> list[dict]:
    """Top ten of 50 queries with the index and file by file."""
    many = folder / "many"
    files = find_containers([str(many)])
    texts = queries()[:50]
    encodings = [encoded(text) for text in texts]
    vectors, paths = np.stack([query.vector for query in encodings]), list(files)
    with ProcessPoolExecutor(2) as pool:
        parts = list(pool.map(exact, [paths[0::2], paths[1::2]], [vectors, vectors]))
    same = reached = shown = 0
    for number, query in enumerate(encodings):
        best = sorted((entry for part in parts for entry in part[number]), key=lambda e: (-e[0], e[1]))
        best = best[: TOP + EXTRA_VIDEOS]
        videos = [VideoEmbeddings.read(Path(path)) for _, path in sorted(best, key=lambda entry: entry[1])]
        one_by_one = find_moments(videos, lambda _, query=query: query, TOP)
        with_index = search(many, lambda _, query=query: query)
        same += alike(with_index, one_by_one)
        shown += len(with_index)
        known = select_candidates(many, files, lambda _, query=query: query, TOP)
        candidates = {str(file) for file, video in known.items() if isinstance(video, VideoEmbeddings)}
        reached += len({path for _, path in best} & candidates)
    share = round(100 * reached / (TOP + EXTRA_VIDEOS) / len(texts), 2)
    return [
        row(f"top ten the same, of {len(texts)} queries ({shown} moments)", same),
        row(f"of the {TOP + EXTRA_VIDEOS} best containers of each, among the candidates, %", share),
    ]


def kill(folder: Path) -> list[dict]:
    """Killed at random while writing; each search meanwhile and at the end must give the result of file by file."""
    place = folder / "killed"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    spare = sorted((folder / "many").rglob("*.nerv"))[: KILLED_FILES + KILLS * 5]
    for file in spare[:KILLED_FILES]:
        shutil.copy(file, place)
    texts, rng, searches, wrong = ["a bicycle", "a violin", "a dog"], random.Random(0), 0, 0
    query = {text: QueryEncoder(Query((Term(text),)), cut_off=False) for text in texts}
    killed = attempts = 0
    while killed < KILLS:
        expected = {text: search(place, query[text], with_index=False) for text in texts}
        rebuild = attempts % 2 == 0  # else it only has a few changes to write, which takes a second after its start
        more, longest = (["--force"], 9.0) if rebuild else ([], 1.5)
        process = subprocess.Popen([COMMAND, "index", str(place), "--workers", "1", *more], stdout=-3, stderr=-3)
        end = time.monotonic() + rng.uniform(0.4, longest)
        while time.monotonic() < end and process.poll() is None:
            text = rng.choice(texts)
            wrong += not alike(search(place, query[text]), expected[text])
            searches += 1
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        for text in texts:
            wrong += not alike(search(place, query[text]), expected[text])
            searches += 1
        changes = [spare[(KILLED_FILES + attempts * 5 + number) % len(spare)] for number in range(5)]
        for file in changes[:4]:
            shutil.copy(file, place)
        shutil.copy(changes[4], rng.choice(sorted(place.glob("*.nerv"))))
        rng.choice(sorted(place.glob("*.nerv"))).unlink()
        attempts += 1
    command("index", place)
    files = find_containers([str(place)])
    lost = len(files) - len(select_candidates(place, files, query[texts[0]], TOP))
    wrong += sum(not alike(search(place, query[text]), search(place, query[text], with_index=False)) for text in texts)
    return [
        row(f"killed {killed} times in {attempts} runs: wrong of {searches + 3} searches meanwhile", wrong),
        row("... files that the index lacks at the end", lost),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "measure", "compare", "kill"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=10_000)
    arguments = parser.parse_args()
    if arguments.what == "make":
        return make(arguments.folder, arguments.files)
    rows = {"measure": measure, "compare": compare, "kill": kill}[arguments.what](arguments.folder)
    print_rows([{"what": row["what"], "s": row["s"], "MB or count": row["memory_mb"]} for row in rows])
    path = RESULTS / "index.json"
    before = json.loads(path.read_text()).get("parts", {}) if path.exists() else {}
    parts = {**before, arguments.what: rows}
    print(save("index", [row for part in parts.values() for row in part], parts=parts))


ENCODER = load("offline")

if __name__ == "__main__":
    main()
