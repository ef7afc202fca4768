# SPDX-License-Identifier: MIT
"""Reading and writing ``.nerv`` files.

A ``.nerv`` file is a valid safetensors file. Its ``__metadata__`` has four entries: ``format`` ("nerv"),
``format_version``, ``header``, the JSON form of :class:`nervcodec.formats.header.Header` with sorted keys, and
``header_checksum``, which is computed as the tensors' checksums are. The same content always gives the same bytes,
whatever order the arrays are added in.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nervcodec.errors import ContainerError, OutdatedContainerError, TooNewError, wrap_os_error
from nervcodec.formats.arrays import ArrayFile, bytes_of, file_head, little_endian
from nervcodec.formats.atomic import writing
from nervcodec.formats.fields import from_json, to_json
from nervcodec.formats.header import (
    AUDIO,
    BASE,
    COPY,
    FORMAT,
    FORMAT_VERSION,
    FRAME_TIMES,
    Header,
    Segment,
    StoredTensor,
    TensorCode,
)
from nervcodec.formats.weights import StoredWeights

_DIGEST_BYTES = 8
_MAGIC = b'{"__metadata__":{"format":"nerv",'  # of every container, after the length of its table
_CHUNK = 1 << 20  # bytes per copy


def digest(data: bytes | memoryview) -> str:
    """BLAKE2b (RFC 7693) with an 8 byte digest, as 16 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def checksum(array: np.ndarray) -> str:
    """Digest of the array's little-endian bytes."""
    return digest(bytes_of(array))


