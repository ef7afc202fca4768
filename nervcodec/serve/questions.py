# SPDX-License-Identifier: MIT
"""Questions to containers: moments that match, how well each time does, and where on a frame.

Scores, moments and cut-off are those of the command ``search``.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from nervcodec.errors import NervError
from nervcodec.formats.text import counted
from nervcodec.index.ask import choose
from nervcodec.recent import Recent
from nervcodec.search.ask import Answer
from nervcodec.search.index import EmbeddingIndex, open_indexes
from nervcodec.search.moments import Moment, find_moments
from nervcodec.serve.answers import AskedOfEach, Asking, Question
from nervcodec.serve.desk import Leave
from nervcodec.serve.limits import MOST_POINTS, MissingError
from nervcodec.serve.shelf import Item, Shelf

_FITS = 64  # that are kept
_TESTED = 64  # points of a curve that are looked at to tell which scores match


@dataclass(frozen=True)
class Fit:
    """How well a file fits a question over time.

    Attributes:
        times_s, scores: of its points.
        threshold: what matches scores at least this.
    """

    times_s: list[float]
    scores: list[float]
    threshold: float


class Questions:
    """Answers questions about the containers of a shelf. Several threads may ask."""

    def __init__(self, shelf: Shelf):
        self._shelf, self._each = shelf, AskedOfEach(shelf)
        self._fits = Recent[Fit](_FITS)

    def search(self, question: Question, inside: str | None, limit: int, leave: Leave) -> dict:
        """The best moments.

        Args:
            question: what is looked for.
            inside: the path of the only container that is asked; None for all.
            limit: at most so many.
            leave: tells whether somebody still waits.

        Returns:
            ``moments``, ``empty`` and ``notes``, ready for JSON.

        Raises:
            MissingError: no such container.
            GoneError: nobody waits.
            EncoderError, ContainerError: not one can be searched here.
            ConfigError: the parts of the question cancel each other out.
        """
        items = self._shelf.items() if inside is None else [self._shelf.item(inside)]
        places = {item.file: item for item in items}
        notes: list[str] = []
        ask = self._each.asking(question, True, leave)
        found, problems = self._moments(ask, items, limit, notes)
        if items and len(problems) == len(items):
            raise problems[0]
        empty = None
        if not found:
            nearest = [] if ask.unread else self._moments(self._each.asking(question, False, leave), items, 1, [])[0]
            empty = f'nothing matches "{question}"'
            for best in nearest:
                where = f"{places[best.file].name} at {best.start_s:.1f} s"
                empty += f"; what comes nearest is in {where}, with a score of {best.score:.2f}"
        notes += ask.unread
        if problems:
            several = len(problems) > 1
            notes.append(
                f"{counted(len(problems), 'file')} cannot be searched" if several else f"skipped: {problems[0]}"
            )
        notes = [self._shelf.brief(note) for note in notes]
        return {"moments": [self._shown(places[m.file], m) for m in found], "empty": empty, "notes": notes}

    def _moments(
        self, ask: Asking, items: list[Item], limit: int, notes: list[str]
    ) -> tuple[list[Moment], list[NervError]]:
        """The best moments, and what is wrong with files."""
        problems: list[NervError] = []
        files = {}
        for item in items:
            with contextlib.suppress(OSError):  # gone meanwhile
                files[item.file] = item.file.stat()
        folders = [str(self._shelf.folder)] if len(items) > 1 else []
        known = choose(files, folders, ask, limit, notes.append)
        return find_moments(open_indexes(files, ask, problems, known=known), ask, limit), problems

    def _shown(self, item: Item, moment: Moment) -> dict:
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

    def fit(self, question: Question, item: Item) -> Fit:
        """How well a file fits over time.

        Raises:
            ContainerError: it has no embeddings, or is damaged.
            EncoderError: the encoder is not to be had here.
        """

        def made() -> Fit:
            return _fitting(*self._each.of(question, item))

        return self._fits.get((question, item), made)

    def patches(self, question: Question, item: Item, frame: int) -> dict:
        """Scores of the patches of a frame, ready for JSON; see :meth:`fit`.

        Raises:
            MissingError: no such frame.
        """
        index, asked = self._each.of(question, item)
        if frame >= index.frame_count:
            raise MissingError(f"there is no frame {frame:,}; there are {index.frame_count:,}")
        segment, place = index.segment_of(frame)
        scores = segment.scores(asked.vector)[place]
        shown = [
            {**_fractions(box, index), "score": score}
            for box, score in zip(index.grid.boxes(), scores.tolist(), strict=True)
        ]
        threshold = self.fit(question, item).threshold
        return {"rows": index.grid.rows, "cols": index.grid.columns, "boxes": shown, "threshold": threshold}


def _fractions(box: tuple[int, int, int, int], index: EmbeddingIndex) -> dict:
    width, height = index.grid.width, index.grid.height
    x, y, w, h = box
    return {"x": x / width, "y": y / height, "w": w / width, "h": h / height}


def _fitting(index: EmbeddingIndex, asked: Answer) -> Fit:
    scores = index.scores(asked.vector)
    best = scores.max(axis=1)
    edges = np.linspace(0, len(best), min(len(best), MOST_POINTS) + 1).astype(int)
    points = [int(first + best[first:stop].argmax()) for first, stop in zip(edges, edges[1:], strict=False)]
    chosen = np.array(points)
    threshold = _threshold(index, asked, scores, chosen)
    return Fit(index.frame_times_s[chosen].tolist(), best[chosen].tolist(), threshold)


def _threshold(index: EmbeddingIndex, asked: Answer, scores: np.ndarray, frames: np.ndarray) -> float:
    """The score that tells best what passes the question's own test from what does not.

    Without a test it is halfway from the median to the best, as a moment's edges are.
    """
    values = scores[frames].max(axis=1)
    if asked.shows is None:
        return float(np.median(values) + values.max()) / 2
    order = frames[np.argsort(values)]
    tested = order[np.unique(np.linspace(0, len(order) - 1, min(_TESTED, len(order))).astype(int))]
    passes = asked.shows(np.stack([index.embedding(int(n), int(scores[n].argmax())) for n in tested]))
    ranked = scores[tested].max(axis=1)
    # Below a split everything shall fail, above it pass: where the fewest are on the wrong side.
    wrong = np.concatenate([[0], np.cumsum(passes)]) + np.concatenate([np.cumsum(~passes[::-1])[::-1], [0]])
    split = len(wrong) - 1 - int(wrong[::-1].argmin())
    if split == len(ranked):
        return float(ranked[-1]) + 0.01
    return float(ranked[split] + ranked[max(0, split - 1)]) / 2
