# SPDX-License-Identifier: MIT
"""What one row of a training batch holds: a frame for ``grid``, a patch for ``pe``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from nervcodec.network.config import CELL, Geometry
from nervcodec.network.field import Field
from nervcodec.network.grid_field import GridField
from nervcodec.network.inputs import Inputs
from nervcodec.network.patch_field import PatchField
from nervcodec.training.segment import SegmentData

# A batch of about so many pixels: smaller frames come several at a time, since a step has a cost of its own.
_BATCH_PIXELS = {"cpu": 800_000, "cuda": 3_200_000}
_LARGEST_BATCH = {"cpu": 8, "cuda": 16}


class Units(ABC):
    """The units of a segment, by number.

    Attributes:
        count: how many there are.
        usual_batch: of so many, where the fit is not told.
        recordable: whether inputs and targets of numbers that are on the network's device are made there, so that a
            step can be recorded as a graph.
    """

    count: int
    usual_batch: int
    recordable: bool = False

    @abstractmethod
    def frames(self, units: Tensor) -> Tensor:
        """The frame of each unit, ``(B,)`` to ``(B,)``."""

    @abstractmethod
    def inputs(self, units: Tensor) -> Inputs:
        """What the network is asked for."""

    @abstractmethod
    def targets(self, units: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """What it should give, ``(B, ...)`` in the layout that it predicts."""

    def whole(self, frame: int) -> tuple[Inputs, Tensor]:
        """Questions for all of a frame, and what the network should give."""
        units = torch.nonzero(self.frames(torch.arange(self.count)) == frame)[:, 0]
        return self.inputs(units), self.targets(units)

    @abstractmethod
    def images(self, packed: Tensor) -> Tensor:
        """Predictions or targets to images ``(B, h, w, 3)`` float32, about [0, 1]."""

    def embeddings(self, reference: Tensor, rows: Tensor, units: Tensor) -> Tensor:
        """Reference embeddings of a batch: from ``(n, patches, D)``, rows of the batch's frames, and its units."""
        return reference[rows]


class WholeFrames(Units):
    """A unit is a frame; targets are padded to whole cells by repeating the edge, and packed as the head packs them.

    Args:
        field: that is fitted.
        frames: ``(N, H, W, 3)`` uint8.
    """

    recordable = True

    def __init__(self, field: GridField, frames: Tensor):
        self._field, self.count = field, len(frames)
        self.usual_batch = batch_of(field.geometry, frames.device.type)
        height, width = (cells * CELL for cells in field.geometry.cells)
        if (height, width) != tuple(frames.shape[1:3]):
            down = torch.arange(height, device=frames.device).clamp(max=frames.shape[1] - 1)
            across = torch.arange(width, device=frames.device).clamp(max=frames.shape[2] - 1)
            frames = frames[:, down][:, :, across]
        self._frames = frames

    def frames(self, units: Tensor) -> Tensor:
        return units

    def inputs(self, units: Tensor) -> Inputs:
        return Inputs(units)

    def targets(self, units: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        # Made for each batch: as floats, all of them would take four times the memory.
        return self._field.pixels.to_packed(centred(self._frames, units, torch.float32)).to(dtype)

    def images(self, packed: Tensor) -> Tensor:
        return self._field.unpack(packed)


class SinglePatches(Units):
    """A unit is a patch, counted row by row through each frame; targets have the largest patch's size.

    Args:
        field: that is fitted.
        frames: ``(N, H, W, 3)`` uint8.
    """

    usual_batch = 8

    def __init__(self, field: PatchField, frames: Tensor):
        self._field = field
        self._windows = field.geometry.patches.windows()
        self.count = len(frames) * len(self._windows)
        height, width = field.geometry.patches.patch_size
        patches = []
        for window in self._windows:
            down = (window.y + torch.arange(height, device=frames.device)).clamp(max=window.y + window.height - 1)
            across = (window.x + torch.arange(width, device=frames.device)).clamp(max=window.x + window.width - 1)
            patches.append(frames[:, down][:, :, across])
        self._patches = torch.stack(patches, dim=1).flatten(0, 1)

    def frames(self, units: Tensor) -> Tensor:
        return units // len(self._windows)

    def inputs(self, units: Tensor) -> Inputs:
        windows = tuple(self._windows[patch] for patch in (units % len(self._windows)).tolist())
        return Inputs(self.frames(units), windows)

    def targets(self, units: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return centred(self._patches, units, dtype)

    def images(self, packed: Tensor) -> Tensor:
        return self._field.unpack(packed)

    def embeddings(self, reference: Tensor, rows: Tensor, units: Tensor) -> Tensor:
        return reference[rows, units % len(self._windows)][:, None]


def batch_of(geometry: Geometry, device: str) -> int:
    """Frames in a batch that suits their size, and where the network runs."""
    by_size = round(_BATCH_PIXELS[device] / (geometry.height * geometry.width))
    return max(1, min(_LARGEST_BATCH[device], by_size))


def centred(pixels: Tensor, units: Tensor, dtype: torch.dtype) -> Tensor:
    """Some of ``(N, ...)`` uint8, 0 at mid-grey and 1 from black to white."""
    return pixels.index_select(0, units.to(pixels.device)).to(dtype).mul_(1 / 255).sub_(0.5)


def units_of(field: Field, data: SegmentData, device: torch.device | str) -> Units:
    """How a network is shown its segment.

    Args:
        field: the network.
        data: the segment.
        device: of the network.
    """
    frames = torch.from_numpy(data.frames).to(device)
    if isinstance(field, PatchField):
        return SinglePatches(field, frames)
    assert isinstance(field, GridField)
    return WholeFrames(field, frames)
