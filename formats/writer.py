# SPDX-License-Identifier: MIT
"""Writing ``.nerv`` files: arrays come one after the other and leave memory at once.

The same content always gives the same bytes, whatever order the arrays come in.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nervcodec.errors import ContainerError, explained
from nervcodec.formats.arrays import bytes_of, head, little_endian
from nervcodec.formats.atomic import writing
from nervcodec.formats.codes import TensorCode
from nervcodec.formats.container import checksum, digest
from nervcodec.formats.fields import to_json
from nervcodec.formats.header import FORMAT, FORMAT_VERSION, Header, StoredTensor

_PIECE = 1 << 20  # bytes copied at once


class Writer:
    """A container under way; until it is finished its arrays lie in a nameless file beside the target.

    >>> with Writer(path) as writer:                             # doctest: +SKIP
    ...     writer.add("0/weights", stream, TensorCode(STREAM))  # doctest: +SKIP
    ...     writer.finish(header)                                # doctest: +SKIP

    Args:
        target: the container; nothing is there before :meth:`finish`.

    Attributes:
        tensors: what the header has to say of the arrays so far.

    Raises:
        ContainerError: the place cannot be written.
    """

    def __init__(self, target: Path):
        self.target = Path(target)
        self.tensors: dict[str, StoredTensor] = {}
        self._arrays: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self._places: dict[str, tuple[int, int]] = {}
        with explained(f"{self.target}: cannot be written", ContainerError):
            self._spool = tempfile.TemporaryFile(dir=self.target.parent)  # noqa: SIM115  # closed by __exit__

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written before is not wanted now
            self._spool.close()

    def add(self, name: str, array: np.ndarray, code: TensorCode | None = None) -> None:
        """Take an array.

        Args:
            name: with its segment's prefix.
            array: of any shape.
            code: how it turns into weights; None for what are none.

        Raises:
            ContainerError: a second array of that name, one of a type that cannot be stored, or no space.
        """
        if name in self.tensors:
            raise ContainerError(f"{self.target}: two arrays are called {name}")
        stored = little_endian(array)
        with explained(f"{self.target}: cannot be written", ContainerError):
            self._places[name] = self._spool.tell(), stored.nbytes
            self._spool.write(bytes_of(stored))
        self._arrays[name] = stored.dtype, stored.shape
        self.tensors[name] = StoredTensor(checksum(stored), code)

    def finish(self, header: Header) -> int:
        """Write the file beside the target and rename it into place; returns its size in bytes.

        Args:
            header: with :attr:`tensors` in it.

        Raises:
            ContainerError: the header speaks of other arrays, or the place cannot be written.
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
        beginning, order = head(metadata, self._arrays)
        with writing(self.target, ContainerError) as temporary, open(temporary, "wb") as file:
            file.write(beginning)
            for name in order:
                self._copy(*self._places[name], file)
            return file.tell()

    def _copy(self, start: int, count: int, file: BinaryIO) -> None:
        """Bytes of the spool to a file."""
        self._spool.seek(start)
        while count:
            piece = self._spool.read(min(_PIECE, count))
            file.write(piece)
            count -= len(piece)
