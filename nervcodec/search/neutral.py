# SPDX-License-Identifier: MIT
"""Whether a match is one: a query is compared with neutral prompts, everyday things of all kinds.

The raw score of the best patch says little by itself: an encoder gives every text some patch that suits it best. A
query that is really there describes that patch better than nearly all neutral prompts do, and not for an instant only:
what an encoder sees in one frame and not in the next is mostly its own error.
"""

from __future__ import annotations

from importlib import resources

import numpy as np

from nervcodec.semantic import cache
from nervcodec.semantic.encoder import SemanticEncoder

CUT_OFF = 0.88  # of the neutral prompts must describe a patch less well than the query
REACH_S = 0.25  # before and after the best frame: the patch is judged by its mean embedding over this time


def neutral_prompts() -> list[str]:
    """The prompts, one a line of ``neutral.txt``."""
    text = resources.files("nervcodec.search").joinpath("neutral.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def neutral_vectors(encoder: SemanticEncoder) -> np.ndarray:
    """Their embeddings, ``(n, D)`` float32 of length 1; computed once for an encoder and kept in the cache."""
    prompts = neutral_prompts()
    name = cache.key("neutral prompts", encoder.name, *prompts)
    vectors = cache.load("prompts", name)
    if vectors is None or vectors.shape != (len(prompts), encoder.dimension):
        vectors = encoder.embed_text(prompts)
        cache.store("prompts", name, vectors)
    return vectors


def standing(patch: np.ndarray, query: np.ndarray, neutral: np.ndarray) -> float:
    """The fraction of neutral prompts that match a patch less well than a query does, 0 to 1.

    Args:
        patch: ``(D,)`` embedding.
        query: ``(D,)``.
        neutral: ``(n, D)``.
    """
    return float((neutral @ patch < query @ patch).mean())
