# SPDX-License-Identifier: MIT
"""Arrays in a safetensors file: the table at its head, and their bytes where and when they are wanted.

The file is not mapped into memory, so that one which is cut short while it is open gives an error and not the end of
the process. Nothing here knows what the arrays mean.
"""

from __future__ import annotations

import json
import math
import os
import stat
import struct
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nervcodec.errors import ContainerError, wrap_os_error

MAX_HEADER_BYTES = 64 << 20
_MAX_DIMENSIONS, _MAX_ARRAY_BYTES = 32, 1 << 56  # far beyond any file, and within what numpy counts with
_PIECE = 1 << 20  # bytes read at once

# By safetensors' name. A file holds the arrays of later types first, and those of one type by their names.
TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2",
    "I32": "<i4", "U32": "<u4", "F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8",
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}


class ArrayLocation(NamedTuple):
    """An array of a file.

    Attributes:
        dtype: little-endian.
        shape: any.
        start, nbytes: its place in the file.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    nbytes: int


def little_endian(array: np.ndarray) -> np.ndarray:
    """The array as the file holds it, contiguous.

    Raises:
        ContainerError: the file has no such type.
    """
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _NAMES:
        raise ContainerError(f"arrays of {array.dtype} cannot be stored")
    return np.ascontiguousarray(array, dtype).reshape(array.shape)


def bytes_of(array: np.ndarray) -> memoryview:
    """The bytes that the file holds of an array."""
    return little_endian(array).reshape(-1).view(np.uint8).data


def head(
    metadata: Mapping[str, str], arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]]
) -> tuple[bytes, list[str]]:
    """What a file begins with, its table in one fixed order.

    Args:
        metadata: any texts.
        arrays: little-endian type and shape by name.

    Returns:
        The bytes before those of the arrays, and the order that the arrays have to follow in.
    """
    rank = {np.dtype(kind): number for number, kind in enumerate(TYPES.values())}
    order = sorted(arrays, key=lambda name: (-rank[arrays[name][0]], name))
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in order:
        dtype, shape = arrays[name]
        start, end = end, end + dtype.itemsize * math.prod(shape)
        table[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, order


class ArrayFile:
    """A safetensors file, open for reading by any number of threads.

    The file is given back by :meth:`close`, or when nobody refers to this any more. One that is replaced by another
    meanwhile stays readable.

    Args:
        path: the file.

    Attributes:
        path: as given.
        size: bytes of the file.
        metadata: texts by name.
        places: of the arrays, by name.

    Raises:
        ContainerError: no such file, not a safetensors file, or not as long as its table says.
    """

    def __init__(self, path: Path):
        self.path = path
        # A ValueError for a name with a zero in it.
        with wrap_os_error(f"{path}: cannot be read", ContainerError, ValueError):
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ContainerError(
                    f"{path}: not a .nerv file but a folder, pipe or device; copy what it holds to a file"
                )
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # closed by close
        self._release = weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self.size = os.fstat(self._file.fileno()).st_size
        try:
            self.metadata, self.places = self._table()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back; what was read stays."""
        with self._lock:
            self._release()

    def pieces(self, name: str, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of an array, little-endian, or some of them, a part after the other.

        Args:
            name: of the array.
            begin: the first byte wanted, from 0.
            end: the one after the last; None for all.

        Raises:
            ContainerError: the file is closed, or was cut short meanwhile.
        """
        place = self.places[name]
        end = place.nbytes if end is None else min(end, place.nbytes)
        return self._read(place.start + begin, max(0, end - begin))

    def _read(self, start: int, count: int) -> Iterator[bytes]:
        end = start + count
        while start < end:
            with wrap_os_error(f"{self.path}: cannot be read", ContainerError), self._lock:
                if not self._release.alive:
                    raise ContainerError(f"{self.path}: is closed; open it again")
                piece = self._read_at(start, min(_PIECE, end - start))
            if not piece:
                raise ContainerError(f"{self.path}: was cut short while it was open")
            yield piece
            start += len(piece)

    def _read_at(self, start: int, count: int) -> bytes:
        if hasattr(os, "pread"):  # leaves alone the position, which a forked process shares
            return os.pread(self._file.fileno(), count, start)
        self._file.seek(start)
        return self._file.read(count)

    def _table(self) -> tuple[dict[str, str], dict[str, ArrayLocation]]:
        """Metadata and places; refuses early what is no safetensors file, before a length in it is believed."""
        prefix = b"".join(self._read(0, min(9, self.size)))
        if len(prefix) < 9 or prefix[8:] != b"{":
            raise ContainerError(f"{self.path}: not a .nerv file")
        (length,) = struct.unpack("<Q", prefix[:8])
        if length > MAX_HEADER_BYTES:
            raise ContainerError(f"{self.path}: not a .nerv file, or its header is damaged")
        if 8 + length > self.size:
            raise ContainerError(f"{self.path}: damaged or cut short (the header ends after the file)")
        text = b"".join(self._read(8, length))
        try:
            metadata, places = _parse(text, 8 + length)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ContainerError(f"{self.path}: not a .nerv file, or its header is damaged") from None
        end = max((place.start + place.nbytes for place in places.values()), default=8 + length)
        if end != self.size:
            raise ContainerError(f"{self.path}: damaged or cut short (it has {self.size:,} bytes, not {end:,})")
        return metadata, places


def _parse(text: bytes, start: int) -> tuple[dict[str, str], dict[str, ArrayLocation]]:
    """Metadata and places of the arrays, whose bytes begin at ``start``; raises what comes of a table that is none."""
    table = json.loads(text.decode(), object_pairs_hook=_object)
    metadata = table.pop("__metadata__", {})
    "".join([*metadata, *metadata.values()]).encode()  # texts, and no halves of characters
    places = {name: _place(entry, start) for name, entry in table.items()}
    for place in sorted(places.values(), key=lambda place: (place.start, place.nbytes)):
        if place.start != start:
            raise ValueError("arrays overlap or leave a gap")
        start += place.nbytes
    return metadata, places


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _place(entry: dict[str, Any], start: int) -> ArrayLocation:
    dtype, shape, (begin, end) = np.dtype(TYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, begin, end)) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("no whole numbers, or too many")
    if dtype.itemsize * math.prod(max(1, n) for n in shape) > _MAX_ARRAY_BYTES:
        raise ValueError("an array is too large")
    if end - begin != dtype.itemsize * math.prod(shape):
        raise ValueError("an array is not as large as its shape says")
    return ArrayLocation(dtype, tuple(shape), start + begin, end - begin)
