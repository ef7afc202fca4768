# SPDX-License-Identifier: MIT
"""Reading containers for an index, in this process or, where there are many, in several."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from nervcodec.errors import NervError
from nervcodec.index.pack import pack, width_of
from nervcodec.index.store import Content, compressed

_FEW = 100  # files up to which starting processes takes longer than it saves
_AT_ONCE = 8  # files that a process is given at a time


@dataclass(frozen=True)
class Read:
    """What a file holds for the index, or why it holds nothing."""

    content: Content | None = None
    problem: str = ""


def read(path: Path) -> Read:
    """Compute the embeddings of a container and pack them; no pixel is decoded."""
    from nervcodec.formats.container import fingerprint
    from nervcodec.search.index import EmbeddingIndex

    try:
        checksum = fingerprint(path)
        index = EmbeddingIndex.at(path, "cpu")
        if fingerprint(path) != checksum:
            return Read(problem="was replaced by another while it was read")
    except NervError as error:
        return Read(problem=str(error).removeprefix(f"{path}: "))
    width, dimension = width_of(index), len(index.segments[0].mean)
    segments = tuple(pack(segment, width) for segment in index.segments)
    return Read(Content(checksum, index.encoder, dimension, width, compressed(index.to_bytes()), segments))


def read_all(folder: Path, names: Sequence[str], workers: int | None = None) -> Iterator[tuple[str, Read]]:
    """Read files below a folder, in any order.

    Args:
        folder: all names are relative to it.
        names: files.
        workers: processes; None: as many as there are processors, and none where there is little to read.
    """
    if workers is None:
        workers = (os.cpu_count() or 1) if len(names) > _FEW else 1
    if workers < 2:
        yield from ((name, read(folder / name)) for name in names)
        return
    waiting = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)][::-1]
    spawn = multiprocessing.get_context("spawn")
    processes, busy = [], {}
    try:
        for _ in range(min(workers, len(waiting))):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_work, args=(theirs, folder), daemon=True)
            process.start()
            theirs.close()
            processes.append((process, ours))
            busy[ours] = waiting.pop()
            ours.send(busy[ours])
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                batch = busy.pop(ready)
                try:
                    results = ready.recv()
                except EOFError:  # it died, for want of memory perhaps: its files are read here
                    results = [read(folder / name) for name in batch]
                else:
                    if waiting:
                        busy[ready] = waiting.pop()
                        ready.send(busy[ready])
                yield from zip(batch, results, strict=True)
            if not busy:
                while waiting:  # nobody is left
                    yield from ((name, read(folder / name)) for name in waiting.pop())
    finally:
        for process, ours in processes:
            ours.close()
            process.join(1.0)
            if process.is_alive():
                process.terminate()


def _work(pipe: Connection, folder: Path) -> None:
    """A process that reads what it is told until nobody tells it any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
    try:
        while True:
            pipe.send([read(folder / name) for name in pipe.recv()])
    except (EOFError, OSError):
        return
