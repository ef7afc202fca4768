# SPDX-License-Identifier: MIT
"""How well the best patch of every content may match a query, from the codes of an index.

Flat: every code is looked at. What makes it quick is that a segment's codes stand in a basis of its own, so that the
query is brought into each basis once, and that all of it is in eight bits (benchmarks/NOTES.md has what was tried).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.library.store import Kind, Store

if TYPE_CHECKING:
    import pyarrow as pa

_THREADS = 2
_ROWS = 8192  # of codes that are turned into floats at once
_SEGMENTS = ("number", "patches", "codes", "steps", "mean", "directions")
_CODES = ("number", "length", "middle_weight", "middle_length", "code")

Part = dict[str, np.ndarray]  # columns of some rows of a table


class Codes:
    """All codes of one kind, read once and kept: some 50 KB for ten seconds with five embeddings a second.

    Args:
        store: the index.
        kind: which codes.

    Raises:
        ValueError: segments and codes do not go together.
    """

    def __init__(self, store: Store, kind: Kind):
        with ThreadPoolExecutor(1) as other:
            reading = other.submit(lambda: [_columns(batch, _CODES) for batch in store.codes(kind)])
            self._segments = [_columns(batch, _SEGMENTS) for batch in store.segments(kind)]
            self._codes = reading.result()
        if not self._fits():
            self._keep_whole()
        if not self._fits():
            raise ValueError(f"the index's tables of {kind.encoder} do not go together")

    def best(self, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of contents, ascending, and the score of the best patch of each, right to about 0.005.

        Args:
            query: ``(D,)`` float32.
        """
        counts = _joined(self._segments, "codes")
        if not len(counts):
            return np.zeros(0, np.int32), np.zeros(0, np.float32)
        ends = np.cumsum(counts)
        with ThreadPoolExecutor(_THREADS) as threads:
            turned = list(threads.map(lambda part: _turned(part, query), self._segments))
            coordinates, offsets = (np.concatenate(side) for side in zip(*turned, strict=True))
            starts = np.cumsum([0, *(len(part["number"]) for part in self._codes)])
            parts = [(part["code"], int(start)) for part, start in zip(self._codes, starts, strict=False)]
            products = np.concatenate(list(threads.map(lambda part: _products(*part, ends, coordinates), parts)))
        products += np.repeat(offsets, counts)
        lengths, weights, middles = (
            _joined(self._codes, name).astype(np.float32) for name in ("length", "middle_weight", "middle_length")
        )
        # Halfway to the next entry of the same patch; after the last one the weight is 0.
        following = np.arange(len(products)) + np.repeat(_joined(self._segments, "patches"), counts)
        following = products[np.minimum(following, len(products) - 1)]
        halfway = (products * (1 - weights) + following * weights) / middles
        scores = np.maximum(products / lengths, halfway)
        found, content = np.unique(_joined(self._segments, "number"), return_inverse=True)
        best = np.full(len(found), -np.inf, np.float32)
        np.maximum.at(best, content, np.maximum.reduceat(scores, ends - counts))
        return found, best

    def _fits(self) -> bool:
        """Whether the codes are those of the segments, in the same order."""
        wanted = np.repeat(_joined(self._segments, "number"), _joined(self._segments, "codes"))
        return np.array_equal(wanted, _joined(self._codes, "number"))

    def _keep_whole(self) -> None:
        """Keep only contents that have all their segments and codes: somebody is writing, or was killed."""
        wanted = np.bincount(_joined(self._segments, "number"), _joined(self._segments, "codes"))
        there = np.bincount(_joined(self._codes, "number"))
        size = max(len(wanted), len(there))
        whole = np.resize(wanted, size) == np.resize(there, size)
        for number in range(size):
            whole[number] = number < min(len(wanted), len(there)) and wanted[number] == there[number]
        self._segments, self._codes = (
            [{name: column[whole[part["number"]]] for name, column in part.items()} for part in parts]
            for parts in (self._segments, self._codes)
        )


def _columns(batch: pa.RecordBatch, names: tuple[str, ...]) -> Part:
    """Lists of equal length become rows of an array."""
    found = {}
    for name in names:
        column = batch.column(name)
        rows = column.flatten().to_numpy() if hasattr(column.type, "list_size") else column.to_numpy()
        found[name] = rows.reshape(len(column), -1) if hasattr(column.type, "list_size") else rows
    return found


def _joined(parts: list[Part], name: str) -> np.ndarray:
    return np.concatenate([part[name] for part in parts]) if parts else np.zeros(0, np.int32)


def _turned(part: Part, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The query's coordinates in the basis of each segment, and its product with each mean."""
    steps, count = part["steps"], len(part["number"])
    coordinates = np.empty_like(steps)
    directions = part["directions"].reshape(count, steps.shape[1], len(query))
    for start in range(0, count, 64):
        some = directions[start : start + 64].astype(np.float32)
        coordinates[start : start + 64] = (some @ query) * steps[start : start + 64]
    return coordinates, part["mean"].astype(np.float32) @ query


def _products(codes: np.ndarray, start: int, ends: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Products of codes with the coordinates of their segments; the first of them is the ``start``-th of all."""
    products = np.empty(len(codes), np.float32)
    position = 0
    while position < len(codes):
        some = codes[position : position + _ROWS].astype(np.float32)
        done = 0
        segment = int(np.searchsorted(ends, start + position, side="right"))
        while done < len(some):
            stop = min(len(some), int(ends[segment]) - start - position)
            np.dot(some[done:stop], coordinates[segment], out=products[position + done : position + stop])
            done, segment = stop, segment + 1
        position += len(some)
    return products
