# SPDX-License-Identifier: MIT
"""Tables with a number for a frame, range coded at the beginning of a segment's stream, before its weights.

Their names begin with a colon, as no parameter's does. A table without entries is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervcodec.errors import ContainerError
from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import LARGEST, RoundedTensor
from nervcodec.formats.header import MAX_PACE

MARK = ":"
EMBEDDED, PACE = ":embedded", ":pace"


@dataclass(frozen=True)
class FrameTables:
    """What a segment says of its frames.

    Attributes:
        embedded: frames, counted from the segment's first, whose embeddings were fitted; ascending. Where the network
            has codes, there is one for each of them.
        pace: how much time passes for the grids from each frame to the next; empty: the same everywhere.
    """

    embedded: tuple[int, ...] = ()
    pace: tuple[int, ...] = ()

    def tensors(self) -> dict[str, RoundedTensor]:
        """As a stream begins with them."""
        lists = {EMBEDDED: _to_gaps(self.embedded), PACE: self.pace}
        one = np.ones(1, np.float32)
        return {name: RoundedTensor(np.array(values, np.int32), one) for name, values in lists.items() if values}


def read_tables(stream: np.ndarray, frames: int) -> FrameTables:
    """The tables of a stream; nothing behind them is decoded.

    Args:
        stream: ``(n,)`` uint8.
        frames: of the segment.

    Raises:
        ContainerError: the stream is damaged, or what they say cannot be.
    """
    lines, _ = bitstream.read_table(stream)
    for line in lines:
        if not line.name.startswith(MARK):
            continue
        if line.name not in (EMBEDDED, PACE):
            raise ContainerError(f"unknown table {line.name[:40]!r}; this file needs a newer nervcodec")
        if len(line.shape) != 1 or line.steps != (1.0,) or line.size > frames + frames // LARGEST:
            raise ContainerError(f"the table {line.name!r} does not hold whole numbers of frames")
    found = {name: _integers(tensor) for name, tensor in bitstream.read(stream, MARK).items()}
    embedded = _from_gaps(found[EMBEDDED], frames) if EMBEDDED in found else ()
    pace = found.get(PACE)
    if pace is not None and (len(pace) != frames - 1 or pace.min() < 0 or pace.max() > MAX_PACE):
        raise ContainerError(f"the table of pace must have {frames - 1} numbers from 0 to {MAX_PACE}")
    return FrameTables(embedded, () if pace is None else tuple(pace.tolist()))


def _integers(tensor: RoundedTensor | np.ndarray) -> np.ndarray:
    return tensor.integers if isinstance(tensor, RoundedTensor) else tensor


def _to_gaps(frames: tuple[int, ...]) -> list[int]:
    """How far each frame is from the one before it, the first one from 0; 4095 adds to the number behind it."""
    gaps = []
    for before, frame in zip((0, *frames), frames, strict=False):
        times, rest = divmod(frame - before, LARGEST)
        gaps += [LARGEST] * times + [rest]
    return gaps


def _from_gaps(gaps: np.ndarray, frames: int) -> tuple[int, ...]:
    """The inverse of :func:`_to_gaps`, for a segment of so many frames."""
    passed = gaps.astype(np.int64).cumsum()[gaps < LARGEST]
    ascends = gaps.min() >= 0 and gaps[-1] < LARGEST and (np.diff(passed) > 0).all()
    if not ascends or passed[-1] >= frames:
        raise ContainerError("frames with embeddings must ascend inside the segment")
    return tuple(passed.tolist())
