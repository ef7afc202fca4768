# SPDX-License-Identifier: MIT
"""Interface of a network fitted to one segment, whichever positional encoding it has, and its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nervcodec.coordinates import Patch
from nervcodec.network.config import CELL, Geometry
from nervcodec.network.heads import SemanticHead

# (top, bottom, left, right) in 16 x 16 pixel cells
Cells = tuple[int, int, int, int]


@dataclass(frozen=True)
class Inputs:
    """Inputs of a network.

    Attributes:
        frames: ``(B,)`` int64, counted from the segment's first.
        patches: empty for whole frames, one for all frames, or one each.
    """

    frames: Tensor
    patches: tuple[Patch, ...] = ()

    def rows(self) -> list[tuple[int, Patch]]:
        """Frame number and patch of every row."""
        patches = self.patches * len(self.frames) if len(self.patches) == 1 else self.patches
        return list(zip(self.frames.tolist(), patches, strict=True))

    def cells(self, frame_cells: tuple[int, int], halo: int) -> Cells:
        """Cells to compute: the whole frame, or a patch with its halo.

        Args:
            frame_cells: rows and columns of cells in a frame.
            halo: cells around a patch that its pixels depend on.
        """
        rows, columns = frame_cells
        if not self.patches:
            return 0, rows, 0, columns
        (patch,) = self.patches
        return (
            max(0, patch.y // CELL - halo),
            min(rows, -(-(patch.y + patch.height) // CELL) + halo),
            max(0, patch.x // CELL - halo),
            min(columns, -(-(patch.x + patch.width) // CELL) + halo),
        )


def to_uint8(images: Tensor) -> Tensor:
    """Float images about [0, 1] to uint8."""
    # Three passes over memory; adding 0.5 makes truncation round.
    return torch.add(images.new_tensor(0.5), images, alpha=255).clamp_(0, 255).to(torch.uint8)


class Field(nn.Module, ABC):
    """A network fitted to one segment: frame numbers in, pixels and patch embeddings out.

    Attributes:
        geometry: of the segment.
        semantic: the second head, or None.
        frozen: names of frozen parameters, which are stored in the shared stream.
    """

    geometry: Geometry
    semantic: SemanticHead | None
    frozen: frozenset[str] = frozenset()

    def freeze(self, weights: Mapping[str, Tensor]) -> None:
        """Set parameters and freeze them.

        Args:
            weights: by parameter name.
        """
        for name, values in weights.items():
            parameter = self.get_parameter(name)
            with torch.no_grad():
                parameter.copy_(values)
            parameter.requires_grad_(False)
        self.frozen = self.frozen | weights.keys()

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @abstractmethod
    def forward(self, inputs: Inputs, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        """Predict in the layout of the last layer.

        Returns:
            Pixels, 0 at mid-grey; and centred embeddings ``(B, patches, D)``, of one patch where inputs name
            one, or None.
        """

    @abstractmethod
    def render(self, inputs: Inputs) -> Tensor:
        """Frames or patches as ``(B, h, w, 3)`` float32, about [0, 1], not clamped.

        A patch, the same for all frames, is computed without the rest of the frame.
        """

    def render_uint8(self, inputs: Inputs) -> Tensor:
        """The same as uint8 RGB."""
        return to_uint8(self.render(inputs))

    @abstractmethod
    def coefficients(self, inputs: Inputs) -> Tensor:
        """Coordinates of whole frames in the semantic head's basis, ``(B, patches, rank)`` float32."""
