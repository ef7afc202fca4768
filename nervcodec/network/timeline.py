# SPDX-License-Identifier: MIT
"""Interpolation in time: frames between the entries of a grid, evenly spaced in every shot, never across a cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from nervcodec.coordinates import interpolation_weights
from nervcodec.network.layers import LazyBuffers


def entries_per_shot(times: int, lengths: list[int], weights: list[int] | None = None) -> list[int]:
    """Distribute entries among shots: one each, the rest in proportion to weight, by largest remainder.

    Args:
        times: entries of the grid, at least as many as shots.
        lengths: frames in each shot; with weights, no shot gets more entries than that while others have fewer.
        weights: of each shot, not all 0; None: its length.
    """
    spare = times - len(lengths)
    if weights is None:
        return [1 + share for share in _apportion(spare, lengths)]
    shares = [0] * len(lengths)
    while spare:
        open_ = [shot for shot, length in enumerate(lengths) if shares[shot] < length - 1]
        if not open_ or not sum(weights[shot] for shot in open_):
            return [1 + a + b for a, b in zip(shares, _apportion(spare, lengths), strict=True)]
        for shot, more in zip(open_, _apportion(spare, [weights[shot] for shot in open_]), strict=True):
            taken = min(more, lengths[shot] - 1 - shares[shot])
            shares[shot] += taken
            spare -= taken
    return [1 + share for share in shares]


def _apportion(count: int, weights: list[int]) -> list[int]:
    """``count`` items in proportion to weights, by largest remainder."""
    total = sum(weights)
    shares = [count * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda shot: (-(count * weights[shot] % total), shot))
    for shot in by_remainder[: count - sum(shares)]:
        shares[shot] += 1
    return shares


class Timeline:
    """Linear interpolation in time for one grid.

    Args:
        make: returns three tensors ``(frames,)``: the entries before and after each frame, int64, and the weight of
            the later one, float32.
    """

    def __init__(self, make: Callable[[], tuple[Tensor, ...]]):
        self._weights = LazyBuffers(make)

    @classmethod
    def even(cls, times: int, frames: int, cuts: tuple[int, ...] = (), pace: tuple[int, ...] = ()) -> Timeline:
        """Entries evenly spaced in every shot, in a time warped by ``pace``.

        Args:
            times: entries of the grid.
            frames: frames of the segment.
            cuts: first frames of the shots after the first, ascending. A grid with fewer entries than there are
                shots interpolates across cuts as if there were none.
            pace: time warp: the time between consecutive frames, ``frames - 1`` numbers; empty for uniform time. A grid
                with an entry for every frame ignores it.
        """
        return cls(lambda: _evenly(times, frames, cuts, pace))

    @classmethod
    def at(cls, entries: tuple[int, ...], frames: int, cuts: tuple[int, ...] = ()) -> Timeline:
        """Entries at given frames; before the first and after the last of a shot the nearest one is used.

        Args:
            entries: frame of each entry, ascending, at least one.
            frames: frames of the segment.
            cuts: as for :meth:`even`. A shot without an entry uses the nearest of all.

        Raises:
            ValueError: no entries, as in a configuration without its frame tables.
        """
        if not entries:
            raise ValueError("the frames of the entries are not known")
        return cls(lambda: tuple(map(torch.from_numpy, interpolation_weights(entries, frames, cuts))))

    @classmethod
    def per_shot(cls, entries: tuple[int, ...], frames: int, cuts: tuple[int, ...]) -> Timeline:
        """One entry for all frames of a shot.

        Args:
            entries: the entry of each shot.
            frames: frames of the segment.
            cuts: as for :meth:`even`.
        """
        return cls(lambda: _per_shot(entries, frames, cuts))

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """``(frames,)`` each: the entries before and after each frame, and the weight of the later one."""
        lower, upper, weight = self._weights.on(torch.device("cpu"))
        return lower, upper, weight

    def __call__(self, values: Tensor, frames: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Interpolate a grid at some frames.

        Args:
            values: ``(times, ...)``.
            frames: ``(B,)`` int64.
            transform: applied to the entries that are read, ``(2 * B, ...)``.

        Returns:
            ``(B, ...)``.
        """
        # index_select, since the backward pass of indexing with a tensor is slow on a CPU
        lower, upper, weight = self._weights.on(values.device)
        entries = torch.cat([lower.index_select(0, frames), upper.index_select(0, frames)])
        read = values.index_select(0, entries)
        fraction = weight.index_select(0, frames).view(-1, *([1] * (values.ndim - 1)))
        before, after = (read if transform is None else transform(read)).chunk(2)
        return torch.lerp(before, after, fraction.to(values.dtype))


def _evenly(times: int, frames: int, cuts: tuple[int, ...], pace: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    bounds = [0, *(cuts if times > len(cuts) else ()), frames]
    shots = list(itertools.pairwise(bounds))
    paced = bool(pace) and times < frames  # a grid with an entry for each frame does not need it
    weights = [sum(pace[start : stop - 1]) for start, stop in shots] if paced else None
    shares = entries_per_shot(times, [stop - start for start, stop in shots], weights)
    lower, upper, fraction, first = [], [], [], 0
    for (start, stop), entries in zip(shots, shares, strict=True):
        warped = pace[start : stop - 1] if paced else (1,) * (stop - start - 1)
        passed = torch.tensor((0, *warped), dtype=torch.float64).cumsum(0)
        position = passed * (entries - 1) / passed[-1].clamp(min=1)
        below = position.floor().clamp(max=max(entries - 2, 0))
        lower.append(below.long() + first)
        upper.append((below.long() + 1).clamp(max=entries - 1) + first)
        fraction.append(position - below)
        first += entries
    return torch.cat(lower), torch.cat(upper), torch.cat(fraction).float()


def _per_shot(entries: tuple[int, ...], frames: int, cuts: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    shots = torch.searchsorted(torch.tensor(cuts, dtype=torch.long), torch.arange(frames), right=True)
    entry = torch.tensor(entries)[shots]
    return entry, entry, torch.zeros(frames)
