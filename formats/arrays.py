# SPDX-License-Identifier: MIT
"""Arrays of a safetensors file: its table, and the bytes of arrays on access.

The file is not memory-mapped: if it is truncated while it is open, reading raises an error instead of a bus error.
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
_CHUNK = 1 << 20  # bytes per read

# By safetensors' name. A file stores arrays of later types first, and those of one type sorted by name.
TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2",
    "I32": "<i4", "U32": "<u4", "F32": "<f4", "F64": "<f8", "I64": "<i8", "U64": "<u8",
}  # fmt: skip
_TYPE_NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}


class ArrayLocation(NamedTuple):
    """An array of a file.

    Attributes:
        dtype: little-endian.
        shape: any.
        start, nbytes: byte range in the file.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    nbytes: int


def little_endian(array: np.ndarray) -> np.ndarray:
    """The array as stored, contiguous.

    Raises:
        ContainerError: safetensors has no such type.
    """
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _TYPE_NAMES:
        raise ContainerError(f"arrays of {array.dtype} cannot be stored")
    return np.ascontiguousarray(array, dtype).reshape(array.shape)


def bytes_of(array: np.ndarray) -> memoryview:
    """Bytes of an array as stored."""
    return little_endian(array).reshape(-1).view(np.uint8).data


def file_head(
    metadata: Mapping[str, str], arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]]
) -> tuple[bytes, list[str]]:
    """First bytes of a file: its table, in a fixed order.

    Args:
        metadata: any texts.
        arrays: little-endian type and shape by name.

    Returns:
        The bytes before the arrays, and the order of the arrays.
    """
    rank = {np.dtype(kind): number for number, kind in enumerate(TYPES.values())}
    order = sorted(arrays, key=lambda name: (-rank[arrays[name][0]], name))
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in order:
        dtype, shape = arrays[name]
        start, end = end, end + dtype.itemsize * math.prod(shape)
        table[name] = {"dtype": _TYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, order


class ArrayFile:
    """A safetensors file, open for reading. Thread-safe.

    It is closed by :meth:`close` or without references. A file that is replaced meanwhile stays readable.

    Args:
        path: the file.

    Attributes:
        path: as passed.
        size: bytes of the file.
        metadata: texts by name.
        locations: of the arrays, by name.

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
            self.metadata, self.locations = self._table()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._release()

    def chunks(self, name: str, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes of an array or of a range of it, little-endian, in chunks.

        Args:
            name: of the array.
            begin: first byte, from 0.
            end: byte after the last; None for the end.

        Raises:
            ContainerError: the file is closed, or was truncated meanwhile.
        """
        location = self.locations[name]
        end = location.nbytes if end is None else min(end, location.nbytes)
        return self._read(location.start + begin, max(0, end - begin))

    def _read(self, start: int, count: int) -> Iterator[bytes]:
        end = start + count
        while start < end:
            with wrap_os_error(f"{self.path}: cannot be read", ContainerError), self._lock:
                if not self._release.alive:
                    raise ContainerError(f"{self.path}: is closed; open it again")
                chunk = self._read_at(start, min(_CHUNK, end - start))
            if not chunk:
                raise ContainerError(f"{self.path}: was cut short while it was open")
            yield chunk
            start += len(chunk)

    def _read_at(self, start: int, count: int) -> bytes:
        if hasattr(os, "pread"):  # does not move the position, which a forked process shares
            return os.pread(self._file.fileno(), count, start)
        self._file.seek(start)
        return self._file.read(count)

    def _table(self) -> tuple[dict[str, str], dict[str, ArrayLocation]]:
        """Metadata and locations; rejects other files before a length in them is used."""
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
            metadata, locations = _parse(text, 8 + length)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ContainerError(f"{self.path}: not a .nerv file, or its header is damaged") from None
        end = max((location.start + location.nbytes for location in locations.values()), default=8 + length)
        if end != self.size:
            raise ContainerError(f"{self.path}: damaged or cut short (it has {self.size:,} bytes, not {end:,})")
        return metadata, locations


def _parse(text: bytes, start: int) -> tuple[dict[str, str], dict[str, ArrayLocation]]:
    """Metadata and locations of the arrays, whose bytes begin at ``start``; an invalid table raises various errors."""
    table = json.loads(text.decode(), object_pairs_hook=_object)
    metadata = table.pop("__metadata__", {})
    "".join([*metadata, *metadata.values()]).encode()  # strings without lone surrogates
    locations = {name: _location(entry, start) for name, entry in table.items()}
    for location in sorted(locations.values(), key=lambda location: (location.start, location.nbytes)):
        if location.start != start:
            raise ValueError("arrays overlap or leave a gap")
        start += location.nbytes
    return metadata, locations


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("duplicate name")
    return entries


def _location(entry: dict[str, Any], start: int) -> ArrayLocation:
    dtype, shape, (begin, end) = np.dtype(TYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, begin, end)) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("not integers, or too many")
    if dtype.itemsize * math.prod(max(1, n) for n in shape) > _MAX_ARRAY_BYTES:
        raise ValueError("an array is too large")
    if end - begin != dtype.itemsize * math.prod(shape):
        raise ValueError("an array is not as large as its shape says")
    return ArrayLocation(dtype, tuple(shape), start + begin, end - begin)