class Container:
    """An open ``.nerv`` file. Opening reads the header only; arrays are read and checked on access, and not kept.

    Thread-safe. A container without references closes itself.

    Args:
        file: the open file, which is closed with this.
        header: checked.

    Attributes:
        header: as passed.
        path: of the file.
        size_bytes: of the whole file.
    """

    def __init__(self, file: ArrayFile, header: Header):
        self._file, self.header = file, header
        self.path, self.size_bytes = file.path, file.size
        self._verified: set[str] = set()  # arrays whose checksum was compared

    @classmethod
    def open(cls, path: Path) -> Container:
        """Open a file.

        Raises:
            OutdatedContainerError: it has an earlier version of the format, or a network above a base layer.
            TooNewError: it has a later one.
            ContainerError: not a ``.nerv`` file, truncated, or its header is impossible or names other arrays than the
                file has.
        """
        path = Path(path)
        file = ArrayFile(path)
        try:
            header = _parse(path, file.metadata)
            if odd := sorted(set(file.locations) ^ set(header.tensors)):
                raise ContainerError(f"{path}: header and file disagree about tensor {odd[0][:80]!r}")
            for name in header.base_arrays():
                if (file.locations[name].dtype, len(file.locations[name].shape)) != (np.uint8, 1):
                    raise ContainerError(f"{path}: tensor {name}: the stream of a base layer is a row of bytes")
        except ContainerError:
            file.close()
            raise
        return cls(file, header)

    def close(self) -> None:
        """Close the file; the header stays."""
        self._file.close()

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def array(self, name: str) -> np.ndarray:
        """A stored array, without decoding weights.

        Raises:
            KeyError: no such array.
            ContainerError: it is damaged, or the container is closed.
        """
        location = self._file.locations[name]
        data = np.empty(location.nbytes, np.uint8)
        done = 0
        for chunk in self._checked_chunks(name):
            data[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
            done += len(chunk)
        stored = data.view(location.dtype).reshape(location.shape)
        return stored.astype(location.dtype.newbyteorder("="), copy=False)

    def nbytes(self, name: str) -> int:
        """Size of a stored array, 0 where there is none of that name."""
        return self._file.locations[name].nbytes if name in self._file.locations else 0

    def chunks(self, name: str, *ranges: tuple[int, int | None]) -> Iterator[bytes]:
        """Bytes of ranges of an array, in chunks, without loading it.

        Args:
            name: of the array.
            ranges: (first byte, byte after the last or None for the end) of each.

        Raises:
            KeyError: no such array.
            ContainerError: it is damaged, raised before the first chunk, or the container is closed.
        """
        if name not in self._verified:
            for _ in self._checked_chunks(name):
                continue
            self._verified.add(name)
        return itertools.chain.from_iterable(self._file.chunks(name, begin, end) for begin, end in ranges)

    def _checked_chunks(self, name: str) -> Iterator[bytes]:
        """Bytes of an array in chunks; raises after the last one if the checksum differs."""
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for chunk in self._file.chunks(name):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != self.header.tensors[name].checksum:
            raise ContainerError(f"{self.path}: tensor {name} is damaged (checksum differs)")

    def verify(self) -> None:
        """Verify every checksum and the frame times, without keeping arrays in memory.

        Raises:
            ContainerError: the file is damaged.
        """
        for name in self.header.tensors:
            for _ in self._checked_chunks(name):
                continue
        self.frame_times()

    def embedded_frames(self, segment: Segment) -> tuple[int, ...]:
        """Frames of a segment, counted from its first, whose embeddings were fitted; no weights are decoded.

        Raises:
            ContainerError: it is damaged, or the container is closed.
        """
        return self.network(segment.prefix).frame_tables(segment.frame_count).embedded

    def base_stream(self, segment: Segment) -> np.ndarray:
        """``(n,)`` uint8, the base layer's stream of a segment, or of the whole file where it has a single one.

        Raises:
            KeyError: the file has no base layer.
            ContainerError: it is damaged, or the container is closed.
        """
        base = self.header.base
        return self.array(BASE if base is not None and base.kind == COPY else segment.prefix + BASE)

    def network(self, prefix: str) -> StoredWeights:
        """Stored weights of the network whose arrays' names begin with ``prefix``.

        Raises:
            ContainerError: it is damaged, or the container is closed.
        """
        names = [n for n, t in self.header.tensors.items() if n.startswith(prefix) and t.code is not None]
        return StoredWeights(self.path, prefix, {name: self.array(name) for name in names})

    def shared_weights(self) -> StoredWeights | None:
        """Stored weights that all segments share; None where there are none.

        Raises:
            ContainerError: it is damaged, or the container is closed.
        """
        if self.header.shared is None:
            return None
        shared = self.network(self.header.shared)
        shared.frame_tables(0)  # raises if it has frame tables
        return shared

    def audio(self) -> bytes | None:
        """Audio packets in a Matroska file, or None.

        Raises:
            ContainerError: they are damaged.
        """
        return self.array(AUDIO).tobytes() if AUDIO in self.header.tensors else None

    def frame_times(self) -> np.ndarray:
        """``(frame_count,)`` float64, presentation time of each frame in seconds.

        Raises:
            ContainerError: the table of a variable rate is damaged, missing or wrong.
        """
        video = self.header.video
        if not video.variable_frame_rate:
            return np.arange(video.frame_count, dtype=np.float64) / video.fps
        location = self._file.locations.get(FRAME_TIMES)
        if location is not None and location.shape == (video.frame_count,):
            times = self.array(FRAME_TIMES).astype(np.float64)
            if np.isfinite(times).all() and (np.diff(times) >= 0).all():
                return times
        raise ContainerError(f"{self.path}: the table of frame times is missing or wrong")


def fingerprint(path: Path) -> str:
    """The header checksum of a container, which covers the checksums of all arrays: equal for equal contents.

    Reads the beginning of the file only, without parsing the header.

    Raises:
        ContainerError: not a ``.nerv`` file, or cut short.
    """
    file = ArrayFile(Path(path))
    file.close()
    if file.metadata.get("format") != FORMAT or "header_checksum" not in file.metadata:
        raise ContainerError(f"{path}: not a .nerv file, or its header is damaged")
    return file.metadata["header_checksum"]


def is_container(path: Path) -> bool:
    """Whether a file begins like a container, of any version and even if damaged.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read(8 + len(_MAGIC))[8:] == _MAGIC


def read_header(path: Path) -> Header:
    """Read and check the header only.

    Raises:
        ContainerError: as :meth:`Container.open`.
    """
    with Container.open(path) as opened:
        return opened.header


def _parse(path: Path, metadata: dict[str, str]) -> Header:
    """The header, checked."""
    if metadata.get("format") != FORMAT:
        raise ContainerError(f"{path}: not a .nerv file (a safetensors file of another kind)")
    version = metadata.get("format_version", "")
    if not (version.isascii() and version.isdigit()) or len(version) > 9:
        raise ContainerError(f"{path}: format version {version[:20]!r} makes no sense")
    if int(version) > FORMAT_VERSION:
        raise TooNewError(
            f"{path}: format version {version} is newer than this nervcodec reads ({FORMAT_VERSION}); upgrade nervcodec"
        )
    if int(version) < 1:
        raise ContainerError(f"{path}: format version {version} never existed")
    if int(version) < FORMAT_VERSION:
        raise OutdatedContainerError(f"{path}: written by an earlier nervcodec; encode the source again")
    text = metadata.get("header", "")
    if digest(text.encode()) != metadata.get("header_checksum"):
        raise ContainerError(f"{path}: the header is damaged (checksum differs)")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ContainerError(f"{path}: the header is not valid JSON") from None
    try:
        header = from_json(Header, data)
    except ContainerError as error:
        raise ContainerError(f"{path}: {error}") from None
    if any(segment.changes_base for segment in header.segments):
        raise OutdatedContainerError(
            f"{path}: written by an earlier nervcodec (a network above a base layer); encode the source again"
        )
    return header


class Writer:
    """Writes a container; its arrays are collected in an unnamed temporary file beside the target.

    >>> with Writer(path) as writer:                             # doctest: +SKIP
    ...     writer.add("0/weights", stream, TensorCode(STREAM))  # doctest: +SKIP
    ...     writer.finish(header)                                # doctest: +SKIP

    Args:
        target: the container, created by :meth:`finish`.

    Attributes:
        tensors: header entries of the arrays so far.

    Raises:
        ContainerError: the target cannot be written.
    """

    def __init__(self, target: Path):
        self.target = Path(target)
        self.tensors: dict[str, StoredTensor] = {}
        self._arrays: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self._ranges: dict[str, tuple[int, int]] = {}
        with wrap_os_error(f"{self.target}: cannot be written", ContainerError):
            self._spool = tempfile.TemporaryFile(dir=self.target.parent)  # noqa: SIM115  # closed by __exit__

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # unwritten data is discarded
            self._spool.close()

    def add(self, name: str, array: np.ndarray, code: TensorCode | None = None) -> None:
        """Add an array.

        Args:
            name: with its segment's prefix.
            array: of any shape.
            code: how weights are decoded; None for other arrays.

        Raises:
            ContainerError: duplicate name, unsupported type, or no space.
        """
        if name in self.tensors:
            raise ContainerError(f"{self.target}: two arrays are called {name}")
        stored = little_endian(array)
        with wrap_os_error(f"{self.target}: cannot be written", ContainerError):
            self._ranges[name] = self._spool.tell(), stored.nbytes
            self._spool.write(bytes_of(stored))
        self._arrays[name] = stored.dtype, stored.shape
        self.tensors[name] = StoredTensor(checksum(stored), code)

    def finish(self, header: Header) -> int:
        """Write the file beside the target and rename it into place; returns its size in bytes.

        Args:
            header: with :attr:`tensors` in it.

        Raises:
            ContainerError: the header lists other arrays, or the target cannot be written.
        """
        if header.tensors != self.tensors:
            raise ContainerError("header and arrays do not name the same tensors")
        text = json.dumps(to_json(header, compact=True), sort_keys=True, separators=(",", ":"), allow_nan=False)
        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "header": text,
            "header_checksum": digest(text.encode()),
        }
        beginning, order = file_head(metadata, self._arrays)
        with writing(self.target, ContainerError) as temporary, open(temporary, "wb") as file:
            file.write(beginning)
            for name in order:
                self._copy(*self._ranges[name], file)
            return file.tell()

    def _copy(self, start: int, count: int, file: BinaryIO) -> None:
        """Copy bytes of the spool to a file."""
        self._spool.seek(start)
        while count:
            chunk = self._spool.read(min(_CHUNK, count))
            file.write(chunk)
            count -= len(chunk)
