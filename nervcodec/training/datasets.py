# SPDX-License-Identifier: MIT
"""Training data of one segment: frames or patches as samples, reference embeddings, and the order of batches."""

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

# Pixels in a batch, about: a step has a fixed cost, so smaller frames are batched.
_BATCH_PIXELS = {"cpu": 800_000, "cuda": 3_200_000}
_MAX_BATCH = {"cpu": 8, "cuda": 16}


@dataclass(frozen=True)
class SegmentData:
    """Plain arrays of one segment: all that a fit sees of a video.

    Attributes:
        frames: ``(N, H, W, 3)`` uint8 RGB.
        embeddings: ``(n, patches, D)`` float32 unit vectors of some frames, or None.
        embedded_frames: ``(n,)`` numbers of those frames, ascending.
        fitted: ``(N,)`` bool, the frames to fit, at least one; None for all.
        held_out_embeddings, held_out_embedded: the same for some held-out frames, used for logs only.
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


class TrainingSet(ABC):
    """The samples of a segment, by number: a sample is one row of a batch.

    Attributes:
        count: number of samples.
        default_batch_size: where the settings state none.
        supports_cuda_graphs: whether inputs and targets of sample numbers on the network's device are made there, so
            that a step can be captured.
    """

    count: int
    default_batch_size: int
    _field: GridField | PatchField
    supports_cuda_graphs: bool = False

    @abstractmethod
    def frames(self, samples: Tensor) -> Tensor:
        """The frame of each sample, ``(B,)`` to ``(B,)``."""

    @abstractmethod
    def inputs(self, samples: Tensor) -> Inputs:
        """Network inputs."""

    @abstractmethod
    def targets(self, samples: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Target outputs, ``(B, ...)`` in the layout that the network predicts."""

    def full_frame(self, frame: int) -> tuple[Inputs, Tensor]:
        """Network inputs and targets of all samples of a frame."""
        samples = torch.nonzero(self.frames(torch.arange(self.count)) == frame)[:, 0]
        return self.inputs(samples), self.targets(samples)

    def to_images(self, packed: Tensor) -> Tensor:
        """Predictions or targets to images ``(B, h, w, 3)`` float32, about [0, 1]."""
        return self._field.unpack(packed)

    def embeddings(self, reference: Tensor, rows: Tensor, samples: Tensor) -> Tensor:
        """Reference embeddings of a batch.

        Args:
            reference: ``(n, patches, D)``.
            rows: ``(B,)`` of the samples' frames in it.
            samples: ``(B,)``.
        """
        return reference[rows]


