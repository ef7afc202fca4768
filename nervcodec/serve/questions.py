# SPDX-License-Identifier: MIT
"""Searches: moments that match a query, scores over time, and scores of the patches of a frame.

Scores, moments and cut-off are those of the command ``search``.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nervcodec.errors import ContainerError
from nervcodec.formats.text import short_timecode
from nervcodec.index.lookup import SearchResult, search_files
from nervcodec.search.moments import Moment, cut_off_score
from nervcodec.search.query import EncodedQuery
from nervcodec.search.scores import VideoEmbeddings
from nervcodec.serve.answers import AskedOfEach, Asking, Question
from nervcodec.serve.executor import CancellationToken
from nervcodec.serve.limits import MOST_POINTS, MissingError
from nervcodec.serve.store import ContainerStore, FileEntry

_FITS = 64  # cached curves


@dataclass(frozen=True)
class Fit:
    """Scores of a query over the time of a file.

    Attributes:
        times_s, scores: of its points.
        threshold: the least score of a match.
    """

    times_s: list[float]
    scores: list[float]
    threshold: float


class Questions:
    """Searches the containers of a store. Thread-safe."""

    def __init__(self, store: ContainerStore):
        self._store, self._each = store, AskedOfEach(store)
        self._fits = lru_cache(_FITS)(lambda question, item: _fitting(*self._each.of(question, item)))

    def search(self, question: Question, path: str | None, folder: str, limit: int, token: CancellationToken) -> dict:
        """The best moments.

        Args:
            question: the query.
            path: the only container to search; None for all below ``folder``.
            folder: within the store, empty for all of it.
            limit: the most moments.
            token: cancels the search when the client disconnects.

        Returns:
            ``moments``, ``empty``, ``notes`` and ``unsearchable`` (number of files damaged or without embeddings).

        Raises:
            MissingError: no such container.
            ClientDisconnectedError: the client disconnected.
            EncoderError, ContainerError: no file can be searched here.
            ConfigError: the parts of the query cancel each other out.
        """
        items = self._store.entries(folder) if path is None else [self._store.entry(path)]
        places = {item.file: item for item in items}
        notes: list[str] = []
        ask = self._each.asking(question, True, token)
        found, problems, nearest = self._moments(ask, items, limit, notes)
        if items and len(problems) == len(items):
            if len(items) > 1 and all(isinstance(problem, ContainerError) for problem in problems):
                raise ContainerError("none of these files is searchable: they have no embeddings, or damaged ones")
            raise problems[0]
        empty = None
        if not found:
            empty = f'nothing matches "{question}"'
            if nearest is not None:
                where = f"{places[nearest.file].name} {short_timecode(nearest.start_s)}"
                empty = f'nothing certain for "{question}"; nearest: {where}'
        notes += [*ask.unread, *question.query.notes()]
        unsearchable = sum(isinstance(problem, ContainerError) for problem in problems)
        notes += dict.fromkeys(str(problem) for problem in problems if not isinstance(problem, ContainerError))
        notes = [self._store.redact(note) for note in notes]
        moments = [
            {**self._shown(places[moment.file], moment), "also_in": [places[file].path for file in moment.also_in]}
            for moment in found
        ]
        return {"moments": moments, "empty": empty, "notes": notes, "unsearchable": unsearchable}

    def _moments(self, ask: Asking, items: list[FileEntry], limit: int, notes: list[str]) -> SearchResult:
        """The best moments, and the errors of files that cannot be searched."""
        files = {}
        for item in items:
            with contextlib.suppress(OSError):  # gone meanwhile
                files[item.file] = item.file.stat()
        folders = [str(self._store.folder)] if len(items) > 1 else []
        return search_files(files, folders, ask, limit, note=notes.append)

    def _shown(self, item: FileEntry, moment: Moment) -> dict:
        index = self._each.index(item)
        return {
            "path": item.path,
            "name": item.name,
            "start_s": moment.start_s,
            "stop_s": moment.end_s,
            "time_s": float(index.frame_times_s[moment.frame]),
            "frame": moment.frame,
            "score": moment.score,
            "boxes": [_fractions(moment.box, index)],
        }

    def fit(self, question: Question, item: FileEntry) -> Fit:
        """Scores over the time of a file.

        Raises:
            ContainerError: it has no embeddings, or is damaged.
            EncoderError: the encoder is not available here.
        """
        return self._fits(question, item)

    def patches(self, question: Question, item: FileEntry, frame: int) -> dict:
        """Scores of the patches of a frame, ready for JSON; see :meth:`fit`.

        Raises:
            MissingError: no such frame.
        """
        index, asked = self._each.of(question, item)
        if frame >= index.frame_count:
            raise MissingError(f"there is no frame {frame:,}; there are {index.frame_count:,}")
        segment, place = index.locate(frame)
        scores = segment.scores(asked.vector)[place]
        shown = [
            {**_fractions(box, index), "score": score}
            for box, score in zip(index.grid.boxes(), scores.tolist(), strict=True)
        ]
        threshold = self.fit(question, item).threshold
        return {"rows": index.grid.rows, "cols": index.grid.columns, "boxes": shown, "threshold": threshold}


def _fractions(box: tuple[int, int, int, int], index: VideoEmbeddings) -> dict:
    width, height = index.grid.width, index.grid.height
    x, y, w, h = box
    return {"x": x / width, "y": y / height, "w": w / width, "h": h / height}


def _fitting(index: VideoEmbeddings, asked: EncodedQuery) -> Fit:
    scores = index.scores(asked.vector)
    best = scores.max(axis=1)
    edges = np.linspace(0, len(best), min(len(best), MOST_POINTS) + 1).astype(int)
    points = [int(first + best[first:stop].argmax()) for first, stop in zip(edges, edges[1:], strict=False)]
    chosen = np.array(points)
    threshold = cut_off_score(index, scores, asked)
    return Fit(index.frame_times_s[chosen].tolist(), best[chosen].tolist(), threshold)
