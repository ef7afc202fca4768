# SPDX-License-Identifier: MIT
"""What the fit, the decoder and search ask of a network, whichever positional encoding it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nervcodec.network.config import Geometry
from nervcodec.network.heads import SemanticHead
from nervcodec.network.inputs import Inputs


def as_shown(images: Tensor) -> Tensor:
    """Images of floats about [0, 1] to uint8."""
    # In three passes over memory: half is added so that cutting off rounds.
    return torch.add(images.new_tensor(0.5), images, alpha=255).clamp_(0, 255).to(torch.uint8)


class Field(nn.Module, ABC):
    """A network fitted to one segment: frame numbers in, pixels and patch embeddings out.

    Attributes:
        geometry: of the segment.
        semantic: the second head, or None.
        given: names of the parameters that are as they are: no fit changes them, and they are stored elsewhere.
    """

    geometry: Geometry
    semantic: SemanticHead | None
    given: frozenset[str] = frozenset()

    def give(self, weights: Mapping[str, Tensor]) -> None:
        """Take parameters that no fit is to change.

        Args:
            weights: by name, of the shapes that they have.
        """
        for name, values in weights.items():
            parameter = self.get_parameter(name)
            with torch.no_grad():
                parameter.copy_(values)
            parameter.requires_grad_(False)
        self.given = self.given | weights.keys()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @abstractmethod
    def forward(self, inputs: Inputs, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        """Predict in the layout that the last layer gives.

        Returns:
            Pixels, 0 at mid-grey; and centred embeddings ``(B, patches, D)``, of one patch where the network
            is asked for one, or None.
        """

    @abstractmethod
    def render(self, inputs: Inputs) -> Tensor:
        """Frames or windows as ``(B, h, w, 3)`` float32, about [0, 1], not clamped.

        A window is computed without the rest of the frame; there is one for all frames.
        """

    def shown(self, inputs: Inputs) -> Tensor:
        """The same as they are shown, uint8 RGB."""
        return as_shown(self.render(inputs))

    @abstractmethod
    def coefficients(self, inputs: Inputs) -> Tensor:
        """Coordinates of whole frames in the semantic head's basis, ``(B, patches, rank)`` float32."""