class FrameSet(TrainingSet):
    """A sample is a frame. Targets are padded to whole cells by repeating the edge, in the layout of the RGB head.

    Args:
        field: the network to fit.
        frames: ``(N, H, W, 3)`` uint8.
    """

    supports_cuda_graphs = True

    def __init__(self, field: GridField, frames: Tensor):
        self._field, self.count = field, len(frames)
        self.default_batch_size = batch_size(field.geometry, frames.device.type)
        height, width = (cells * CELL for cells in field.geometry.cells)
        if (height, width) != tuple(frames.shape[1:3]):
            down = torch.arange(height, device=frames.device).clamp(max=frames.shape[1] - 1)
            across = torch.arange(width, device=frames.device).clamp(max=frames.shape[2] - 1)
            frames = frames[:, down][:, :, across]
        self._frames = frames

    def frames(self, samples: Tensor) -> Tensor:
        return samples

    def inputs(self, samples: Tensor) -> Inputs:
        return Inputs(samples)

    def targets(self, samples: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        # Converted for each batch: all frames as floats would take four times the memory.
        assert isinstance(self._field, GridField)
        return self._field.pixels.to_packed(_centred(self._frames, samples, torch.float32)).to(dtype)


class PatchSet(TrainingSet):
    """A sample is a patch, counted row by row through each frame; targets have the largest patch's size.

    Args:
        field: the network to fit.
        frames: ``(N, H, W, 3)`` uint8.
    """

    default_batch_size = 8

    def __init__(self, field: PatchField, frames: Tensor):
        self._field = field
        self._windows = field.geometry.patches.patches()
        self.count = len(frames) * len(self._windows)
        height, width = field.geometry.patches.patch_size
        patches = []
        for window in self._windows:
            down = (window.y + torch.arange(height, device=frames.device)).clamp(max=window.y + window.height - 1)
            across = (window.x + torch.arange(width, device=frames.device)).clamp(max=window.x + window.width - 1)
            patches.append(frames[:, down][:, :, across])
        self._patches = torch.stack(patches, dim=1).flatten(0, 1)

    def frames(self, samples: Tensor) -> Tensor:
        return samples // len(self._windows)

    def inputs(self, samples: Tensor) -> Inputs:
        windows = tuple(self._windows[patch] for patch in (samples % len(self._windows)).tolist())
        return Inputs(self.frames(samples), windows)

    def targets(self, samples: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return _centred(self._patches, samples, dtype)

    def embeddings(self, reference: Tensor, rows: Tensor, samples: Tensor) -> Tensor:
        return reference[rows, samples % len(self._windows)][:, None]


def training_set(field: Field, data: SegmentData, device: torch.device | str) -> TrainingSet:
    """The training set of a network: frames for ``grid``, patches for ``pe``.

    Args:
        field: the network.
        data: the segment.
        device: of the network.
    """
    frames = torch.from_numpy(data.frames).to(device)
    if isinstance(field, PatchField):
        return PatchSet(field, frames)
    assert isinstance(field, GridField)
    return FrameSet(field, frames)


def batch_size(geometry: Geometry, device: str) -> int:
    """Frames in a batch, by the size of a frame and the network's device."""
    by_size = round(_BATCH_PIXELS[device] / (geometry.height * geometry.width))
    return max(1, min(_MAX_BATCH[device], by_size))


def _centred(pixels: Tensor, samples: Tensor, dtype: torch.dtype) -> Tensor:
    """Some rows of ``(N, ...)`` uint8 as floats, mid-grey at 0 and a range of 1."""
    return pixels.index_select(0, samples.to(pixels.device)).to(dtype).mul_(1 / 255).sub_(0.5)


class ReferenceEmbeddings:
    """Embeddings to fit, centred, and their frames.

    Args:
        data: with embeddings.
        frame_count: frames of the segment.
        is_raw: keep them as they are, as the original method does; else subtract their mean.
        device: of the network.

    Attributes:
        centred: ``(n, patches, D)`` float32.
        mean: ``(D,)``, what was subtracted.
        frames: ``(n,)`` int64, the frame of each row.
        variance: mean squared length of ``centred``, a scalar.
        by_frame: embeddings ``(patches, D)`` by frame, not centred; includes held-out frames that have some.
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
        self.by_frame: dict[int, Tensor] = dict(zip(data.embedded_frames.tolist(), reference, strict=True))
        if data.held_out_embeddings is not None:
            assert data.held_out_embedded is not None
            held_out = torch.from_numpy(data.held_out_embeddings).to(device)
            self.by_frame.update(zip(data.held_out_embedded.tolist(), held_out, strict=True))

    def rows(self, frames: Tensor) -> Tensor:
        """Rows of ``centred`` for frames ``(B,)``; -1 where a frame has none."""
        return self._rows[frames]


class BatchSampler:
    """Batches of sample numbers: every sample once an epoch, in a new random order each time.

    Args:
        dataset: of the segment.
        fitted: ``(N,)`` bool, the frames to fit.
        size: samples in a batch; None for the default of the training set.
        seed: of the order.

    Attributes:
        size: samples in a batch.
    """

    def __init__(self, dataset: TrainingSet, fitted: np.ndarray, size: int | None, seed: int):
        numbers = torch.arange(dataset.count)
        self._samples = numbers[torch.from_numpy(fitted)[dataset.frames(numbers)]]
        self.size = min(size or dataset.default_batch_size, len(self._samples))
        self._generator = torch.Generator().manual_seed(seed)
        self._order, self._position = torch.empty(0, dtype=torch.long), 0

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._samples) // self.size)

    def next(self) -> Tensor:
        """The next batch, ``(B,)`` int64."""
        if self._position >= len(self._order):
            self._order = self._samples[torch.randperm(len(self._samples), generator=self._generator)]
            self._position = 0
        batch = self._order[self._position : self._position + self.size]
        self._position += self.size
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Everything that later batches depend on."""
        state = {"order": self._order, "position": self._position, "generator": self._generator.get_state()}
        return {**state, "size": self.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        self._order, self._position = state["order"], state["position"]
        self.size = state["size"]  # of the device where the fit began: a budget of epochs counts its batches
        self._generator.set_state(state["generator"])
