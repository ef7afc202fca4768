# SPDX-License-Identifier: MIT
"""What the fit, the decoder and search ask of a network, whichever positional encoding it has."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from nervcodec.network.config import Geometry
from nervcodec.network.heads import SemanticHead
from nervcodec.network.inputs import Inputs


class Field(nn.Module, ABC):
    """A network fitted to one segment: frame numbers in, pixels and patch embeddings out.

    Attributes:
        geometry: of the segment.
        semantic: the second head, or None.
    """

    geometry: Geometry
    semantic: SemanticHead | None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @abstractmethod
    def forward(self, inputs: Inputs, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        """Predict in the layout that the last layer gives, which :meth:`unpack` turns into images.

        Returns:
            Pixels, 0 at mid-grey; and centred embeddings ``(B, patches, D)``, of one patch where the network is asked
            for one, or None.
        """

    @abstractmethod
    def unpack(self, packed: Tensor) -> Tensor:
        """Predictions of whole frames, or of whole patches, to images ``(B, h, w, 3)`` float32, about [0, 1]."""

    @abstractmethod
    def render(self, inputs: Inputs) -> Tensor:
        """Frames or windows as ``(B, h, w, 3)`` float32, about [0, 1], not clamped.

        A window is computed without the rest of the frame; there is one for all frames.
        """

    @abstractmethod
    def coefficients(self, inputs: Inputs) -> Tensor:
        """Coordinates of whole frames in the semantic head's basis, ``(B, patches, rank)`` float32."""
