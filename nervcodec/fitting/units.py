# SPDX-License-Identifier: MIT
"""What one row of a training batch holds: a whole frame for ``grid``, one patch for ``pe``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from nervcodec.network.blocks import pixel_unshuffle
from nervcodec.network.config import CELL, Geometry
from nervcodec.network.field import Field
from nervcodec.network.heads import PixelHead
from nervcodec.network.inputs import Inputs
from nervcodec.network.patch_field import PatchField

# A batch of about so many pixels: smaller frames come several at a time, since a step has a cost of its own.
_BATCH_PIXELS = 800_000
_LARGEST_BATCH = 8


class Units(ABC):
    """The units of a segment, by number.

    Args:
        geometry: of the segment.

    Attributes:
        count: how many there are.
        usual_batch: of so many, where the fit is not told.
    """

    count: int
    usual_batch: int

    def __init__(self, geometry: Geometry):
        self.geometry = geometry

    @abstractmethod
    def frames(self, units: Tensor) -> Tensor:
        """The frame of each unit, ``(B,)`` to ``(B,)``."""

    @abstractmethod
    def inputs(self, units: Tensor) -> Inputs:
        """What the network is asked for."""

    @abstractmethod
    def targets(self, frames: Tensor) -> Tensor:
        """``(N, H, W, 3)`` uint8 frames in the layout that the network predicts, ``(units, ...)``."""

    @abstractmethod
    def embeddings(self, reference: Tensor, rows: Tensor, units: Tensor) -> Tensor:
        """Reference embeddings of a batch: from ``(n, patches, D)``, rows of the batch's frames, and its units."""


class WholeFrames(Units):
    """A unit is a frame; targets are padded to whole cells by repeating the edge, and packed 4 x 4."""

    def __init__(self, geometry: Geometry):
        super().__init__(geometry)
        self.count = geometry.frames
        pixels = geometry.height * geometry.width
        self.usual_batch = max(1, min(_LARGEST_BATCH, round(_BATCH_PIXELS / pixels)))

    def frames(self, units: Tensor) -> Tensor:
        return units

    def inputs(self, units: Tensor) -> Inputs:
        return Inputs(units)

    def targets(self, frames: Tensor) -> Tensor:
        height, width = (cells * CELL for cells in self.geometry.cells)
        if (height, width) != tuple(frames.shape[1:3]):
            down = torch.arange(height, device=frames.device).clamp(max=frames.shape[1] - 1)
            across = torch.arange(width, device=frames.device).clamp(max=frames.shape[2] - 1)
            frames = frames[:, down][:, :, across]
        return pixel_unshuffle(frames, PixelHead.factor)

    def embeddings(self, reference: Tensor, rows: Tensor, units: Tensor) -> Tensor:
        return reference[rows]


class SinglePatches(Units):
    """A unit is a patch, counted row by row through each frame; targets have the largest patch's size."""

    usual_batch = 8

    def __init__(self, geometry: Geometry):
        super().__init__(geometry)
        self._windows = geometry.patches.windows()
        self.count = geometry.frames * len(self._windows)

    def frames(self, units: Tensor) -> Tensor:
        return units // len(self._windows)

    def inputs(self, units: Tensor) -> Inputs:
        windows = tuple(self._windows[patch] for patch in (units % len(self._windows)).tolist())
        return Inputs(self.frames(units), windows)

    def targets(self, frames: Tensor) -> Tensor:
        height, width = self.geometry.patches.patch_size
        patches = []
        for window in self._windows:
            down = (window.y + torch.arange(height, device=frames.device)).clamp(max=window.y + window.height - 1)
            across = (window.x + torch.arange(width, device=frames.device)).clamp(max=window.x + window.width - 1)
            patches.append(frames[:, down][:, :, across])
        return torch.stack(patches, dim=1).flatten(0, 1)

    def embeddings(self, reference: Tensor, rows: Tensor, units: Tensor) -> Tensor:
        return reference[rows, units % len(self._windows)][:, None]


def units_of(field: Field) -> Units:
    """How a network is shown its segment."""
    return (SinglePatches if isinstance(field, PatchField) else WholeFrames)(field.geometry)
