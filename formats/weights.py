# SPDX-License-Identifier: MIT
"""Weights as a file holds them, and what they and their tables are without decoding more than is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nervcodec.errors import ContainerError
from nervcodec.formats import bitstream
from nervcodec.formats.codes import STREAM, TensorCode, dequantize
from nervcodec.formats.tables import MARK, FrameTables, read_tables


class StoredWeights:
    """The arrays that hold weights, of a segment or shared by all, read and found whole, but not decoded.

    Args:
        path: the container.
        prefix: what their names begin with.
        arrays: code and array by stored name.
    """

    def __init__(self, path: Path, prefix: str, arrays: dict[str, tuple[TensorCode, np.ndarray]]):
        self._path, self._prefix, self._arrays = path, prefix, arrays

    def table(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """(shape, bytes in the file) of each tensor that :meth:`decode` gives.

        Raises:
            ContainerError: a table of weights is damaged.
        """
        result = {}
        for name, code, array in self._each():
            with self._blamed(name):
                if code.codec == STREAM:
                    lines, _ = bitstream.read_table(array)
                    tensors = [line for line in lines if not line.name.startswith(MARK)]
                    result.update({line.name: (line.shape, line.coded_bytes) for line in tensors})
                else:
                    result[name[len(self._prefix) :]] = (array.shape, array.nbytes)
        return result

    def frame_tables(self, frames: int) -> FrameTables:
        """What is said of each of a segment's ``frames``; no weights are decoded. Files before version 3 have none.

        Raises:
            ContainerError: they are damaged, or what they say cannot be.
        """
        found = []
        for name, code, array in self._each():
            if code.codec == STREAM:
                with self._blamed(name):
                    found.append(read_tables(array, frames))
        told = [tables for tables in found if tables != FrameTables()]
        if len(told) > 1:
            raise ContainerError(f"{self._path}: two streams of {self._prefix} hold tables of frames")
        return told[0] if told else FrameTables()

    def decode(self, beginning: str = "") -> dict[str, np.ndarray]:
        """Float32 tensors by name; see :meth:`Container.weights`."""
        result = {}
        for name, code, array in self._each():
            own = name[len(self._prefix) :]
            with self._blamed(name):
                if code.codec == STREAM:
                    tensors = bitstream.decode(array, beginning)
                    result.update({n: tensor for n, tensor in tensors.items() if not n.startswith(MARK)})
                elif own.startswith(beginning):
                    result[own] = dequantize(array, code)
        return result

    def _each(self) -> Iterator[tuple[str, TensorCode, np.ndarray]]:
        return ((name, code, array) for name, (code, array) in self._arrays.items())

    @contextmanager
    def _blamed(self, name: str) -> Iterator[None]:
        """Errors say which array of which file they are about."""
        try:
            yield
        except ContainerError as error:
            raise ContainerError(f"{self._path}: tensor {name}: {error}") from None
