# SPDX-License-Identifier: MIT
"""Whether a match is one, for any encoder: a query is compared with neutral prompts, everyday things of all kinds.

The raw score of the best patch says little by itself: an encoder gives every text some patch that suits it best. A
query that is really there describes that patch better than nearly all neutral prompts do. Prompts and query have gone
through the same wording (:mod:`nervcodec.search.wording`) and the same templates of the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np

from nervcodec.search.wording import plain
from nervcodec.semantic import cache
from nervcodec.semantic.encoder import SemanticEncoder

CUT_OFF = 0.88  # of the neutral prompts must describe a patch less well than the query
SYNONYM = 0.9  # cosine of query and prompt from which on the prompt says the same and does not count


def neutral_prompts() -> list[str]:
    """The prompts, one a line of ``neutral.txt``, in plain words."""
    text = resources.files("nervcodec.search").joinpath("neutral.txt").read_text(encoding="utf-8")
    return [plain(line) for line in text.splitlines() if line.strip()]


def neutral_vectors(encoder: SemanticEncoder) -> np.ndarray:
    """Their embeddings, ``(n, D)`` float32 of length 1; computed once for an encoder and kept in the cache."""
    prompts = neutral_prompts()
    name = cache.key("neutral prompts", encoder.name, *prompts)
    vectors = cache.load("prompts", name)
    if vectors is None or vectors.shape != (len(prompts), encoder.dimension):
        vectors = encoder.embed_text(prompts)
        cache.store("prompts", name, vectors)
    return vectors


@dataclass(frozen=True)
class AmongNeutral:
    """Keeps what a query describes better than neutral prompts do.

    Attributes:
        query: ``(D,)`` of length 1.
        neutral: ``(n, D)`` of length 1.
    """

    query: np.ndarray
    neutral: np.ndarray

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Which of ``(m, D)`` patch embeddings show the query: ``(m,)`` bool."""
        return self.standing(patches) >= CUT_OFF

    def standing(self, patches: np.ndarray) -> np.ndarray:
        """The fraction of neutral prompts that match a patch less well than the query does: ``(m,)``, 0 to 1."""
        others = self.neutral[self.neutral @ self.query < SYNONYM]
        if not len(others):
            return np.ones(len(patches))
        return (patches @ others.T < (patches @ self.query)[:, None]).mean(axis=1)
