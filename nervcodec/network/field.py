# SPDX-License-Identifier: MIT
"""Interface of a network fitted to one segment, whichever positional encoding it has, and its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nervcodec.coordinates import Window
from nervcodec.network.config import CELL, Geometry
from nervcodec.network.heads import SemanticHead

# (top, bottom, left, right) in 16 x 16 pixel cells
Cells = tuple[int, int, int, int]


@dataclass(frozen=True)
class Inputs:
    """A question to a network.

    Attributes:
        frames: ``(B,)`` int64, counted from the segment's first.
        windows: nothing for whole frames, one for all of them, or one each.
    """

    frames: Tensor
    windows: tuple[Window, ...] = ()

    def each(self) -> list[tuple[int, Window]]:
        """Frame number and window of every row."""
        windows = self.windows * len(self.frames) if len(self.windows) == 1 else self.windows
        return list(zip(self.frames.tolist(), windows, strict=True))

    def cells(self, whole: tuple[int, int], halo: int) -> Cells:
        """Cells that have to be computed: of the whole frame, or of a window and what its pixels depend on.

        Args:
            whole: rows and columns of cells in a frame.
            halo: cells around a window that its pixels depend on.
        """
        rows, columns = whole
        if not self.windows:
            return 0, rows, 0, columns
        (window,) = self.windows
        return (
            max(0, window.y // CELL - halo),
            min(rows, -(-(window.y + window.height) // CELL) + halo),
            max(0, window.x // CELL - halo),
            min(columns, -(-(window.x + window.width) // CELL) + halo),
        )


def as_shown(images: Tensor) -> Tensor:
    """Images of floats about [0, 1] to uint8."""
    # In three passes over memory: half is added so that cutting off rounds.
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
