# SPDX-License-Identifier: MIT
"""The part of a ``grid`` network that all segments of a video share: fitted to frames from all over it, then frozen.

It is a fit like any other, of a network whose segment is the sample; its decoder, and grids of what lasts, are rounded
and kept for all. What its other grids came to hold is no part of a file: it is where those of each segment begin.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nervcodec.encoding.head import Tensors
from nervcodec.formats import bitstream
from nervcodec.formats.fields import from_json, to_json
from nervcodec.network.build import to_arrays
from nervcodec.network.config import GridConfig
from nervcodec.network.field import Field
from nervcodec.network.grid import timeline_of
from nervcodec.network.shapes import is_per_segment
from nervcodec.training.rate_control import SizeGoal, encode_to_size

_LEAST_SHARE = 0.3  # of the bytes that a segment would have by its length
_SMOOTH = 1e-3  # of a grid where no frame of the sample lies, over its agreement with those that do


@dataclass(frozen=True)
class SharedNetwork:
    """What segments share, and where they begin.

    Attributes:
        config: of the network of the sample.
        numbers: ``(M,)`` int64 of the sample's frames in the video, ascending.
        tensors: shared parameters as they are stored.
        grids: ``(times, channels, rows, columns)`` float32 of the sample's own, by name.
        steps: ``(channels,)`` float32, quantisation steps of those: what they were worth to the fit.
    """

    config: GridConfig
    numbers: np.ndarray
    tensors: Tensors
    grids: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]

    @classmethod
    def of(
        cls, field: Field, steps: dict[str, np.ndarray], numbers: np.ndarray, goal: SizeGoal | None = None
    ) -> SharedNetwork:
        """From a network that was fitted to a sample, and the quantisation steps it learned.

        Args:
            field: the network; what it has for scenes that are not in the sample becomes the mean of the others.
            steps: by tensor.
            numbers: of the sample's frames.
            goal: that all of it is squeezed to, where its fit was stopped and knows no size.

        Raises:
            ContainerError: a weight is not finite.
        """
        config = field.config
        assert isinstance(config, GridConfig)
        seen = sorted(set(config.scenes))
        for number in config.lasting:
            values = field.get_parameter(f"grids.{number}.values").data
            unseen = [scene for scene in range(len(values)) if scene not in seen]
            values[unseen] = values[seen].mean(dim=0)
        stored = bitstream.read(encode_to_size(field, steps, goal))
        shared = {name: tensor for name, tensor in stored.items() if not is_per_segment(config, name)}
        own = {name: values for name, values in to_arrays(field).items() if is_per_segment(config, name)}
        return cls(config, numbers, shared, own, {name: steps[name] for name in own})

    def weights(self) -> dict[str, np.ndarray]:
        """Shared parameters as a decoder reads them."""
        return bitstream.values(self.tensors)

    def shares(self, lengths: Sequence[int], least: Sequence[float] | float = 0.0) -> list[float]:
        """The part of all bytes that each segment should have: as many as the sample's network spent there.

        Args:
            lengths: frames of each segment.
            least: that each must have, or all.
        """
        bounds = np.cumsum([0, *lengths])
        spent = np.histogram(self.numbers, bounds, weights=self._frame_bits())[0]
        seen = np.histogram(self.numbers, bounds)[0]
        rates = np.where(seen > 0, spent / np.maximum(seen, 1), spent.sum() / seen.sum())
        by_length, wanted = np.array(lengths) / sum(lengths), lengths * rates
        wanted = wanted if wanted.sum() else by_length
        floor = np.maximum(_LEAST_SHARE * by_length, least)
        over = np.maximum(wanted / wanted.sum() - floor, 0)
        if floor.sum() >= 1 or not over.sum():
            return (floor / floor.sum()).tolist()
        return (floor + (1 - floor.sum()) * over / over.sum()).tolist()

    def _frame_bits(self) -> np.ndarray:
        """``(M,)``, what each frame of the sample has in the grids, by the entropy of their rounded values."""
        bits = np.zeros(len(self.numbers))
        for number in range(len(self.config.grids)):
            if number in self.config.lasting:
                continue
            name = f"grids.{number}.values"
            rounded = np.rint(self.grids[name] / self.steps[name].reshape(1, -1, 1, 1)).astype(np.int64)
            read = _interpolation(self.config, number)
            bits += read @ (_bits(rounded) / np.maximum(read.sum(axis=0), 1e-9))
        return bits

    def beginning(self, config: GridConfig, first: int) -> dict[str, np.ndarray]:
        """Grids of a segment that agree with those of the sample in the frames that it has of it.

        Args:
            config: of the segment; its grids are those of the sample but for their positions in time.
            first: number of its first frame in the video.
        """
        frames = config.geometry.frames
        inside = np.flatnonzero((self.numbers >= first) & (self.numbers < first + frames))
        if not inside.size:
            inside = np.abs(self.numbers - first - frames // 2).argmin(keepdims=True)
        places = (self.numbers[inside] - first).clip(0, frames - 1)
        found = {}
        for number in range(len(config.grids)):
            if number in config.lasting:
                continue
            name = f"grids.{number}.values"
            sampled = _interpolation(self.config, number)[inside]
            found[name] = _solved(_interpolation(config, number)[places], sampled, self.grids[name])
        return found

    # ------------------------------------------------------------------ to keep and to go on from

    def to_facts(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        return {
            "config": json.dumps(to_json(self.config)),
            "numbers": torch.from_numpy(self.numbers.copy()),
            "tensors": torch.from_numpy(bitstream.encode(self.tensors).copy()),
            "grids": {name: torch.from_numpy(values.copy()) for name, values in self.grids.items()},
            "steps": {name: torch.from_numpy(values.copy()) for name, values in self.steps.items()},
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> SharedNetwork:
        """The inverse of :meth:`to_facts`."""
        return cls(
            from_json(GridConfig, json.loads(facts["config"]), "network"),
            facts["numbers"].numpy(),
            bitstream.read(facts["tensors"].numpy()),
            {name: values.numpy() for name, values in facts["grids"].items()},
            {name: values.numpy() for name, values in facts["steps"].items()},
        )


def sampled_numbers(fitted: np.ndarray, most: int) -> np.ndarray:
    """Evenly spaced among the frames that are fitted: all of them, or as many as there may be.

    Args:
        fitted: ``(N,)`` bool.
        most: frames.
    """
    numbers = np.flatnonzero(fitted)
    return numbers if len(numbers) <= most else numbers[np.linspace(0, len(numbers) - 1, most).round().astype(int)]


def _bits(rounded: np.ndarray) -> np.ndarray:
    """``(times,)``, the empirical entropy of whole numbers ``(times, channels, rows, columns)``, each channel alone."""
    bits = np.zeros(len(rounded))
    for channel in rounded.swapaxes(0, 1):
        _, kinds, counts = np.unique(channel, return_inverse=True, return_counts=True)
        cost = -np.log2(counts / channel.size)
        bits += cost[kinds].reshape(len(channel), -1).sum(axis=1)
    return bits


def _interpolation(config: GridConfig, number: int) -> np.ndarray:
    """``(frames, times)``, the weight of each entry of a grid in each frame."""
    frames = config.geometry.frames
    lower, upper, weight = (t.numpy() for t in timeline_of(config, number).weights)
    matrix, rows = np.zeros((frames, config.grids[number].times)), np.arange(frames)
    np.add.at(matrix, (rows, lower), 1 - weight)
    np.add.at(matrix, (rows, upper), weight)
    return matrix


def _solved(wanted: np.ndarray, sampled: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The grid that agrees best with another one, and is smooth in time where that says nothing.

    Args:
        wanted: ``(n, times)`` weights of its entries in some frames.
        sampled: ``(n, other times)`` weights of the other grid's entries in the same frames.
        grid: ``(other times, channels, rows, columns)``.
    """
    times = wanted.shape[1]
    change = _SMOOTH * np.diff(np.eye(times), axis=0)
    left = np.concatenate([wanted, change])
    right = np.concatenate([sampled, np.zeros((len(change), sampled.shape[1]))])
    mixing = np.linalg.lstsq(left, right, rcond=None)[0]
    return np.tensordot(mixing, grid, axes=1).astype(np.float32)
