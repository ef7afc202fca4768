# SPDX-License-Identifier: MIT
"""Reading and writing ``.nerv`` files.

A ``.nerv`` file is a valid safetensors file. Its ``__metadata__`` has four entries: ``format`` ("nerv"),
``format_version``, ``header``, the JSON form of :class:`nervcodec.formats.header.Header` with sorted keys, and
``header_checksum``, which is computed as the tensors' checksums are.
The same content always gives the same bytes: safetensors writes metadata in the order of a hash table, so
:func:`serialize` puts the keys in order afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_save

from nervcodec.errors import ContainerError
from nervcodec.formats import bitstream
from nervcodec.formats.atomic import replacing
from nervcodec.formats.fields import from_json, to_json
from nervcodec.formats.header import AUDIO, FORMAT, FORMAT_VERSION, FRAME_TIMES, Header
from nervcodec.formats.quantization import STREAM, TensorCode, dequantize

MAX_HEADER_BYTES = 64 << 20


def digest(data: bytes) -> str:
    """BLAKE2b (RFC 7693) with an 8 byte digest, as 16 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def checksum(array: np.ndarray) -> str:
    """Digest of the array's little-endian bytes."""
    return digest(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


@dataclass(frozen=True)
class Container:
    """An open ``.nerv`` file: its header and its stored arrays, not yet turned back into weights.

    Attributes:
        header: checked.
        arrays: stored arrays by name.
        path: where it was read from.
    """

    header: Header
    arrays: dict[str, np.ndarray]
    path: Path

    def weights(self, prefix: str, beginning: str = "") -> dict[str, np.ndarray]:
        """Float32 tensors of the network whose stored names begin with ``prefix``, under the rest of their names.

        Args:
            prefix: of a segment.
            beginning: only those whose remaining names begin so.

        Raises:
            ContainerError: what is stored cannot be turned back into numbers.
        """
        result = {}
        for name, code in self._codes(prefix):
            try:
                if code.codec == STREAM:
                    result.update(bitstream.decode(self.arrays[name], beginning))
                elif name[len(prefix) :].startswith(beginning):
                    result[name[len(prefix) :]] = dequantize(self.arrays[name], code)
            except ContainerError as error:
                raise ContainerError(f"{self.path}: tensor {name}: {error}") from None
        return result

    def stored(self, prefix: str) -> dict[str, tuple[tuple[int, ...], int]]:
        """(shape, bytes in the file) of each tensor that :meth:`weights` gives; nothing is decoded.

        Raises:
            ContainerError: a table of weights is damaged.
        """
        result = {}
        for name, code in self._codes(prefix):
            if code.codec == STREAM:
                try:
                    lines, _ = bitstream.read_table(self.arrays[name])
                except ContainerError as error:
                    raise ContainerError(f"{self.path}: tensor {name}: {error}") from None
                result.update({line.name: (line.shape, line.coded_bytes) for line in lines})
            else:
                result[name[len(prefix) :]] = (self.arrays[name].shape, self.arrays[name].nbytes)
        return result

    def _codes(self, prefix: str) -> list[tuple[str, TensorCode]]:
        """Stored arrays that hold a network's weights."""
        tensors = self.header.tensors.items()
        return [(name, stored.code) for name, stored in tensors if name.startswith(prefix) and stored.code is not None]

    def audio(self) -> bytes | None:
        """Audio packets in a Matroska file, or None."""
        return self.arrays[AUDIO].tobytes() if AUDIO in self.arrays else None

    def frame_times(self) -> np.ndarray:
        """``(frame_count,)`` float64, the time in seconds at which each frame begins to show."""
        video = self.header.video
        if video.variable_frame_rate:
            return self.arrays[FRAME_TIMES].astype(np.float64)
        return np.arange(video.frame_count, dtype=np.float64) / video.fps


def serialize(header: Header, arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of a ``.nerv`` file.

    Raises:
        ContainerError: header and arrays do not name the same tensors.
    """
    if set(header.tensors) != set(arrays):
        raise ContainerError("header and arrays do not name the same tensors")
    text = json.dumps(to_json(header), sort_keys=True, separators=(",", ":"), allow_nan=False)
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "header": text,
        "header_checksum": digest(text.encode()),
    }
    blob = safetensors_save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, metadata=metadata)
    (length,) = struct.unpack_from("<Q", blob)
    table = json.loads(blob[8 : 8 + length])
    table["__metadata__"] = dict(sorted(table["__metadata__"].items()))
    ordered = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % 8)
    return struct.pack("<Q", len(ordered)) + ordered + blob[8 + length :]


def write(path: Path, header: Header, arrays: dict[str, np.ndarray]) -> int:
    """Write a container beside ``path`` and rename it into place; returns its size in bytes.

    Raises:
        ContainerError: header and arrays disagree, or the place cannot be written.
    """
    blob = serialize(header, arrays)
    try:
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(blob)
    except OSError as error:
        raise ContainerError(f"{path}: cannot be written: {error.strerror or error}") from None
    return len(blob)


def fingerprint(path: Path) -> str:
    """The checksum in a container's header, which covers those of all its arrays: equal for equal contents.

    Reads the beginning of the file alone, and checks only that the file is as long as its header says.

    Raises:
        ContainerError: not a ``.nerv`` file, or cut short.
    """
    path = Path(path)
    length, size = _check_prefix(path)
    try:
        with open(path, "rb") as file:
            file.seek(8)
            table = json.loads(file.read(length))
        metadata = table.pop("__metadata__")
        ends = [entry["data_offsets"][1] for entry in table.values()]
        checksum_of_header = metadata["header_checksum"]
        if metadata["format"] != FORMAT or type(checksum_of_header) is not str or any(type(n) is not int for n in ends):
            raise TypeError
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ContainerError(f"{path}: not a .nerv file, or its header is damaged") from None
    end = max(ends, default=0)
    if size != 8 + length + end:
        raise ContainerError(f"{path}: damaged or cut short (it has {size:,} bytes, not {8 + length + end:,})")
    return checksum_of_header


def read_header(path: Path) -> Header:
    """Read and check the header alone; array bytes are not touched.

    Raises:
        ContainerError: not a ``.nerv`` file, truncated, too new, or its header is impossible.
    """
    return _read(Path(path), arrays=False).header


def read(path: Path, verify: bool = True) -> Container:
    """Read a whole container.

    Args:
        path: the file.
        verify: compare every array with its checksum.

    Raises:
        ContainerError: as :func:`read_header`; also damaged, missing or surplus arrays.
    """
    container = _read(Path(path), arrays=True)
    if verify:
        for name, stored in container.header.tensors.items():
            if checksum(container.arrays[name]) != stored.checksum:
                raise ContainerError(f"{path}: tensor {name} is damaged (checksum differs)")
    if container.header.video.variable_frame_rate:
        _check_frame_times(container)
    return container


def _read(path: Path, arrays: bool) -> Container:
    _check_prefix(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = _parse(path, file.metadata())
            names = set(file.keys())
            if names != set(header.tensors):
                odd = sorted(names ^ set(header.tensors))[0]
                raise ContainerError(f"{path}: header and file disagree about tensor {odd[:80]!r}")
            loaded = {name: file.get_tensor(name) for name in header.tensors} if arrays else {}
    except SafetensorError as error:
        raise ContainerError(f"{path}: damaged or cut short ({error})") from None
    except (OSError, TypeError, KeyError, AttributeError) as error:
        raise ContainerError(f"{path}: cannot be read ({error})") from None
    return Container(header, loaded, path)


def _check_prefix(path: Path) -> tuple[int, int]:
    """Refuse early what is no safetensors file, before its header length is believed.

    Returns:
        The length of the header and of the file, in bytes.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ContainerError(f"{path}: not a .nerv file but a folder, pipe or device; copy what it holds to a file")
        with open(path, "rb") as file:
            prefix = file.read(9)
            size = file.seek(0, 2)
    except (OSError, ValueError) as error:  # a ValueError for a name with a zero in it
        raise ContainerError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(prefix) < 9 or prefix[8:9] != b"{":
        raise ContainerError(f"{path}: not a .nerv file")
    (length,) = struct.unpack("<Q", prefix[:8])
    if length > MAX_HEADER_BYTES:
        raise ContainerError(f"{path}: not a .nerv file, or its header is damaged")
    if 8 + length > size:
        raise ContainerError(f"{path}: damaged or cut short (the header ends after the file)")
    return length, size


def _parse(path: Path, metadata: dict[str, str] | None) -> Header:
    metadata = metadata or {}
    if metadata.get("format") != FORMAT:
        raise ContainerError(f"{path}: not a .nerv file (a safetensors file of another kind)")
    version = metadata.get("format_version", "")
    if not (version.isascii() and version.isdigit()) or len(version) > 9:
        raise ContainerError(f"{path}: format version {version[:20]!r} makes no sense")
    if int(version) > FORMAT_VERSION:
        raise ContainerError(
            f"{path}: format version {version} is newer than this nervcodec reads ({FORMAT_VERSION}); upgrade nervcodec"
        )
    if int(version) < 1:
        raise ContainerError(f"{path}: format version {version} never existed")
    text = metadata.get("header", "")
    if digest(text.encode()) != metadata.get("header_checksum"):
        raise ContainerError(f"{path}: the header is damaged (checksum differs)")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ContainerError(f"{path}: the header is not valid JSON") from None
    try:
        return from_json(Header, data)
    except ContainerError as error:
        raise ContainerError(f"{path}: {error}") from None


def _check_frame_times(container: Container) -> None:
    times = container.arrays.get(FRAME_TIMES)
    count = container.header.video.frame_count
    if times is None or times.shape != (count,) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ContainerError(f"{container.path}: the table of frame times is missing or wrong")
