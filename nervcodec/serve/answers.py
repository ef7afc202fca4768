# SPDX-License-Identifier: MIT
"""What questions ask of each encoder's embeddings, and the embeddings of files: had once and kept for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from nervcodec.errors import EncoderError
from nervcodec.search.query import EncodedQuery, Query, Term, encode_query, normalize_vector
from nervcodec.search.scores import VideoEmbeddings, encode_for, open_embeddings
from nervcodec.semantic.encoder import SemanticEncoder, load
from nervcodec.serve.executor import CancellationToken
from nervcodec.serve.limits import RefusedError
from nervcodec.serve.store import ContainerStore, FileEntry

_ANSWERS, _INDEXES = 200, 32


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


@dataclass
class Asking:
    """A question that is put to the encoder of each file in turn."""

    put: Callable[[str], EncodedQuery]
    token: CancellationToken
    unread: list[str] = field(default_factory=list)

    def __call__(self, name: str) -> EncodedQuery:
        self.token.check()
        found = self.put(name)
        for said in found.messages(name):
            if said not in self.unread:
                self.unread.append(said)
        return found


class AskedOfEach:
    """Puts questions to encoders. Several threads may use it.

    Args:
        store: the files.
    """

    def __init__(self, store: ContainerStore):
        self._store, self._encoding = store, threading.Lock()
        self._encoders: dict[str, SemanticEncoder | EncoderError] = {}
        self._answers = lru_cache(_ANSWERS)(self._put)
        self._indexes = lru_cache(_INDEXES)(lambda item: open_embeddings(item.file))

    def index(self, item: FileEntry) -> VideoEmbeddings:
        """The embeddings of a file.

        Raises:
            ContainerError: it has none, or is damaged.
        """
        return self._indexes(item)

    def asking(self, question: Question, cut_off: bool, token: CancellationToken) -> Asking:
        """A question for each encoder there is.

        Args:
            question: what is looked for.
            cut_off: leave out what is not really there.
            token: tells whether somebody still waits.
        """
        return Asking(lambda name: self.answer(question, name, cut_off), token)

    def of(self, question: Question, item: FileEntry) -> tuple[VideoEmbeddings, EncodedQuery]:
        """The embeddings of a file, and what a question asks of them; see :meth:`index` and :meth:`answer`."""
        index = self.index(item)
        return index, encode_for(index, lambda name: self.answer(question, name, True))

    def answer(self, question: Question, encoder: str, cut_off: bool) -> EncodedQuery:
        """What a question asks of the embeddings of an encoder.

        Raises:
            EncoderError: it is not to be had here, or a patch is not of its.
            ConfigError: the parts of the question cancel each other out.
            MissingError: there is no file of which a patch is to be taken.
            RefusedError: that has no such patch.
        """
        item = None if question.like is None else self._store.entry(question.like.path)
        return self._answers(question, item, encoder, cut_off)

    def _put(self, question: Question, item: FileEntry | None, name: str, cut_off: bool) -> EncodedQuery:
        like = question.like
        if like is None or item is None:
            with self._encoding:
                return encode_query(question.query, self._encoder(name), cut_off)
        index = self.index(item)
        if index.encoder != name:
            raise EncoderError(f"its embeddings are of {name}, and those of the patch of {index.encoder}")
        if like.frame >= index.frame_count or like.row >= index.grid.rows or like.column >= index.grid.columns:
            raise RefusedError(f"{like.path} has no such patch")
        total = index.embedding(like.frame, like.row * index.grid.columns + like.column).astype(np.float64)
        if terms := question.query.terms:
            with self._encoding:
                vectors = self._encoder(name).embed_text([term.text or "" for term in terms])
            total += sum(term.sign * vector for term, vector in zip(terms, vectors, strict=True))
        return EncodedQuery(normalize_vector(total))

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
