# SPDX-License-Identifier: MIT
"""What a blend of ImageNet's classes says of a text: which classes a text means, and how much of a blend they are.

The offline encoder's vector of an image is a sum of a few of a thousand known class vectors, so the shares of the
classes can be read back from it. A text means a class as far as it resembles what the class may be called: its name,
or one of the broader words of ``broader.txt`` (a taxi is a vehicle, a bow tie tells of a person).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import numpy as np

# A text means a class half by a resemblance (cosine) of _HALF; _SOFTNESS is the logistic's width. What resembles it
# less than its best word does counts less by the factor e for each _FALL: "hat" is not about all that is worn.
_HALF, _SOFTNESS, _FALL = 0.7, 0.08, 0.2
_SPARSITY = 0.02  # what a class vector must bring at least to be part of a blend
_ROUNDS = 100
TEMPLATE = "a photo of {}"  # in which queries and words for classes are compared
_RIDGE = 0.01  # of the direction: small enough to tell neighbouring classes apart


@dataclass(frozen=True)
class Words:
    """Words for classes.

    Attributes:
        words: ``W`` of them.
        means: ``(W, C)`` bool, which classes each is a word for.
    """

    words: tuple[str, ...]
    means: np.ndarray

    def meant(self, resemblance: np.ndarray) -> np.ndarray:
        """How far a text means each class, from its cosines ``(W,)`` with the words: ``(C,)`` float32, 0 to 1."""
        near = 1 / (1 + np.exp(-(resemblance - _HALF) / _SOFTNESS))
        near *= np.exp((resemblance - resemblance.max()) / _FALL)
        return np.where(self.means, near[:, None], 0).max(axis=0).astype(np.float32)


def read_words(names: Sequence[str]) -> Words:
    """The classes' own names, in parts where a name has several, and the broader words that are shipped.

    Raises:
        ValueError: a line of ``broader.txt`` names no class.
    """
    members: dict[str, set[int]] = {}
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(name, []).append(number)
        for part in re.sub(r"\(.*?\)", "", name).split(" / "):
            members.setdefault(part.strip(), set()).add(number)
    for line in _lines("broader.txt"):
        broader, _, classes = line.partition(": ")
        meant = {number for item in classes.split(", ") for number in _numbers(item, places, line)}
        for word in broader.split(", "):
            members.setdefault(word, set()).update(meant)
    means = np.zeros((len(members), len(names)), bool)
    for row, meant in zip(means, members.values(), strict=True):
        row[list(meant)] = True
    return Words(tuple(members), means)


def class_names() -> list[str]:
    """ImageNet's classes in their order: OpenCLIP's list, without the seconds that importing it takes."""
    return _lines("imagenet.txt")


def shipped_vectors(what: str) -> np.ndarray:
    """Text embeddings by all-MiniLM-L6-v2 that are shipped with the package; ``tests/class_vectors.py`` makes them.

    Args:
        what: ``classes``, the names of :func:`class_names`; or ``words``, those of :func:`read_words` in the template.

    Returns:
        ``(n, 384)`` float32 of length 1.
    """
    from safetensors.numpy import load

    data = resources.files("nervcodec.semantic").joinpath(f"{what}.safetensors").read_bytes()
    return load(data)["vectors"].astype(np.float32)


def _lines(file: str) -> list[str]:
    """Lines of a shipped file without empty ones and remarks; what begins with a space goes on with the last one."""
    text = resources.files("nervcodec.semantic").joinpath(file).read_text(encoding="utf-8")
    return [line for line in re.sub(r"\n +", " ", text).splitlines() if line and not line.startswith("#")]


def _numbers(item: str, places: dict[str, list[int]], line: str) -> list[int]:
    if span := re.fullmatch(r"(\d+)(?:-(\d+))?", item):
        return list(range(int(span[1]), int(span[2] or span[1]) + 1))
    if item not in places:
        raise ValueError(f"broader.txt: no class is called {item!r} in {line!r}")
    return places[item]


class Blends:
    """Vectors that are sums of class vectors, times a length.

    Args:
        class_vectors: ``(C, D)`` of length 1.
    """

    def __init__(self, class_vectors: np.ndarray):
        self.class_vectors = class_vectors.astype(np.float32)

    @cached_property
    def _products(self) -> np.ndarray:
        return self.class_vectors @ self.class_vectors.T

    @cached_property
    def _steepest(self) -> float:
        vectors = self.class_vectors.astype(np.float64)
        return float(np.linalg.eigvalsh(vectors.T @ vectors)[-1])

    def shares(self, vectors: np.ndarray) -> np.ndarray:
        """The share of each class in ``(n, D)`` vectors: ``(n, C)`` float32, no less than 0, 1 in sum (or all 0).

        Non-negative least squares with a price on every class, by FISTA (Beck and Teboulle 2009).
        """
        wanted = vectors.astype(np.float32) @ self.class_vectors.T - _SPARSITY
        found = ahead = np.zeros_like(wanted)
        pace = 1.0
        for _ in range(_ROUNDS):
            better = np.maximum(ahead - (ahead @ self._products - wanted) / self._steepest, 0)
            faster = (1 + (1 + 4 * pace * pace) ** 0.5) / 2
            ahead = better + (pace - 1) / faster * (better - found)
            found, pace = better, faster
        return found / np.maximum(found.sum(axis=1, keepdims=True), 1e-9)

    @cached_property
    def _backwards(self) -> np.ndarray:
        vectors = self.class_vectors.astype(np.float64)
        return np.linalg.solve(vectors.T @ vectors + _RIDGE * np.eye(vectors.shape[1]), vectors.T)

    def direction(self, meant: np.ndarray) -> np.ndarray:
        """The ``(D,)`` direction whose dot products with the class vectors come nearest to ``(C,)`` wanted ones.

        Ridge regression: a quick, linear stand-in for :meth:`shares` to rank by.
        """
        return self._backwards @ meant
