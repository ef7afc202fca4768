# SPDX-License-Identifier: MIT
"""How well the best patch of every content may match a query, from the codes of an index.

Flat: every code is looked at as it is read. What makes it quick is that a segment's codes stand
in a basis of its own, so that the query is brought into each basis once, and that all of it is in eight bits
(benchmarks/NOTES.md has what was tried).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 1024  # of codes or directions that are turned into floats at once: they stay in the processor's cache
NOWHERE = -1


class _Turned:
    """The query in the basis of every segment, and the best score of each so far.

    Attributes:
        numbers: ``(S,)`` of the segments' contents.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], query: np.ndarray, width: int):
        parts = [_turn(batch, query, width) for batch in batches]
        sides = zip(*parts, strict=True) if parts else [(np.zeros(0, np.int32),)] * 5
        joined: list[np.ndarray] = [np.concatenate(side) for side in sides]
        self.numbers, self._patches, self._coordinates, self._offsets = joined[0], *joined[2:]
        segments = joined[1]
        self._places = np.full(int(segments.max(initial=0)) + 1, NOWHERE, np.int32)
        self._places[segments] = np.arange(len(segments), dtype=np.int32)
        self._best = np.full(len(segments), -np.inf, np.float32)
        self._unfinished = [np.zeros(0, np.int32), *(np.zeros(0, np.float32) for _ in range(4))]
        self._floats = np.empty(
            (0, width), np.float32
        )  # used for every batch: fresh memory costs more than the product

    def look_at(self, batch: pa.RecordBatch) -> None:
        """Take some codes into account; a segment may go on in the next batch."""
        segments = batch["segment"].to_numpy()
        inside = segments < len(self._places)
        places = np.where(inside, self._places[np.where(inside, segments, 0)], NOWHERE)
        lengths = [batch[name].to_numpy() for name in ("length", "middle_weight", "middle_length")]
        columns = [places, self._products(_rows(batch["code"]), places), *lengths]
        if not (places >= 0).all():  # those of segments that are gone, or not there yet
            columns = [column[places >= 0] for column in columns]
        columns = [np.concatenate(pair) for pair in zip(self._unfinished, columns, strict=True)]
        starts = np.flatnonzero(np.diff(columns[0], prepend=NOWHERE))
        last = int(starts[-1]) if len(starts) else 0
        self._unfinished = [column[last:].copy() for column in columns]
        self._finish([column[:last] for column in columns], starts[:-1])

    def finished(self) -> np.ndarray:
        """The best score of each segment once all codes were looked at, ``(S,)``; minus infinity without any."""
        if len(self._unfinished[0]):
            self._finish(self._unfinished, np.zeros(1, np.int64))
        return self._best

    def _products(self, codes: np.ndarray, places: np.ndarray) -> np.ndarray:
        if len(self._floats) < len(codes):
            self._floats = np.empty(codes.shape, np.float32)
        floats, products = self._floats[: len(codes)], np.zeros(len(codes), np.float32)
        np.copyto(floats, codes)
        edges = [*np.flatnonzero(np.diff(places, prepend=NOWHERE - 1)).tolist(), len(places)]
        for start, stop in zip(edges, edges[1:], strict=False):
            np.dot(floats[start:stop], self._coordinates[places[start]], out=products[start:stop])
        products += self._offsets[places]
        return products

    def _finish(self, columns: list[np.ndarray], starts: np.ndarray) -> None:
        """Scores of the codes of whole segments, which begin at ``starts``."""
        places, products, lengths, weights, middles = columns
        if not len(places):
            return
        # Halfway to the next code of the same patch; after the last one of a segment the weight is 0.
        following = np.arange(len(products)) + self._patches[places]
        following = products[np.minimum(following, len(products) - 1)]
        halfway = (products + (following - products) * weights) / middles
        scores = np.maximum(products / lengths, halfway)
        self._best[places[starts]] = np.maximum.reduceat(scores, starts)


def best_scores(
    segments: Iterable[pa.RecordBatch], codes: Iterable[pa.RecordBatch], width: int, query: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of contents, ascending, and the score of the best patch of each.

    Scores are right to 0.001 at frames that have codes of their own; between two of them, only the frame nearest to
    the middle is looked at.

    Args:
        segments, codes: rows of two tables of one kind.
        width: of the codes.
        query: ``(D,)`` float32.
    """
    with ThreadPoolExecutor(1) as reader:
        turned = _Turned(_ahead(iter(segments), reader), query, width)
        for batch in _ahead(iter(codes), reader):
            turned.look_at(batch)
    found, content = np.unique(turned.numbers, return_inverse=True)
    best = np.full(len(found), -np.inf, np.float32)
    np.maximum.at(best, content, turned.finished())
    there = best > -np.inf
    return found[there], best[there]


def _ahead(batches: Iterator[pa.RecordBatch], reader: Executor) -> Iterator[pa.RecordBatch]:
    """The same, each read by another thread while the one before it is looked at."""
    coming = reader.submit(next, batches, None)
    while (batch := coming.result()) is not None:
        coming = reader.submit(next, batches, None)
        yield batch


def _turn(batch: pa.RecordBatch, query: np.ndarray, width: int) -> tuple[np.ndarray, ...]:
    numbers, segments, patches = (batch[name].to_numpy() for name in ("number", "segment", "patches"))
    means, steps, directions = (_rows(batch[name]) for name in ("mean", "steps", "directions"))
    products = _multiplied(directions.reshape(-1, len(query)), query)
    return numbers, segments, patches, products.reshape(-1, width) * steps, means @ query


def _multiplied(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """``(n, m)`` int8 times ``(m,)`` float32."""
    if len(rows) <= _ROWS:
        return rows.astype(np.float32) @ vector
    parts = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
    return np.concatenate([part.astype(np.float32) @ vector for part in parts])


def _rows(column: pa.FixedSizeListArray) -> np.ndarray:
    return column.flatten().to_numpy().reshape(len(column), -1)
