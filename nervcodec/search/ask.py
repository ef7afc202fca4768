# SPDX-License-Identifier: MIT
"""What a query asks of an encoder's embeddings: a vector to rank patches by, and a test of whether a match is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nervcodec.errors import EncoderError
from nervcodec.search.neutral import AmongNeutral, neutral_vectors
from nervcodec.search.query import Query, embed, unit
from nervcodec.search.wording import plain
from nervcodec.semantic.classes import Blends
from nervcodec.semantic.encoder import ClassEncoder, SemanticEncoder, load

ENOUGH = 0.2  # the share of a patch that what is asked for must have, beyond what any blend of classes has

Test = Callable[[np.ndarray], np.ndarray]


class Answer(NamedTuple):
    """What a query asks of one encoder's embeddings.

    Attributes:
        vector: ``(D,)`` of length 1; patches are ranked by their dot product with it.
        shows: from ``(m, D)`` patch embeddings to ``(m,)`` bool, whether each shows what is asked for; None keeps all.
        unread: texts of the query that the encoder cannot read; nothing is found where there are some.
    """

    vector: np.ndarray
    shows: Test | None = None
    unread: tuple[str, ...] = ()

    def unread_in_words(self, encoder: str) -> list[str]:
        """A sentence for each text that the encoder of this name cannot read."""
        return [f'the {encoder} encoder reads English only, not "{text[:40]}"' for text in self.unread]


@dataclass(frozen=True)
class ShareOfClasses:
    """Keeps patches that are, to a large enough part, a blend of the classes that are meant.

    Attributes:
        blends: the encoder's.
        meant: ``(C,)``, how far each class is meant.
    """

    blends: Blends
    meant: np.ndarray

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Which of ``(m, D)`` patch embeddings show the query: ``(m,)`` bool."""
        return self.share(patches) >= ENOUGH

    def share(self, patches: np.ndarray) -> np.ndarray:
        """The share of what is meant in each patch, less what it has in an even blend of all classes: ``(m,)``."""
        return self.blends.shares(patches) @ self.meant - self.meant.mean()


def answer(query: Query, encoder: SemanticEncoder, cut_off: bool = True) -> Answer:
    """Put a query to an encoder. Texts are put in plain words first.

    Args:
        query: what to look for.
        encoder: the one the embeddings are of.
        cut_off: give a test of whether a match is one. A query with an image has none: it is compared with patches as
            a picture, and texts say nothing about how well it should score.

    Raises:
        ConfigError: an image cannot be read, or terms cancel each other out.
    """
    query = query.with_texts(plain)
    texts = [term.text for term in query.terms if term.text is not None]
    if not isinstance(encoder, ClassEncoder):
        vector = embed(query, encoder)
        judged = cut_off and not query.has_image
        return Answer(vector, AmongNeutral(vector, neutral_vectors(encoder)) if judged else None)
    if unread := tuple(text for text in texts if not encoder.reads(text)):
        return Answer(np.zeros(encoder.dimension, np.float32), _nothing, unread)
    if query.has_image:
        return Answer(embed(query, encoder))
    meant = encoder.meant(texts)
    signs = np.array([term.sign for term in query.terms], np.float32)
    wanted = signs @ meant / max(1, (signs > 0).sum())
    direction = encoder.blends.direction(wanted)
    return Answer(unit(direction), ShareOfClasses(encoder.blends, wanted.clip(0)) if cut_off else None)


class Asked:
    """What a query asks of each encoder there is; each is loaded once.

    Args:
        query: what to look for.
        device: where encoders run, as :func:`nervcodec.open`.
        cut_off: leave out what is not really there.

    Attributes:
        unread: what encoders cannot read of the query, in words.
    """

    def __init__(self, query: Query, device: str = "auto", cut_off: bool = True):
        self._query, self._device, self._cut_off = query, device, cut_off
        self._answers: dict[str, Answer | EncoderError] = {}
        self.unread: list[str] = []

    def __call__(self, name: str) -> Answer:
        """Put the query to the encoder of that name.

        Raises:
            EncoderError: it cannot be loaded here.
            ConfigError: as :func:`answer`.
        """
        if name not in self._answers:
            self._answers[name] = self._first(name)
        found = self._answers[name]
        if isinstance(found, EncoderError):
            raise found
        return found

    def _first(self, name: str) -> Answer | EncoderError:
        try:
            found = answer(self._query, load(name, self._chosen_device()), self._cut_off)
        except EncoderError as error:
            return error
        self.unread += found.unread_in_words(name)
        return found

    def _chosen_device(self) -> str:
        """Where encoders run. Texts need no GPU, and finding out whether there is one takes importing torch."""
        if self._device == "auto" and not self._query.has_image:
            return "cpu"
        from nervcodec.device import choose

        return choose(self._device).device


def _nothing(patches: np.ndarray) -> np.ndarray:
    return np.zeros(len(patches), bool)
