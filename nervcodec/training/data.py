# SPDX-License-Identifier: MIT
"""What a network is fitted to, in the order that it is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nervcodec.training.segment import SegmentData
from nervcodec.training.units import Units


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
