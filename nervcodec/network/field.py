# SPDX-License-Identifier: MIT
"""What the fit, the decoder and search ask of a network, whichever positional encoding it has."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from nervcodec.network.config import Geometry
from nervcodec.network.heads import SemanticHead


class Field(nn.Module, ABC):
    """A network fitted to one segment: frame numbers in, pixels and patch embeddings out.

    A *unit* is what one row of a training batch holds: a whole frame for ``grid``, one patch for ``pe``.

    Attributes:
        geometry: of the segment.
        semantic: the second head, or None.
        default_optimizer: ``muon`` or ``adam``, what suits it where the fit is not told.
    """

    geometry: Geometry
    default_optimizer: str
    semantic: SemanticHead | None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    @abstractmethod
    def default_batch_size(self) -> int:
        """Units in a batch where the fit is not told."""

    @property
    @abstractmethod
    def unit_count(self) -> int:
        """Units in the segment."""

    @abstractmethod
    def unit_frames(self, units: Tensor) -> Tensor:
        """The frame of each unit, ``(B,)`` to ``(B,)``."""

    @abstractmethod
    def pack_targets(self, frames: Tensor) -> Tensor:
        """Bring ``(N, H, W, 3)`` uint8 frames into the layout that :meth:`forward` predicts, ``(units, ...)``."""

    @abstractmethod
    def pack_embeddings(self, embeddings: Tensor, frame_rows: Tensor, units: Tensor) -> Tensor:
        """Reference embeddings of a batch: from ``(n, patches, D)``, rows of the batch's frames, and its units."""

    @abstractmethod
    def forward(self, units: Tensor, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        """Predict a batch of units.

        Returns:
            Pixels in the packed layout, 0 at mid-grey, and centred embeddings ``(B, patches of a unit, D)`` or None.
        """

    @abstractmethod
    def unpack(self, packed: Tensor) -> Tensor:
        """Packed predictions to images ``(B, h, w, 3)`` float32 in [0, 1], for losses that look at images."""

    @abstractmethod
    def render(self, frames: Tensor) -> Tensor:
        """``(B,)`` frame numbers to ``(B, H, W, 3)`` float32, about [0, 1], not clamped."""

    @abstractmethod
    def render_patch(self, frames: Tensor, row: int, column: int) -> Tensor:
        """One patch of each frame, ``(B, h, w, 3)``, without computing the rest of the frame."""

    @abstractmethod
    def render_between(self, frames: Tensor, row: float, column: float) -> Tensor:
        """A window between patches, ``(B, h, w, 3)``; position and size as ``PatchGrid.box_between`` has them."""

    @abstractmethod
    def coefficients(self, frames: Tensor) -> Tensor:
        """``(B,)`` frame numbers to coordinates in the semantic head's basis, ``(B, patches, rank)`` float32."""

    @abstractmethod
    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters by how they are optimised: ``matrices``, ``grids``, ``semantic``, ``others``."""
