# SPDX-License-Identifier: MIT
"""Training data of one segment: frames, patches and reference embeddings, and the order of batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nervcodec.network.config import CELL, Geometry
from nervcodec.network.field import Field, Inputs
from nervcodec.network.grid import GridField
from nervcodec.network.original import PatchField

# A batch of about so many pixels: smaller frames come several at a time, since a step has a cost of its own.
_BATCH_PIXELS = {"cpu": 800_000, "cuda": 3_200_000}
_LARGEST_BATCH = {"cpu": 8, "cuda": 16}


@dataclass(frozen=True)
class SegmentData:
    """Plain arrays of one segment.

    Attributes:
        frames: ``(N, H, W, 3)`` uint8 RGB.
        embeddings: ``(n, patches, D)`` float32 unit vectors of some frames, or None.
        embedded_frames: ``(n,)`` the numbers of those frames, ascending.
        fitted: ``(N,)`` bool, the frames to fit, at least one; None for all.
        held_out_embeddings, held_out_embedded: the same for some held-out frames, only to be looked at.
    """

    frames: np.ndarray
    embeddings: np.ndarray | None = None
    embedded_frames: np.ndarray | None = None
    fitted: np.ndarray | None = None
    held_out_embeddings: np.ndarray | None = None
    held_out_embedded: np.ndarray | None = None

    @property
    def is_fitted(self) -> np.ndarray:
        """``(N,)`` bool."""
        return np.ones(len(self.frames), bool) if self.fitted is None else self.fitted


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


class Reference:
    """Reference embeddings, centred, and where those of a frame are.

    Args:
        data: with embeddings.
        frame_count: frames of the segment.
        is_raw: compare with the embeddings as they are, as the original method does; else less their mean.
        device: of the network.

    Attributes:
        centred: ``(n, patches, D)`` float32.
        mean: ``(D,)``, what was taken off.
        frames: ``(n,)`` int64, whose they are.
        variance: mean squared length, a scalar.
        of_frame: each frame's own, not centred; held-out ones that may be looked at among them.
    """

    def __init__(self, data: SegmentData, frame_count: int, is_raw: bool, device: torch.device | str):
        assert data.embeddings is not None
        assert data.embedded_frames is not None
        reference = torch.from_numpy(data.embeddings).to(device)
        self.mean = torch.zeros_like(reference[0, 0]) if is_raw else reference.mean(dim=(0, 1))
        self.centred = reference - self.mean
        self.variance = self.centred.flatten(0, 1).square().sum(dim=1).mean().clamp(min=1e-6)
        self.frames = torch.as_tensor(data.embedded_frames, dtype=torch.long)
        self._rows = torch.full((frame_count,), -1, dtype=torch.long)
        self._rows[self.frames] = torch.arange(len(reference))
        self.of_frame: dict[int, Tensor] = dict(zip(data.embedded_frames.tolist(), reference, strict=True))
        if data.held_out_embeddings is not None:
            assert data.held_out_embedded is not None
            extra = torch.from_numpy(data.held_out_embeddings).to(device)
            self.of_frame.update(zip(data.held_out_embedded.tolist(), extra, strict=True))

    def rows(self, frames: Tensor) -> Tensor:
        """Rows of ``centred`` for frames ``(B,)``; -1 where a frame has none."""
        return self._rows[frames]


class Batches:
    """Units in batches: every unit once an epoch, in a new order each time.

    Args:
        units: of the segment.
        fitted: ``(N,)`` bool, the frames whose units are shown.
        size: units in a batch; None for what suits them.
        seed: of the order.

    Attributes:
        size: units in a batch.
    """

    def __init__(self, units: Units, fitted: np.ndarray, size: int | None, seed: int):
        numbers = torch.arange(units.count)
        self._units = numbers[torch.from_numpy(fitted)[units.frames(numbers)]]
        self.size = min(size or units.usual_batch, len(self._units))
        self._generator = torch.Generator().manual_seed(seed)
        self._order, self._position = torch.empty(0, dtype=torch.long), 0

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._units) // self.size)

    def next(self) -> Tensor:
        """The next batch, ``(B,)`` int64."""
        if self._position >= len(self._order):
            self._order = self._units[torch.randperm(len(self._units), generator=self._generator)]
            self._position = 0
        batch = self._order[self._position : self._position + self.size]
        self._position += self.size
        return batch

    def state(self) -> dict[str, Any]:
        """All that later batches depend on."""
        kept = {"order": self._order, "position": self._position, "generator": self._generator.get_state()}
        return {**kept, "size": self.size}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._order, self._position = state["order"], state["position"]
        self.size = state["size"]  # that of the device where the fit began: an end in epochs counts its batches
        self._generator.set_state(state["generator"])
