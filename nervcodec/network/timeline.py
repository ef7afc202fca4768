# SPDX-License-Identifier: MIT
"""Where each frame lies among a grid's entries in time: evenly spaced in every shot, never between two shots."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def entries_per_shot(times: int, lengths: list[int]) -> list[int]:
    """Share entries among shots: one each, the rest in proportion to length, by largest remainder.

    Args:
        times: entries, at least as many as shots.
        lengths: frames in each shot.
    """
    spare, total = times - len(lengths), sum(lengths)
    shares = [spare * length // total for length in lengths]
    remainders = [spare * length % total for length in lengths]
    by_remainder = sorted(range(len(lengths)), key=lambda shot: (-remainders[shot], shot))
    for shot in by_remainder[: spare - sum(shares)]:
        shares[shot] += 1
    return [1 + share for share in shares]


class Timeline(nn.Module):
    """Linear interpolation in time for one grid.

    Args:
        lower, upper: ``(frames,)`` int64, the entries on both sides of each frame.
        fraction: ``(frames,)``, the weight of the upper one.
    """

    def __init__(self, lower: Tensor, upper: Tensor, fraction: Tensor):
        super().__init__()
        self.register_buffer("lower", lower, persistent=False)
        self.register_buffer("upper", upper, persistent=False)
        self.register_buffer("fraction", fraction.float(), persistent=False)

    @classmethod
    def even(cls, times: int, frames: int, cuts: tuple[int, ...] = ()) -> Timeline:
        """Entries evenly spaced in every shot.

        Args:
            times: entries of the grid.
            frames: frames of the segment.
            cuts: first frames of the shots after the first, ascending. A grid with fewer entries than there are
                shots interpolates across cuts as if there were none.
        """
        bounds = [0, *(cuts if times > len(cuts) else ()), frames]
        lengths = [stop - start for start, stop in zip(bounds, bounds[1:], strict=False)]
        lower, upper, fraction, first = [], [], [], 0
        for length, entries in zip(lengths, entries_per_shot(times, lengths), strict=True):
            position = torch.arange(length, dtype=torch.float64) * (entries - 1) / max(length - 1, 1)
            below = position.floor().clamp(max=max(entries - 2, 0))
            lower.append(below.long() + first)
            upper.append((below.long() + 1).clamp(max=entries - 1) + first)
            fraction.append(position - below)
            first += entries
        return cls(torch.cat(lower), torch.cat(upper), torch.cat(fraction))

    @classmethod
    def at(cls, entries: tuple[int, ...], frames: int, cuts: tuple[int, ...] = ()) -> Timeline:
        """Entries at frames of their own; before the first and after the last of a shot the nearest one holds.

        Args:
            entries: frame of each entry, ascending, at least one.
            frames: frames of the segment.
            cuts: as for :meth:`even`. A shot without an entry takes the nearest of all.
        """
        number, place = torch.arange(frames), torch.tensor(entries)
        shot_of = torch.searchsorted(torch.tensor(cuts, dtype=torch.long), number, right=True)
        lower = (torch.searchsorted(place, number, right=True) - 1).clamp(min=0)
        upper = torch.searchsorted(place, number).clamp(max=len(entries) - 1)
        nearest = torch.where(number - place[lower] <= place[upper] - number, lower, upper)
        before, after = shot_of[place[lower]] == shot_of, shot_of[place[upper]] == shot_of
        lower, upper = (
            torch.where(before, lower, torch.where(after, upper, nearest)),
            torch.where(after, upper, torch.where(before, lower, nearest)),
        )
        gap = (place[upper] - place[lower]).clamp(min=1)
        fraction = ((number - place[lower]) / gap).clamp(0, 1)
        return cls(lower, upper, torch.where(lower == upper, torch.zeros_like(fraction), fraction))

    def forward(self, values: Tensor, frames: Tensor, prepare: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Read a grid at some frames.

        Args:
            values: ``(times, ...)``.
            frames: ``(B,)`` int64.
            prepare: applied to the entries that are read, ``(2 * B, ...)``.

        Returns:
            ``(B, ...)``.
        """
        # index_select, since the backward pass of indexing with a tensor is slow on a CPU
        entries = torch.cat([self.lower.index_select(0, frames), self.upper.index_select(0, frames)])
        read = values.index_select(0, entries)
        fraction = self.fraction.index_select(0, frames).view(-1, *([1] * (values.ndim - 1)))
        return torch.lerp(*(read if prepare is None else prepare(read)).chunk(2), fraction.to(values.dtype))
