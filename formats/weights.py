# SPDX-License-Identifier: MIT
"""Weights as a file holds them, and what they and their tables are without decoding more than is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nervcodec.errors import ContainerError
from nervcodec.formats import bitstream
from nervcodec.formats.tables import MARK, FrameTables, read_tables


class StoredWeights:
    """The streams that hold weights, of a segment or shared by all, read and found whole, but not decoded.

    Args:
        path: the container.
        prefix: what their names begin with.
        streams: ``(n,)`` uint8 by stored name.
    """

    def __init__(self, path: Path, prefix: str, streams: dict[str, np.ndarray]):
        self._path, self._prefix, self._streams = path, prefix, streams

    def table(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """(shape, bytes in the file) of each tensor that :meth:`decode` gives.

        Raises:
            ContainerError: a table of weights is damaged.
        """
        result = {}
        for name, stream in self._streams.items():
            with self._blamed(name):
                lines, _ = bitstream.read_table(stream)
                tensors = [line for line in lines if not line.name.startswith(MARK)]
                result.update({line.name: (line.shape, line.coded_bytes) for line in tensors})
        return result

    def frame_tables(self, frames: int) -> FrameTables:
        """What is said of each of a segment's ``frames``; no weights are decoded.

        Raises:
            ContainerError: they are damaged, or what they say cannot be.
        """
        found = []
        for name, stream in self._streams.items():
            with self._blamed(name):
                found.append(read_tables(stream, frames))
        told = [tables for tables in found if tables != FrameTables()]
        if len(told) > 1:
            raise ContainerError(f"{self._path}: two streams of {self._prefix} hold tables of frames")
        return told[0] if told else FrameTables()

    def decode(self, beginning: str = "") -> dict[str, np.ndarray]:
        """Float32 tensors by name; see :meth:`Container.weights`."""
        result = {}
        for name, stream in self._streams.items():
            with self._blamed(name):
                tensors = bitstream.decode(stream, beginning)
                result.update({n: tensor for n, tensor in tensors.items() if not n.startswith(MARK)})
        return result

    @contextmanager
    def _blamed(self, name: str) -> Iterator[None]:
        """Errors say which array of which file they are about."""
        try:
            yield
        except ContainerError as error:
            raise ContainerError(f"{self._path}: tensor {name}: {error}") from None
