# SPDX-License-Identifier: MIT
"""Stored weights of a network, and the tables of its frames that precede them in a stream.

A table has one integer for each frame or gap between frames and is range coded before the weights. Names of tables
begin with a colon, which no parameter's name does. An empty table is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nervcodec.errors import ContainerError
from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import LARGEST, QuantizedTensor
from nervcodec.formats.header import MAX_PACE

MARK = ":"
EMBEDDED, PACE = ":embedded", ":pace"


@dataclass(frozen=True)
class FrameTables:
    """Per-frame tables of a segment.

    Attributes:
        embedded: frames with fitted embeddings, counted from the segment's first, ascending. A network with codes has
            one for each.
        pace: time between consecutive frames as the grids see it (time warp); empty for uniform time.
    """

    embedded: tuple[int, ...] = ()
    pace: tuple[int, ...] = ()

    def tensors(self) -> dict[str, QuantizedTensor]:
        """Tensors at the prefix of a stream."""
        lists = {EMBEDDED: _to_gaps(self.embedded), PACE: self.pace}
        one = np.ones(1, np.float32)
        return {name: QuantizedTensor(np.array(values, np.int32), one) for name, values in lists.items() if values}


def read_tables(stream: np.ndarray, frames: int) -> FrameTables:
    """The tables of a stream; nothing after them is decoded.

    Args:
        stream: ``(n,)`` uint8.
        frames: of the segment.

    Raises:
        ContainerError: the stream is damaged, or a table is invalid.
    """
    lines, _ = bitstream.read_table(stream)
    for line in lines:
        if not line.name.startswith(MARK):
            continue
        if line.name not in (EMBEDDED, PACE):
            raise ContainerError(f"unknown table {line.name[:40]!r}; this file needs a newer nervcodec")
        if len(line.shape) != 1 or line.steps != (1.0,) or line.size > frames + frames // LARGEST:
            raise ContainerError(f"the table {line.name!r} does not hold whole numbers of frames")
    tables = {name: _integers(tensor) for name, tensor in bitstream.read(stream, MARK).items()}
    embedded = _from_gaps(tables[EMBEDDED], frames) if EMBEDDED in tables else ()
    pace = tables.get(PACE)
    if pace is not None and (len(pace) != frames - 1 or pace.min() < 0 or pace.max() > MAX_PACE):
        raise ContainerError(f"the table of pace must have {frames - 1} numbers from 0 to {MAX_PACE}")
    return FrameTables(embedded, () if pace is None else tuple(pace.tolist()))


def _integers(tensor: QuantizedTensor | np.ndarray) -> np.ndarray:
    return tensor.integers if isinstance(tensor, QuantizedTensor) else tensor


def _to_gaps(frames: tuple[int, ...]) -> list[int]:
    """Distance of each frame from the previous one, the first from 0; 4095 is added to the number after it."""
    gaps = []
    for before, frame in zip((0, *frames), frames, strict=False):
        times, rest = divmod(frame - before, LARGEST)
        gaps += [LARGEST] * times + [rest]
    return gaps


def _from_gaps(gaps: np.ndarray, frames: int) -> tuple[int, ...]:
    """The inverse of :func:`_to_gaps`, for a segment of ``frames``."""
    passed = gaps.astype(np.int64).cumsum()[gaps < LARGEST]
    ascends = gaps.min() >= 0 and gaps[-1] < LARGEST and (np.diff(passed) > 0).all()
    if not ascends or passed[-1] >= frames:
        raise ContainerError("frames with embeddings must ascend inside the segment")
    return tuple(passed.tolist())


class StoredWeights:
    """Streams of weights of a segment, or shared by all: read and verified, but not decoded.

    Args:
        path: the container.
        prefix: of their names.
        streams: ``(n,)`` uint8 by stored name.
    """

    def __init__(self, path: Path, prefix: str, streams: dict[str, np.ndarray]):
        self._path, self._prefix, self._streams = path, prefix, streams

    def table(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """(shape, bytes in the file) of each tensor of :meth:`decode`.

        Raises:
            ContainerError: a table of weights is damaged.
        """
        result = {}
        for name, stream in self._streams.items():
            with self._naming_array(name):
                lines, _ = bitstream.read_table(stream)
                tensors = [line for line in lines if not line.name.startswith(MARK)]
                result.update({line.name: (line.shape, line.coded_bytes) for line in tensors})
        return result

    def frame_tables(self, frames: int) -> FrameTables:
        """Frame tables of a segment with ``frames``, without decoding weights.

        Raises:
            ContainerError: they are damaged or invalid.
        """
        tables_by_stream = []
        for name, stream in self._streams.items():
            with self._naming_array(name):
                tables_by_stream.append(read_tables(stream, frames))
        nonempty = [tables for tables in tables_by_stream if tables != FrameTables()]
        if len(nonempty) > 1:
            raise ContainerError(f"{self._path}: two streams of {self._prefix} hold tables of frames")
        return nonempty[0] if nonempty else FrameTables()

    def decode(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Float32 tensors by name, those whose names begin with ``prefix``.

        Raises:
            ContainerError: a stream is damaged.
        """
        result = {}
        for name, stream in self._streams.items():
            with self._naming_array(name):
                tensors = bitstream.decode(stream, prefix)
                result.update({n: tensor for n, tensor in tensors.items() if not n.startswith(MARK)})
        return result

    @contextmanager
    def _naming_array(self, name: str) -> Iterator[None]:
        """Prefix errors with the file and the array."""
        try:
            yield
        except ContainerError as error:
            raise ContainerError(f"{self._path}: tensor {name}: {error}") from None
