# SPDX-License-Identifier: MIT
"""Search's side of the index: which containers below a folder a query need look into.

The index gives the order in which containers may match, and their embeddings as they were computed when it was
written; scores, moments and the cut-off are the same as without it. What it does not know is left to whoever asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.errors import ContainerError, EncoderError, LibraryError, NervError
from nervcodec.index.choose import best_scores
from nervcodec.index.store import NOTHING, FileRow, Kind, Store, exists
from nervcodec.index.tables import available, readable
from nervcodec.search.ask import Answer
from nervcodec.search.index import EmbeddingIndex
from nervcodec.search.moments import SPARE

if TYPE_CHECKING:
    import pyarrow as pa

_MARGIN = 0.004  # the scores of the index are too low by less than that (benchmarks/NOTES.md)
_MOST = 4  # times as many containers are looked into as are wanted, where many match alike
_COMMAND = "nervcodec index {} brings it up to date"

Known = EmbeddingIndex | NervError | None
Facts = Mapping[Path, os.stat_result]


def covering(path: str) -> Path | None:
    """The nearest folder, this one or one above it, that has an index; as it is spelled where it is this one."""
    folder = Path(path)
    if exists(folder):
        return folder
    above = Path(os.path.abspath(path)).parents
    return next((place for place in above if exists(place)), None)


@dataclass
class Library:
    """An index that is open for questions: what it says of files is read once.

    Args:
        folder: whose index it is.
        keep: hold all codes in memory, 50 KB for ten seconds of video, for whoever asks more than once.

    Attributes:
        folder, keep: as given.
        files: rows by path within the folder.

    Raises:
        LibraryError: lancedb is not installed, or the index cannot be read.
    """

    folder: Path
    keep: bool = False
    files: dict[str, FileRow] = field(init=False)

    def __post_init__(self) -> None:
        with readable(self.folder):
            self._store = Store(self.folder)
            self.files = {row.path: row for row in self._store.files()}
            self._kinds = self._store.contents()
        self._kept: dict[Kind, tuple[list[pa.RecordBatch], list[pa.RecordBatch]]] = {}

    def rows(self, files: Facts) -> dict[Path, FileRow]:
        """The rows of files that the index knows as they are now."""
        start = len(os.path.join(os.path.abspath(self.folder), ""))
        places: dict[str, str] = {}
        found = {}
        for file, facts in files.items():
            place, name = os.path.split(file)
            if place not in places:
                places[place] = os.path.join(os.path.abspath(place), "")[start:].replace(os.sep, "/")
            row = self.files.get(places[place] + name)
            if row is None or (row.size, row.modified_ns) != (facts.st_size, facts.st_mtime_ns):
                continue
            if row.number in self._kinds or row.number == NOTHING:
                found[file] = row
        return found

    def choose(self, rows: Mapping[Path, FileRow], ask: Callable[[str], Answer], k: int) -> dict[Path, Known]:
        """What is to be looked into for the best ``k`` moments.

        Args:
            rows: of the files that are asked.
            ask: from an encoder's name to what the query asks of its embeddings.
            k: moments that are wanted.

        Returns:
            Of each file its embeddings, what is wrong with it, or None where others match better. What somebody who
            writes has taken away meanwhile is missing.

        Raises:
            LibraryError: the index cannot be read.
            ConfigError: as ``ask`` does.
        """
        known: dict[Path, Known] = {f: ContainerError(f"{f}: {row.problem}") for f, row in rows.items() if row.problem}
        kinds = {file: self._kinds[row.number] for file, row in rows.items() if row.number != NOTHING}
        vectors: dict[str, np.ndarray] = {}
        for encoder in sorted({kind.encoder for kind in kinds.values()}):
            try:
                vectors[encoder] = ask(encoder).vector
            except EncoderError as error:
                known |= {file: error for file, kind in kinds.items() if kind.encoder == encoder}
        with readable(self.folder):
            best: dict[int, float] = {}
            for kind in sorted(set(kinds.values())):
                if kind.encoder in vectors and len(vectors[kind.encoder]) == kind.dimension:
                    numbers, values = best_scores(*self._codes(kind), kind.width, vectors[kind.encoder])
                    best |= zip(numbers.tolist(), values.tolist(), strict=True)
            scores = {file: best[rows[file].number] for file in kinds if rows[file].number in best}
            known |= dict.fromkeys(scores)
            chosen = _foremost(scores, k + SPARE)
            blobs = self._store.embeddings(sorted({rows[file].number for file in chosen}))
            for file in chosen:
                if (number := rows[file].number) in blobs:
                    known[file] = EmbeddingIndex.from_bytes(blobs[number], file)
                else:
                    del known[file]
        return known

    def _codes(self, kind: Kind) -> tuple[Iterable[pa.RecordBatch], Iterable[pa.RecordBatch]]:
        if not self.keep:
            return self._store.segments(kind), self._store.codes(kind)
        if kind not in self._kept:
            self._kept[kind] = list(self._store.segments(kind)), list(self._store.codes(kind))
        return self._kept[kind]


def _foremost(scores: Mapping[Path, float], count: int) -> list[Path]:
    """Those that may be among the ``count`` best."""
    if len(scores) <= count:
        return list(scores)
    files, values = list(scores), np.array(list(scores.values()), np.float32)
    order = np.argsort(-values, kind="stable")
    limit = values[order[count - 1]] - _MARGIN
    return [files[place] for place in order[: count * _MOST] if values[place] >= limit]


def choose(
    files: Facts, folders: Iterable[str], ask: Callable[[str], Answer], k: int, note: Callable[[str], None]
) -> dict[Path, Known]:
    """What the indexes that cover some folders say of the files below them; see :meth:`Library.choose`.

    Args:
        files: containers, named one by one or found below folders.
        folders: that were named.
        ask: as above.
        k: moments that are wanted.
        note: is told where an index is stale, or cannot be used.
    """
    known: dict[Path, Known] = {}
    places = dict.fromkeys((covering(folder), folder) for folder in folders)
    for place, folder in places:
        if place is None:
            continue
        if not available():
            note(f'{place} has an index, which takes LanceDB to read (pip install "nervcodec[library]")')
            continue
        try:
            library = Library(place)
            below = {file: facts for file, facts in files.items() if _is_below(file, folder)}
            rows = library.rows(below)
            known |= library.choose(rows, ask, k)
        except LibraryError as error:
            note(f"{error}; files are asked one by one")
            continue
        if stale := len(below) - len(rows):
            several = f"{stale} files are" if stale > 1 else "one file is"
            note(f"{several} newer than the index of {place}; {_COMMAND.format(place)}")
    return known


def _is_below(file: Path, folder: str) -> bool:
    return str(file).startswith(os.path.join(str(Path(folder)), "")) or Path(folder) == Path(".")
