# SPDX-License-Identifier: MIT
"""How well the best patch of every content may match a query, from the codes of an index.

Flat: every code is looked at as it is read, and nothing is kept. What makes it quick is that a segment's codes stand
in a basis of its own, so that the query is brought into each basis once, and that all of it is in eight bits
(benchmarks/NOTES.md has what was tried).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.library.store import Kind, Store

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 1024  # of codes or directions that are turned into floats at once: they stay in the processor's cache
NOWHERE = -1


class _Turned:
    """The query in the basis of every segment.

    Attributes:
        numbers: ``(S,)`` of the segments' contents.
        patches: ``(S,)``.
        coordinates: ``(S, width)`` float32.
        offsets: ``(S,)`` float32, the query's product with each mean.
        places: from a segment's number to its place here, or :data:`NOWHERE`.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], query: np.ndarray, width: int):
        parts = [_turn(batch, query, width) for batch in batches]
        joined = (np.concatenate(side) for side in zip(*parts, strict=True)) if parts else [np.zeros(0, np.int32)] * 5
        self.numbers, segments, self.patches, self.coordinates, self.offsets = joined
        self.places = np.full(int(segments.max(initial=0)) + 1, NOWHERE, np.int32)
        self.places[segments] = np.arange(len(segments), dtype=np.int32)

    def places_of(self, segments: np.ndarray) -> np.ndarray:
        """Their places; :data:`NOWHERE` for those that are gone, or not there yet."""
        inside = segments < len(self.places)
        return np.where(inside, self.places[np.where(inside, segments, 0)], NOWHERE)


def best_scores(store: Store, kind: Kind, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of contents, ascending, and the score of the best patch of each.

    Scores are right to 0.001 at frames that have codes of their own; between two of them, only the frame nearest to
    the middle is looked at.

    Args:
        store: the index.
        kind: which codes.
        query: ``(D,)`` float32.
    """
    with ThreadPoolExecutor(1) as reader:
        turned = _Turned(_ahead(store.segments(kind), reader), query, kind.width)
        parts = [_products(batch, turned) for batch in _ahead(store.codes(kind), reader)]
    if not sum(len(places) for places, *_ in parts):
        return np.zeros(0, np.int32), np.zeros(0, np.float32)
    places, products, lengths, weights, middles = (np.concatenate(side) for side in zip(*parts, strict=True))
    # Halfway to the next code of the same patch; after the last one of a segment the weight is 0.
    following = np.arange(len(products)) + turned.patches[places]
    following = products[np.minimum(following, len(products) - 1)]
    halfway = (products + (following - products) * weights) / middles
    scores = np.maximum(products / lengths, halfway)
    starts = np.flatnonzero(np.diff(places, prepend=NOWHERE))
    found, content = np.unique(turned.numbers[places[starts]], return_inverse=True)
    best = np.full(len(found), -np.inf, np.float32)
    np.maximum.at(best, content, np.maximum.reduceat(scores, starts))
    return found, best


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
    return numbers, segments, patches, products.reshape(-1, width) * steps, means.astype(np.float32) @ query


def _products(batch: pa.RecordBatch, turned: _Turned) -> tuple[np.ndarray, ...]:
    """Place of its segment, product with the query, length, weight and length in the middle of each code."""
    places = turned.places_of(batch["segment"].to_numpy())
    codes = _rows(batch["code"])
    products = np.empty(len(codes), np.float32)
    edges = [*np.flatnonzero(np.diff(places, prepend=-2)).tolist(), len(places)]
    for start, stop in zip(edges, edges[1:], strict=False):
        place = places[start]
        if place != NOWHERE:
            products[start:stop] = _multiplied(codes[start:stop], turned.coordinates[place]) + turned.offsets[place]
    columns = [batch[name].to_numpy().astype(np.float32) for name in ("length", "middle_weight", "middle_length")]
    found = [places, products, *columns]
    there = places != NOWHERE
    return tuple(found) if there.all() else tuple(column[there] for column in found)


def _multiplied(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """``(n, m)`` int8 times ``(m,)`` float32."""
    if len(rows) <= _ROWS:
        return rows.astype(np.float32) @ vector
    parts = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
    return np.concatenate([part.astype(np.float32) @ vector for part in parts])


def _rows(column: pa.FixedSizeListArray) -> np.ndarray:
    return column.flatten().to_numpy().reshape(len(column), -1)
