# SPDX-License-Identifier: MIT
"""ImageNet's classes in image vectors and in texts.

The offline encoder's vector of an image is a weighted sum of a few of a thousand class vectors, from which the weights
can be computed. A class is relevant to a text as far as the text resembles its name, or one of the broader words of
``broader.txt`` (a taxi is a vehicle, a bow tie is worn by a person).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import numpy as np

# Relevance is a logistic function of the cosine of text and word, 0.5 at _MIDPOINT, of scale _SCALE. It falls by the
# factor e for each _DECAY that a word is less similar than the best one: "hat" does not mean all clothes.
_MIDPOINT, _SCALE, _DECAY = 0.7, 0.08, 0.2
_SPARSITY = 0.02  # L1 penalty of the shares
_ITERATIONS = 100
TEMPLATE = "a photo of {}"  # in which queries and words for classes are compared
_RIDGE = 0.01  # L2 penalty of the direction, small enough to distinguish similar classes


@dataclass(frozen=True)
class Vocabulary:
    """Words for classes.

    Attributes:
        words: ``W`` words.
        has_class: ``(W, C)`` bool, the classes of each word.
    """

    words: tuple[str, ...]
    has_class: np.ndarray

    def class_relevance(self, similarity: np.ndarray) -> np.ndarray:
        """How well each class matches a text, from the cosines ``(W,)`` of text and words: ``(C,)`` float32, 0 to 1."""
        relevance = 1 / (1 + np.exp(-(similarity - _MIDPOINT) / _SCALE))
        relevance *= np.exp((similarity - similarity.max()) / _DECAY)
        return np.where(self.has_class, relevance[:, None], 0).max(axis=0).astype(np.float32)


def read_vocabulary(names: Sequence[str]) -> Vocabulary:
    """The names of the classes, split where there are several, and the broader words of ``broader.txt``.

    Raises:
        ValueError: a line of ``broader.txt`` names no class.
    """
    members: dict[str, set[int]] = {}
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(name, []).append(number)
        for part in re.sub(r"\(.*?\)", "", name).split(" / "):
            members.setdefault(part.strip(), set()).add(number)
    for line in _lines("broader.txt"):
        broader, _, classes = line.partition(": ")
        members_of_line = {number for item in classes.split(", ") for number in _class_numbers(item, numbers, line)}
        for word in broader.split(", "):
            members.setdefault(word, set()).update(members_of_line)
    has_class = np.zeros((len(members), len(names)), bool)
    for row, classes_of_word in zip(has_class, members.values(), strict=True):
        row[list(classes_of_word)] = True
    return Vocabulary(tuple(members), has_class)


def class_names() -> list[str]:
    """ImageNet's classes in order: the list of OpenCLIP, whose import takes seconds."""
    return _lines("imagenet.txt")


def shipped_vectors(name: str) -> np.ndarray:
    """Text embeddings by all-MiniLM-L6-v2 that are shipped with the package; ``tests/class_vectors.py`` writes them.

    Args:
        name: ``classes``, of :func:`class_names`; or ``words``, of :func:`read_vocabulary` in the template.

    Returns:
        ``(n, 384)`` float32 of length 1.
    """
    from safetensors.numpy import load

    data = resources.files("nervcodec.semantic").joinpath(f"{name}.safetensors").read_bytes()
    return load(data)["vectors"].astype(np.float32)


def _lines(file: str) -> list[str]:
    """Lines of a shipped file without empty lines and comments; a line that begins with a space continues the last."""
    text = resources.files("nervcodec.semantic").joinpath(file).read_text(encoding="utf-8")
    return [line for line in re.sub(r"\n +", " ", text).splitlines() if line and not line.startswith("#")]


def _class_numbers(item: str, numbers: dict[str, list[int]], line: str) -> list[int]:
    if span := re.fullmatch(r"(\d+)(?:-(\d+))?", item):
        return list(range(int(span[1]), int(span[2] or span[1]) + 1))
    if item not in numbers:
        raise ValueError(f"broader.txt: no class is called {item!r} in {line!r}")
    return numbers[item]


class ClassMixture:
    """Vectors that are weighted sums of class vectors.

    Args:
        class_vectors: ``(C, D)`` of length 1.
    """

    def __init__(self, class_vectors: np.ndarray):
        self.class_vectors = class_vectors.astype(np.float32)

    @cached_property
    def _gram(self) -> np.ndarray:
        return self.class_vectors @ self.class_vectors.T

    @cached_property
    def _lipschitz(self) -> float:
        vectors = self.class_vectors.astype(np.float64)
        return float(np.linalg.eigvalsh(vectors.T @ vectors)[-1])

    def shares(self, vectors: np.ndarray) -> np.ndarray:
        """The share of each class in ``(n, D)`` vectors: ``(n, C)`` float32, non-negative, with sum 1 (or all 0).

        Non-negative least squares with an L1 penalty, by FISTA (Beck and Teboulle 2009).
        """
        target = vectors.astype(np.float32) @ self.class_vectors.T - _SPARSITY
        shares = extrapolated = np.zeros_like(target)
        momentum = 1.0
        for _ in range(_ITERATIONS):
            updated = np.maximum(extrapolated - (extrapolated @ self._gram - target) / self._lipschitz, 0)
            next_momentum = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
            extrapolated = updated + (momentum - 1) / next_momentum * (updated - shares)
            shares, momentum = updated, next_momentum
        return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)

    @cached_property
    def _ridge_inverse(self) -> np.ndarray:
        vectors = self.class_vectors.astype(np.float64)
        return np.linalg.solve(vectors.T @ vectors + _RIDGE * np.eye(vectors.shape[1]), vectors.T)

    def direction(self, relevance: np.ndarray) -> np.ndarray:
        """The ``(D,)`` direction whose dot products with the class vectors are nearest to ``(C,)`` relevances.

        Ridge regression: a fast, linear approximation of :meth:`shares` to rank by.
        """
        return self._ridge_inverse @ relevance
