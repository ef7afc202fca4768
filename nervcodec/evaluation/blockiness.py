# SPDX-License-Identifier: MIT
"""Whether a lattice lies over the picture: differences across the borders of blocks over those inside them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nervcodec.network.overlap import BLOCK


@dataclass
class _Differences:
    """Absolute differences of neighbouring pixels, added up, and how many they are."""

    across: float = 0.0
    inside: float = 0.0
    across_count: int = 0
    inside_count: int = 0

    def add(self, image: np.ndarray) -> None:
        for one in (image, image.swapaxes(0, 1)):
            steps = np.abs(np.diff(one.astype(np.int16), axis=0)).sum(axis=(1, 2), dtype=np.int64)
            at_border = np.arange(1, len(one)) % BLOCK == 0
            values = one[0].size
            self.across += float(steps[at_border].sum())
            self.inside += float(steps[~at_border].sum())
            self.across_count += values * int(at_border.sum())
            self.inside_count += values * int((~at_border).sum())

    @property
    def ratio(self) -> float | None:
        """Mean across borders over mean inside; None where frames have no border or no difference."""
        if not self.across_count or not self.inside:
            return None
        return (self.across / self.across_count) / (self.inside / self.inside_count)


@dataclass
class Blockiness:
    """Of decoded frames and their originals, over the blocks of 4 x 4 pixels that a ``grid`` network paints.

    About 1 where there is no lattice: what the original has is the measure.
    """

    _decoded: _Differences = field(default_factory=_Differences)
    _original: _Differences = field(default_factory=_Differences)

    def add(self, decoded: np.ndarray, original: np.ndarray) -> None:
        """One more frame, ``(H, W, 3)`` uint8, twice."""
        self._decoded.add(decoded)
        self._original.add(original)

    @property
    def decoded(self) -> float | None:
        """Of what was decoded; None where there is nothing to measure."""
        return self._decoded.ratio

    @property
    def original(self) -> float | None:
        """Of the original."""
        return self._original.ratio

    def to_json(self) -> dict[str, float] | None:
        """As ``eval --json`` prints it."""
        if self.decoded is None or self.original is None:
            return None
        return {"decoded": round(self.decoded, 4), "original": round(self.original, 4)}
