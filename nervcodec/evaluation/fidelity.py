# SPDX-License-Identifier: MIT
"""How well a container's embeddings stand in for the reference encoder's: closeness, and agreement of rankings."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from nervcodec.errors import ConfigError

CELL_S = 0.5  # recall counts cells of this length x one patch: neighbouring frames are near-duplicates
TOP = 10


@dataclass(frozen=True)
class Fidelity:
    """How well predicted embeddings stand in for reference embeddings at some frames.

    Attributes:
        semantic: ``cosine`` and ``centred_cosine`` (see :func:`closeness`), ``diversity`` (variance over that of the
            reference), ``smoothness`` and ``reference_smoothness`` (see :func:`smoothness`).
        retrieval: see :func:`ranking_agreement`.
    """

    semantic: dict[str, float]
    retrieval: dict[str, float]

    def to_json(self) -> dict[str, dict[str, float]]:
        """Under the names of ``eval --json``."""
        parts = (("semantic", self.semantic), ("retrieval", self.retrieval))
        return {name: {key: round(value, 6) for key, value in part.items()} for name, part in parts}


def compare(predicted: np.ndarray, reference: np.ndarray, queries: np.ndarray, times_s: np.ndarray) -> Fidelity:
    """All figures at once, of ``(n, P, D)`` unit vectors; see :func:`ranking_agreement` for the arguments."""
    raw, centred = closeness(predicted, reference)
    spread = _variance(reference)
    semantic = {
        "cosine": raw,
        "centred_cosine": centred,
        "diversity": _variance(predicted) / spread if spread > 0 else 1.0,
        "smoothness": smoothness(predicted),
        "reference_smoothness": smoothness(reference),
    }
    return Fidelity(semantic, ranking_agreement(predicted, reference, queries, times_s))


def shipped_queries() -> list[str]:
    """Everyday queries for measuring retrieval, one a line of ``queries.txt``."""
    return _lines(resources.files("nervcodec.evaluation").joinpath("queries.txt").read_text(encoding="utf-8"))


def read_queries(path: Path) -> list[str]:
    """Queries from a file, one a line.

    Raises:
        ConfigError: it cannot be read, or holds none.
    """
    try:
        queries = _lines(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
    if not queries:
        raise ConfigError(f"{path}: holds no query")
    return queries


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _variance(embeddings: np.ndarray) -> float:
    return float(np.square(embeddings - embeddings.mean(axis=(0, 1))).sum(axis=-1).mean())


def smoothness(embeddings: np.ndarray) -> float:
    """Mean cosine of each patch's embedding with that of the next frame in ``(n, P, D)``; 1 for a single frame."""
    return _cosine(embeddings[:-1], embeddings[1:]) if len(embeddings) > 1 else 1.0


def closeness(predicted: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Mean cosine of ``(n, P, D)`` embeddings, raw and less the reference's mean.

    The raw one flatters: embeddings of one video share a large common part.
    """
    mean = reference.mean(axis=(0, 1))
    return _cosine(predicted, reference), _cosine(predicted - mean, reference - mean)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(axis=-1) / np.maximum(lengths, 1e-12)).mean())


def ranking_agreement(
    predicted: np.ndarray, reference: np.ndarray, queries: np.ndarray, times_s: np.ndarray
) -> dict[str, float]:
    """How far a ranking of patches by predicted embeddings agrees with one by reference embeddings.

    Args:
        predicted, reference: ``(n, P, D)`` unit vectors.
        queries: ``(Q, D)`` unit vectors.
        times_s: ``(n,)`` seconds.

    Returns:
        Means over queries: ``recall_at_10`` over cells of half a second x one patch (a cell scores as its best
        frame), ``ndcg_at_10`` over all patches with gains from the reference's scores (Jarvelin and Kekalainen
        2002), ``rank_correlation`` (Spearman) over all patches.
    """
    recalls, gains, correlations = [], [], []
    cells = (np.asarray(times_s) / CELL_S).astype(int)
    for query in queries:
        a, b = predicted @ query, reference @ query  # (n, P)
        recalls.append(_recall(_by_cell(a, cells), _by_cell(b, cells)))
        gains.append(_ndcg(a.ravel(), b.ravel()))
        correlations.append(_spearman(a.ravel(), b.ravel()))
    return {
        "recall_at_10": float(np.mean(recalls)),
        "ndcg_at_10": float(np.mean(gains)),
        "rank_correlation": float(np.mean(correlations)),
    }


def _by_cell(scores: np.ndarray, cells: np.ndarray) -> np.ndarray:
    return np.concatenate([scores[cells == cell].max(axis=0) for cell in np.unique(cells)])


def _recall(predicted: np.ndarray, reference: np.ndarray) -> float:
    top = min(TOP, len(reference))
    found = set(np.argsort(-predicted, kind="stable")[:top]) & set(np.argsort(-reference, kind="stable")[:top])
    return len(found) / top


def _ndcg(predicted: np.ndarray, reference: np.ndarray) -> float:
    spread = reference.max() - reference.min()
    if spread <= 0:
        return 1.0
    gain = (reference - reference.min()) / spread
    top = min(TOP, len(gain))
    discount = 1 / np.log2(np.arange(2, top + 2))
    order = np.argsort(-predicted, kind="stable")[:top]
    return float((gain[order] * discount).sum() / (np.sort(gain)[::-1][:top] * discount).sum())


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 1.0 if len(a) < 2 or np.ptp(b) == 0 else 0.0
    one, other = (np.argsort(np.argsort(x, kind="stable"), kind="stable").astype(np.float64) for x in (a, b))
    return float(np.corrcoef(one, other)[0, 1])
