# SPDX-License-Identifier: MIT
"""The tables of an index, in ``FOLDER/.nervcodec/``, by LanceDB.

``files``        one row a path (bytes, since a name need be no text): size, time of change, checksum, number of its
                 content, or why it cannot be read
``contents``     one row a content: its number, checksum, encoder, and its embeddings as ``EmbeddingIndex.to_bytes``
``segments_...`` one row a segment: its number and its content's, basis and mean; such a table and
``codes_...``    one row a stored code and patch, with its segment's number, for each encoder and width

A content is written in the order segments, codes, contents, files, and what no row of ``files`` names does not exist:
whoever is killed in between leaves rows that nobody reads and that the next writer removes. They are taken away in the
opposite order. Numbers are never given twice; a content has that of its first segment. So a reader, who takes
``files`` first, needs no lock.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.errors import LibraryError
from nervcodec.formats.container import digest
from nervcodec.index.pack import PackedSegment
from nervcodec.index.rows import code_rows, segment_rows
from nervcodec.index.tables import Tables, among, readable

if TYPE_CHECKING:
    import pyarrow as pa

PLACE = ".nervcodec"
NOTHING = -1  # in place of a content's number, of a file that cannot be searched
_FORM = "2"  # of the tables; an index of another form is made anew
_BATCH_ROWS, _BATCH_SEGMENTS = 131_072, 512  # read at once
_COMPRESSION = 1


@dataclass(frozen=True)
class FileRow:
    """What the index says of a file.

    Attributes:
        path: relative to the folder, with slashes.
        size, modified_ns: of the file when it was read.
        checksum: of the content, empty where there is none.
        number: of the content, or :data:`NOTHING`.
        problem: why it cannot be searched, without the path, or empty.
    """

    path: str
    size: int
    modified_ns: int
    checksum: str
    number: int
    problem: str


@dataclass(frozen=True)
class Content:
    """A content that is to be added.

    Attributes:
        checksum, encoder: of the container.
        dimension, width: numbers in an embedding and in a code.
        embeddings: ``EmbeddingIndex.to_bytes``, compressed.
        segments: in order.
    """

    checksum: str
    encoder: str
    dimension: int
    width: int
    embeddings: bytes
    segments: tuple[PackedSegment, ...]

    @property
    def kind(self) -> Kind:
        """Which tables its codes stand in."""
        return Kind(self.encoder, self.dimension, self.width)


@dataclass(frozen=True, order=True)
class Kind:
    """What codes of one table have in common."""

    encoder: str
    dimension: int
    width: int

    @property
    def name(self) -> str:
        """Of its tables, after what they hold."""
        return f"{digest(self.encoder.encode())}_{self.dimension}_{self.width}"


def compressed(embeddings: bytes) -> bytes:
    """As contents hold them."""
    return zlib.compress(embeddings, _COMPRESSION)


def exists(folder: Path) -> bool:
    """Whether a folder has an index of its own; lancedb is not imported."""
    return (folder / PLACE / "files.lance").is_dir()


class Store:
    """The tables.

    Args:
        folder: whose ``.nervcodec`` holds them; it is there.

    Raises:
        LibraryError: lancedb is not installed, or the tables cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder, self._tables = folder, Tables(folder / PLACE)
        self._next = 0  # no number from here on was given by whoever wrote the table of files

    # ------------------------------------------------------------------ reading

    def files(self) -> list[FileRow]:
        """The rows of ``files``, none where the index is new or of another form."""
        rows = self._tables.whole("files")
        if rows is None or self._said(rows, "form") != _FORM:
            return []
        self._next = int(self._said(rows, "next"))
        paths = map(os.fsdecode, rows["path"].to_pylist())
        columns = [rows[name].to_pylist() for name in ("size", "modified_ns", "checksum", "number", "problem")]
        return [FileRow(*values) for values in zip(paths, *columns, strict=True)]

    def contents(self) -> dict[int, Kind]:
        """The kind of every content by its number."""
        numbers: list[int] = []
        kinds: list[Kind] = []
        for batch in self._tables.rows("contents", ["number", "encoder", "dimension", "width"]):
            number, *parts = (batch[name].to_pylist() for name in ("number", "encoder", "dimension", "width"))
            numbers += number
            kinds += [Kind(*part) for part in zip(*parts, strict=True)]
        return dict(zip(numbers, kinds, strict=True))

    def embeddings(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """``EmbeddingIndex.to_bytes`` of some contents by their numbers; what is gone meanwhile is missing."""
        found = {}
        if len(numbers):
            for batch in self._tables.rows("contents", ["number", "embeddings"], among(numbers)):
                for number, blob in zip(batch["number"].to_pylist(), batch["embeddings"], strict=True):
                    found[number] = zlib.decompress(blob.as_buffer())
        return found

    def segments(self, kind: Kind) -> Iterator[pa.RecordBatch]:
        """Rows of a table of segments, in the order they were written."""
        columns = ["number", "segment", "patches", "steps", "mean", "directions"]
        return self._tables.rows(f"segments_{kind.name}", columns, at_once=_BATCH_SEGMENTS)

    def codes(self, kind: Kind) -> Iterator[pa.RecordBatch]:
        """Rows of a table of codes, in the order they were written."""
        columns = ["segment", "length", "middle_weight", "middle_length", "code"]
        return self._tables.rows(f"codes_{kind.name}", columns, at_once=_BATCH_ROWS)

    def row_count(self) -> int:
        """Codes in all tables."""
        return sum(self._tables.count(name) for name in self._tables.names() if name.startswith("codes_"))

    # ------------------------------------------------------------------ writing

    def next_number(self) -> int:
        """One that was never given to a content that left a trace."""
        names = (name for name in self._tables.names() if name.startswith("segments_"))
        traces = [self._tables.column(name, "segment") for name in names]
        return max([self._next, *(1 + int(trace.max()) for trace in traces if len(trace))])

    def add(self, contents: Sequence[Content]) -> list[int]:
        """Write contents and return their numbers; they exist once :meth:`replace_files` names them."""
        import pyarrow as arrow

        ends = self.next_number() + np.cumsum([0, *(len(content.segments) for content in contents)])
        numbered = list(zip(ends.tolist(), contents, strict=False))
        for kind in sorted({content.kind for content in contents}):
            own = [(n, *entry) for n, c in numbered if c.kind == kind for entry in enumerate(c.segments)]
            self._tables.append(f"segments_{kind.name}", segment_rows(own))
            self._tables.append(f"codes_{kind.name}", code_rows(own))
        rows = {
            "number": arrow.array([number for number, _ in numbered], arrow.int32()),
            "checksum": arrow.array([content.checksum for content in contents], arrow.string()),
            "encoder": arrow.array([content.encoder for content in contents], arrow.string()),
            "dimension": arrow.array([content.dimension for content in contents], arrow.int32()),
            "width": arrow.array([content.width for content in contents], arrow.int32()),
            "embeddings": arrow.array([content.embeddings for content in contents], arrow.large_binary()),
        }
        self._tables.append("contents", arrow.table(rows))
        return [number for number, _ in numbered]

    def replace_files(self, files: Iterable[FileRow]) -> None:
        """Make the table of files this one, in one step."""
        import pyarrow as arrow

        rows = list(files)
        types = {"path": arrow.binary(), "size": arrow.int64(), "modified_ns": arrow.int64(),
                 "checksum": arrow.string(), "number": arrow.int32(), "problem": arrow.string()}  # fmt: skip
        self._next = self.next_number()
        schema = arrow.schema(types, metadata={"form": _FORM, "next": str(self._next)})
        values = {name: [getattr(row, name) for row in rows] for name in types}
        values["path"] = list(map(os.fsencode, values["path"]))
        columns = [arrow.array(values[name], kind) for name, kind in types.items()]
        self._tables.replace("files", arrow.Table.from_arrays(columns, schema=schema))

    def sweep(self, files: Iterable[FileRow]) -> None:
        """Take away contents that no file has."""
        named = np.array(sorted({row.number for row in files} - {NOTHING}), np.int32)
        places = self._numbers()
        for name in sorted(places, key=lambda name: (not name.startswith("contents"), name)):
            gone = np.setdiff1d(places[name], named)
            if not len(gone):
                continue
            if name.startswith("segments_"):
                own = np.isin(self._tables.column(name, "number"), gone)
                segments = self._tables.column(name, "segment")[own]
                self._tables.delete(name.replace("segments_", "codes_"), among(segments, "segment"))
            self._tables.delete(name, among(gone))

    def tidy(self, at_least: int) -> None:
        """See :meth:`Tables.tidy`."""
        self._tables.tidy(at_least)

    def clear(self) -> None:
        """Forget everything but which numbers were given; where that cannot be read, nobody else can read it."""
        with contextlib.suppress(LibraryError), readable(self.folder):
            if self.files():
                self._next = self.next_number()
        for name in sorted(self._tables.names(), key=lambda name: name != "files"):
            self._tables.drop(name)

    @staticmethod
    def _said(rows: pa.Table, what: str) -> str:
        return (rows.schema.metadata or {}).get(what.encode(), b"").decode()

    def _numbers(self) -> dict[str, np.ndarray]:
        """Numbers of contents by the tables that tell: of codes, those of their segments do."""
        names = [name for name in self._tables.names() if name.startswith(("segments_", "contents"))]
        return {name: np.unique(self._tables.column(name, "number")) for name in names}
