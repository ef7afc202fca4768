# SPDX-License-Identifier: MIT
"""Questions to containers: moments that match, how well each time does, and where on a frame.

Scores, moments and cut-off are those of the command ``search``.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nervcodec.errors import EncoderError, NervError
from nervcodec.library.ask import choose
from nervcodec.search.ask import Answer, answer
from nervcodec.search.index import EmbeddingIndex, open_index, open_indexes
from nervcodec.search.moments import Moment, find_moments
from nervcodec.search.query import Query, Term, unit
from nervcodec.semantic.encoder import SemanticEncoder, load
from nervcodec.serve.limits import MOST_POINTS, MissingError, RefusedError
from nervcodec.serve.shelf import Item, Shelf

_KEPT_ANSWERS, _KEPT_INDEXES, _KEPT_FITS = 200, 32, 64
_TESTED = 64  # points of a curve that are looked at to tell which scores match


@dataclass(frozen=True)
class Like:
    """A patch that others shall be like.

    Attributes:
        path: of its container.
        frame, row, column: where it is.
    """

    path: str
    frame: int
    row: int
    column: int


@dataclass(frozen=True)
class Question:
    """What is looked for.

    Attributes:
        add, subtract: texts.
        like: a patch, or None.
    """

    add: tuple[str, ...] = ()
    subtract: tuple[str, ...] = ()
    like: Like | None = None

    def __str__(self) -> str:
        return str(self.query) if self.like is None else f"a patch of {self.like.path}"

    @property
    def query(self) -> Query:
        """Its texts."""
        return Query((*map(Term, self.add), *(Term(text, sign=-1.0) for text in self.subtract)))


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


@dataclass
class _Asking:
    """A question that is put to each encoder there is."""

    put: Callable[[str], Answer]
    unread: list[str] = field(default_factory=list)

    def __call__(self, name: str) -> Answer:
        found = self.put(name)
        for text in found.unread:
            said = f'the {name} encoder reads English only, not "{text[:40]}"'
            if said not in self.unread:
                self.unread.append(said)
        return found


class Questions:
    """Answers questions about the containers of a shelf. Several threads may ask."""

    def __init__(self, shelf: Shelf):
        self._shelf = shelf
        self._lock, self._encoding = threading.Lock(), threading.Lock()
        self._encoders: dict[str, SemanticEncoder | EncoderError] = {}
        self._answers: OrderedDict[object, Answer] = OrderedDict()
        self._indexes: OrderedDict[str, EmbeddingIndex] = OrderedDict()
        self._fits: OrderedDict[object, Fit] = OrderedDict()

    def search(self, question: Question, inside: str | None, limit: int) -> dict:
        """The best moments.

        Args:
            question: what is looked for.
            inside: the path of the only container that is asked; None for all.
            limit: at most so many.

        Returns:
            ``moments``, ``empty`` and ``notes``, ready for JSON.

        Raises:
            MissingError: no such container.
            EncoderError, ContainerError: not one can be searched here.
            ConfigError: the parts of the question cancel each other out.
        """
        items = self._shelf.items() if inside is None else [self._shelf.item(inside)]
        places = {item.file: item for item in items}
        notes: list[str] = []
        found, problems, unread = self._moments(question, items, limit, notes, cut_off=True)
        if items and len(problems) == len(items):
            raise problems[0]
        empty = None
        if not found:
            nearest = [] if unread else self._moments(question, items, 1, [], cut_off=False)[0]
            empty = f'nothing matches "{question}"'
            for best in nearest:
                where = f"{places[best.file].name} at {best.start_s:.1f} s"
                empty += f"; what comes nearest is in {where}, with a score of {best.score:.2f}"
        notes += unread
        if problems:
            several = len(problems) > 1
            notes.append(f"{len(problems)} files cannot be searched" if several else f"skipped: {_brief(problems[0])}")
        return {"moments": [self._shown(places[m.file], m) for m in found], "empty": empty, "notes": notes}

    def _moments(
        self, question: Question, items: list[Item], limit: int, notes: list[str], cut_off: bool
    ) -> tuple[list[Moment], list[NervError], list[str]]:
        ask, problems = self._asking(question, cut_off), list[NervError]()
        files = {item.file: item.file.stat() for item in items if item.file.exists()}
        folders = [str(self._shelf.folder)] if len(items) > 1 else []
        known: dict = dict(choose(files, folders, ask, limit, notes.append))
        indexes = open_indexes(files, ask, problems, known=known)
        found = find_moments(indexes, ask, limit)
        return found, problems, ask.unread

    def _shown(self, item: Item, moment: Moment) -> dict:
        index = self._index(item)
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
        key = question, item.path, item.version
        with self._lock:
            known = self._fits.get(key)
        if known is None:
            index = self._index(item)
            known = _fitting(index, self._answer(question, index.encoder, True))
            self._keep(self._fits, key, known, _KEPT_FITS)
        return known

    def patches(self, question: Question, item: Item, frame: int) -> dict:
        """Scores of the patches of a frame, ready for JSON; see :meth:`fit`.

        Raises:
            MissingError: no such frame.
        """
        index = self._index(item)
        if frame >= index.frame_count:
            raise MissingError(f"there is no frame {frame:,}; there are {index.frame_count:,}")
        scores = _scores_of(index, frame, self._answer(question, index.encoder, True).vector)
        shown = [
            {**_fractions(box, index), "score": score}
            for box, score in zip(index.grid.boxes(), scores.tolist(), strict=True)
        ]
        threshold = self.fit(question, item).threshold
        return {"rows": index.grid.rows, "cols": index.grid.columns, "boxes": shown, "threshold": threshold}

    # ------------------------------------------------------------------ what is kept

    def _index(self, item: Item) -> EmbeddingIndex:
        key = f"{item.path}\0{item.version}"
        with self._lock:
            index = self._indexes.get(key)
        if index is None:
            index = open_index(item.file)
            self._keep(self._indexes, key, index, _KEPT_INDEXES)
        return index

    def _asking(self, question: Question, cut_off: bool) -> _Asking:
        return _Asking(lambda name: self._answer(question, name, cut_off))

    def _answer(self, question: Question, encoder: str, cut_off: bool) -> Answer:
        key = question, encoder, cut_off
        with self._lock:
            found = self._answers.get(key)
        if found is None:
            found = self._put(question, encoder, cut_off)
            self._keep(self._answers, key, found, _KEPT_ANSWERS)
        return found

    def _put(self, question: Question, name: str, cut_off: bool) -> Answer:
        if question.like is None:
            with self._encoding:
                return answer(question.query, self._encoder(name), cut_off)
        index = self._index(self._shelf.item(question.like.path))
        if index.encoder != name:
            raise EncoderError(f"its embeddings are of {name}, and those of the patch of {index.encoder}")
        like = question.like
        if like.frame >= index.frame_count or like.row >= index.grid.rows or like.column >= index.grid.columns:
            raise RefusedError(f"{like.path} has no such patch")
        total = index.embedding(like.frame, like.row * index.grid.columns + like.column).astype(np.float64)
        if question.query.terms:
            with self._encoding:
                encoder = self._encoder(name)
                vectors = encoder.embed_text([term.text or "" for term in question.query.terms])
            total += sum(term.sign * vector for term, vector in zip(question.query.terms, vectors, strict=True))
        return Answer(unit(total))

    def _encoder(self, name: str) -> SemanticEncoder:
        found = self._encoders.get(name)
        if found is None:
            try:
                found = load(name)
            except EncoderError as error:
                found = error
            self._encoders[name] = found
        if isinstance(found, EncoderError):
            raise found
        return found

    def _keep(self, kept: OrderedDict, key: object, value: object, most: int) -> None:
        with self._lock:
            kept[key] = value
            while len(kept) > most:
                kept.popitem(last=False)


def _brief(problem: NervError) -> str:
    return str(problem).rpartition("/")[2]


def _fractions(box: tuple[int, int, int, int], index: EmbeddingIndex) -> dict:
    width, height = index.grid.width, index.grid.height
    x, y, w, h = box
    return {"x": x / width, "y": y / height, "w": w / width, "h": h / height}


def _scores_of(index: EmbeddingIndex, frame: int, query: np.ndarray) -> np.ndarray:
    """``(P,)`` scores of one frame."""
    for segment in index.segments:
        if frame < segment.frame_count:
            return segment.scores(query)[frame]
        frame -= segment.frame_count
    raise IndexError(frame)


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
