# SPDX-License-Identifier: MIT
"""What is looked for: texts and images, added and subtracted, as one vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nervcodec.errors import ConfigError
from nervcodec.formats.text import shortened
from nervcodec.search.image import read_image
from nervcodec.semantic.encoder import SemanticEncoder

SIGNS = {"+": 1.0, "-": -1.0}


@dataclass(frozen=True)
class Term:
    """One part of a query.

    Attributes:
        text: words, or None for an image.
        image: an image file, or None for words.
        sign: 1 to look for it, -1 to keep away from it.
    """

    text: str | None = None
    image: Path | None = None
    sign: float = 1.0


@dataclass(frozen=True)
class Query:
    """Terms, the first of which is looked for."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        """As it is shown: one line of no more than some 70 characters."""
        parts = [f"{'+' if t.sign > 0 else '-'} {t.text if t.text is not None else t.image}" for t in self.terms]
        return shortened(" ".join(parts).removeprefix("+ ").strip())

    @property
    def has_image(self) -> bool:
        """Whether an image is among the terms."""
        return any(term.image is not None for term in self.terms)

    def with_texts(self, change: Callable[[str], str]) -> Query:
        """The same query with every text changed."""
        return Query(tuple(t if t.text is None else replace(t, text=change(t.text)) for t in self.terms))


def split_words(words: Sequence[str], image: Path | None) -> tuple[Query, list[str]]:
    """Read ``TEXT [+ TEXT | - TEXT]... [FILE]...``; with an image, the first text is left out.

    Returns:
        The query and the words after it.

    Raises:
        ConfigError: nothing to look for, an empty text, or a sign without a text.
    """
    rest = list(words)
    terms = [Term(image=image)] if image is not None else []
    if image is None:
        if not rest:
            raise ConfigError("name what to look for: a text, or --image FILE")
        terms.append(Term(rest.pop(0)))
    while rest and rest[0] in SIGNS:
        sign = SIGNS[rest.pop(0)]
        if not rest:
            raise ConfigError("a + or - needs a text after it")
        terms.append(Term(rest.pop(0), sign=sign))
    if any(term.text is not None and not term.text.strip() for term in terms):
        raise ConfigError("the query is empty")
    query = Query(tuple(terms))
    if any("\ud800" <= c <= "\udfff" for term in terms for c in term.text or ""):
        raise ConfigError(f"the query is no text in UTF-8: {query}")
    return query, rest


def embed(query: Query, encoder: SemanticEncoder) -> np.ndarray:
    """The query's vector: the sum of its terms' vectors with their signs, ``(D,)`` of length 1.

    Raises:
        ConfigError: an image cannot be read, or terms cancel each other out.
    """
    total = np.zeros(encoder.dimension)
    for term in query.terms:
        if term.image is not None:
            (vector,) = encoder.embed_images([read_image(term.image)])
        else:
            (vector,) = encoder.embed_text([term.text or ""])
        total += term.sign * vector
    return unit(total)


def unit(vector: np.ndarray) -> np.ndarray:
    """A query's vector brought to length 1, float32.

    Raises:
        ConfigError: it has none.
    """
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise ConfigError("the parts of the query cancel each other out")
    return (vector / length).astype(np.float32)
