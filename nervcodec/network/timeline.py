# SPDX-License-Identifier: MIT
"""Where each frame lies among a grid's entries in time: evenly spaced in every shot, never between two shots."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nervcodec.coordinates import at
from nervcodec.network.layers import Constants


def entries_per_shot(times: int, lengths: list[int], weights: list[int] | None = None) -> list[int]:
    """Share entries among shots: one each, the rest in proportion to weight, by largest remainder.

    Args:
        times: entries of the grid, at least as many as shots.
        lengths: frames in each shot; where there are weights, no shot gets more entries than that while others want.
        weights: of each shot, not all 0; None: its length.
    """
    spare = times - len(lengths)
    if weights is None:
        return [1 + share for share in _shared(spare, lengths)]
    shares = [0] * len(lengths)
    while spare:
        open_ = [shot for shot, length in enumerate(lengths) if shares[shot] < length - 1]
        if not open_ or not sum(weights[shot] for shot in open_):
            return [1 + a + b for a, b in zip(shares, _shared(spare, lengths), strict=True)]
        for shot, more in zip(open_, _shared(spare, [weights[shot] for shot in open_]), strict=True):
            taken = min(more, lengths[shot] - 1 - shares[shot])
            shares[shot] += taken
            spare -= taken
    return [1 + share for share in shares]


def _shared(count: int, weights: list[int]) -> list[int]:
    """``count`` things in proportion to weights, by largest remainder."""
    total = sum(weights)
    shares = [count * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda shot: (-(count * weights[shot] % total), shot))
    for shot in by_remainder[: count - sum(shares)]:
        shares[shot] += 1
    return shares


class Timeline:
    """Linear interpolation in time for one grid.

    Args:
        places: gives three tensors ``(frames,)``: the entries before and after each frame, int64, and the weight of
            the one after it, float32.
    """

    def __init__(self, places: Callable[[], tuple[Tensor, Tensor, Tensor]]):
        self._places = Constants(places)

    @classmethod
    def even(cls, times: int, frames: int, cuts: tuple[int, ...] = (), pace: tuple[int, ...] = ()) -> Timeline:
        """Entries evenly spaced in every shot, by the time of its own that a pace gives it.

        Args:
            times: entries of the grid.
            frames: frames of the segment.
            cuts: first frames of the shots after the first, ascending. A grid with fewer entries than there are
                shots interpolates across cuts as if there were none.
            pace: how much time passes from each frame to the next, ``frames - 1`` numbers; empty: alike everywhere. A
                grid with an entry for every frame does not need it.
        """
        return cls(lambda: _evenly(times, frames, cuts, pace))

    @classmethod
    def at(cls, entries: tuple[int, ...], frames: int, cuts: tuple[int, ...] = ()) -> Timeline:
        """Entries at frames of their own; before the first and after the last of a shot the nearest one holds.

        Args:
            entries: frame of each entry, ascending, at least one.
            frames: frames of the segment.
            cuts: as for :meth:`even`. A shot without an entry takes the nearest of all.

        Raises:
            ValueError: no entries, as in a configuration whose frames are not known yet.
        """
        if not entries:
            raise ValueError("the frames of the entries are not known")
        return cls(lambda: _tensors(*at(entries, frames, cuts)))

    @classmethod
    def held(cls, entries: tuple[int, ...], frames: int, cuts: tuple[int, ...]) -> Timeline:
        """One entry for all of a shot.

        Args:
            entries: of each shot.
            frames: frames of the segment.
            cuts: as for :meth:`even`.
        """
        return cls(lambda: _held(entries, frames, cuts))

    @property
    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """``(frames,)`` each: the entries before and after each frame, and the weight of the one after it."""
        lower, upper, weight = self._places.on(torch.device("cpu"))
        return lower, upper, weight

    def __call__(self, values: Tensor, frames: Tensor, prepare: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Read a grid at some frames.

        Args:
            values: ``(times, ...)``.
            frames: ``(B,)`` int64.
            prepare: applied to the entries that are read, ``(2 * B, ...)``.

        Returns:
            ``(B, ...)``.
        """
        # index_select, since the backward pass of indexing with a tensor is slow on a CPU
        lower, upper, weight = self._places.on(values.device)
        entries = torch.cat([lower.index_select(0, frames), upper.index_select(0, frames)])
        read = values.index_select(0, entries)
        fraction = weight.index_select(0, frames).view(-1, *([1] * (values.ndim - 1)))
        before, after = (read if prepare is None else prepare(read)).chunk(2)
        return torch.lerp(before, after, fraction.to(values.dtype))


def _evenly(times: int, frames: int, cuts: tuple[int, ...], pace: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    bounds = [0, *(cuts if times > len(cuts) else ()), frames]
    shots = list(itertools.pairwise(bounds))
    paced = bool(pace) and times < frames  # a grid with an entry for each frame does not need it
    weights = [sum(pace[start : stop - 1]) for start, stop in shots] if paced else None
    shares = entries_per_shot(times, [stop - start for start, stop in shots], weights)
    lower, upper, fraction, first = [], [], [], 0
    for (start, stop), entries in zip(shots, shares, strict=True):
        own = pace[start : stop - 1] if paced else (1,) * (stop - start - 1)
        passed = torch.tensor((0, *own), dtype=torch.float64).cumsum(0)
        position = passed * (entries - 1) / passed[-1].clamp(min=1)
        below = position.floor().clamp(max=max(entries - 2, 0))
        lower.append(below.long() + first)
        upper.append((below.long() + 1).clamp(max=entries - 1) + first)
        fraction.append(position - below)
        first += entries
    return torch.cat(lower), torch.cat(upper), torch.cat(fraction).float()


def _held(entries: tuple[int, ...], frames: int, cuts: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    shots = torch.searchsorted(torch.tensor(cuts, dtype=torch.long), torch.arange(frames), right=True)
    place = torch.tensor(entries)[shots]
    return place, place, torch.zeros(frames)


def _tensors(lower: np.ndarray, upper: np.ndarray, weight: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    return torch.from_numpy(lower), torch.from_numpy(upper), torch.from_numpy(weight)
