# SPDX-License-Identifier: MIT
"""The tables of an index, in ``FOLDER/.nervcodec/``, by LanceDB.

``files``        one row a path: size, time of change, checksum, number of its content, or why it cannot be read
``contents``     one row a content: its number, checksum, encoder, and its embeddings as ``EmbeddingIndex.to_bytes``
``segments_...`` one row a segment: its number and its content's, basis and mean; such a table and
``codes_...``    one row a stored code and patch, with its segment's number, for each encoder and width

A content is written in the order segments, codes, contents, files, and what no row of ``files`` names does not exist:
whoever is killed in between leaves rows that nobody reads and that the next writer removes. They are taken away in the
opposite order. Numbers are never given twice; a content has that of its first segment. So a reader, who takes
``files`` first, needs no lock.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nervcodec.device import keep_memory
from nervcodec.errors import LibraryError
from nervcodec.formats.container import digest
from nervcodec.library.pack import PackedSegment

if TYPE_CHECKING:
    import pyarrow as pa

PLACE = ".nervcodec"
NOTHING = -1  # in place of a content's number, of a file that cannot be searched
_FORM = "1"  # of the tables; an index of another form is made anew
_KEPT = timedelta(minutes=10)  # old versions stay so long for readers that are in the middle of them
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

    @property
    def rows(self) -> int:
        """Codes."""
        return sum(len(segment.codes) for segment in self.segments)


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


@dataclass(frozen=True)
class Contents:
    """All contents of an index, without their embeddings, and the number of each by its checksum."""

    numbers: np.ndarray
    kinds: list[Kind]
    by_checksum: dict[str, int]


def compressed(embeddings: bytes) -> bytes:
    """As contents hold them."""
    return zlib.compress(embeddings, _COMPRESSION)


def exists(folder: Path) -> bool:
    """Whether a folder has an index of its own; lancedb is not imported."""
    return (folder / PLACE / "files.lance").is_dir()


def available() -> bool:
    """Whether lancedb is installed."""
    from importlib.util import find_spec

    return find_spec("lancedb") is not None


class Store:
    """The tables.

    Args:
        folder: whose ``.nervcodec`` holds them; it is there.

    Raises:
        LibraryError: lancedb is not installed, or the tables cannot be read.
    """

    def __init__(self, folder: Path):
        keep_memory(arenas=1)  # what is read comes and goes by megabytes: fresh pages took a third of the time
        lancedb = _lancedb()
        import pyarrow

        self.folder, self._arrow = folder, pyarrow
        self._base = lancedb.connect(folder / PLACE)
        self._next = 0  # no number from here on was given by whoever wrote the table of files

    # ------------------------------------------------------------------ reading

    def files(self) -> list[FileRow]:
        """The rows of ``files``, none where the index is new or of another form."""
        table = self._table("files")
        if table is None:
            return []
        rows = table.to_arrow()
        if self._said(rows, "form") != _FORM:
            return []
        self._next = int(self._said(rows, "next"))
        columns = [rows[name].to_pylist() for name in ("path", "size", "modified_ns", "checksum", "number", "problem")]
        return [FileRow(*values) for values in zip(*columns, strict=True)]

    def contents(self) -> Contents:
        """What contents there are."""
        table = self._table("contents")
        if table is None:
            return Contents(np.zeros(0, np.int32), [], {})
        rows = self._read(table, ["number", "checksum", "encoder", "dimension", "width"]).read_all()
        numbers = rows["number"].to_numpy()
        parts = (rows[name].to_pylist() for name in ("encoder", "dimension", "width"))
        kinds = [Kind(*part) for part in zip(*parts, strict=True)]
        return Contents(numbers, kinds, dict(zip(rows["checksum"].to_pylist(), numbers.tolist(), strict=True)))

    def embeddings(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """``EmbeddingIndex.to_bytes`` of some contents by their numbers; what is gone meanwhile is missing."""
        table = self._table("contents")
        if table is None or not len(numbers):
            return {}
        rows = self._read(table, ["number", "embeddings"], _among(numbers)).read_all()
        found = zip(rows["number"].to_pylist(), rows["embeddings"], strict=True)
        return {number: zlib.decompress(blob.as_buffer()) for number, blob in found}

    def segments(self, kind: Kind) -> Iterator[pa.RecordBatch]:
        """Rows of a table of segments, in the order they were written."""
        columns = ["number", "segment", "patches", "steps", "mean", "directions"]
        return self._batches(f"segments_{kind.name}", columns, _BATCH_SEGMENTS)

    def codes(self, kind: Kind) -> Iterator[pa.RecordBatch]:
        """Rows of a table of codes, in the order they were written."""
        columns = ["segment", "length", "middle_weight", "middle_length", "code"]
        return self._batches(f"codes_{kind.name}", columns, _BATCH_ROWS)

    def row_count(self) -> int:
        """Codes in all tables."""
        return sum(self._base.open_table(name).count_rows() for name in self._names() if name.startswith("codes_"))

    # ------------------------------------------------------------------ writing

    def next_number(self) -> int:
        """One that was never given to a content that left a trace."""
        traces = [self._column(name, "segment") for name in self._names() if name.startswith("segments_")]
        return max([self._next, *(1 + int(trace.max()) for trace in traces if len(trace))])

    def add(self, contents: Sequence[Content]) -> list[int]:
        """Write contents and return their numbers; they exist once :meth:`replace_files` names them."""
        ends = self.next_number() + np.cumsum([0, *(len(content.segments) for content in contents)])
        numbered = list(zip(ends.tolist(), contents, strict=False))
        for kind in sorted({content.kind for content in contents}):
            own = [(n, *entry) for n, c in numbered if c.kind == kind for entry in enumerate(c.segments)]
            self._append(f"segments_{kind.name}", self._segment_rows(own))
            self._append(f"codes_{kind.name}", self._code_rows(own))
        arrow = self._arrow
        rows = {
            "number": arrow.array([number for number, _ in numbered], arrow.int32()),
            "checksum": arrow.array([content.checksum for content in contents], arrow.string()),
            "encoder": arrow.array([content.encoder for content in contents], arrow.string()),
            "dimension": arrow.array([content.dimension for content in contents], arrow.int32()),
            "width": arrow.array([content.width for content in contents], arrow.int32()),
            "embeddings": arrow.array([content.embeddings for content in contents], arrow.large_binary()),
        }
        self._append("contents", arrow.table(rows))
        return [number for number, _ in numbered]

    def replace_files(self, files: Iterable[FileRow]) -> None:
        """Make the table of files this one, in one step."""
        arrow, rows = self._arrow, list(files)
        types = {"path": arrow.string(), "size": arrow.int64(), "modified_ns": arrow.int64(),
                 "checksum": arrow.string(), "number": arrow.int32(), "problem": arrow.string()}  # fmt: skip
        self._next = self.next_number()
        schema = arrow.schema(types, metadata={"form": _FORM, "next": str(self._next)})
        columns = [arrow.array([getattr(row, name) for row in rows], kind) for name, kind in types.items()]
        table = arrow.Table.from_arrays(columns, schema=schema)
        if self._table("files") is None:
            self._base.create_table("files", table)
        else:
            self._base.create_table("files", table, mode="overwrite")

    def sweep(self, files: Iterable[FileRow]) -> None:
        """Take away contents that no file has."""
        named = np.array(sorted({row.number for row in files} - {NOTHING}), np.int32)
        places = self._numbers()
        for name in sorted(places, key=lambda name: (not name.startswith("contents"), name)):
            gone = np.setdiff1d(places[name], named)
            if not len(gone):
                continue
            if name.startswith("segments_") and (codes := self._table(f"codes_{name.removeprefix('segments_')}")):
                segments = self._column(name, "segment")[np.isin(self._column(name, "number"), gone)]
                codes.delete(_among(segments, "segment"))
            self._base.open_table(name).delete(_among(gone))

    def tidy(self, at_least: int) -> None:
        """Join small pieces of tables that have at least so many, and let go of versions that nobody reads any more."""
        for name in self._names():
            table = self._base.open_table(name)
            versions = table.list_versions()
            if len(versions) >= at_least and datetime.now() - versions[0]["timestamp"] > _KEPT:
                table.optimize(cleanup_older_than=_KEPT)

    def clear(self) -> None:
        """Forget everything."""
        for name in sorted(self._names(), key=lambda name: name != "files"):
            self._base.drop_table(name)

    # ------------------------------------------------------------------ in detail

    @staticmethod
    def _said(rows: pa.Table, what: str) -> str:
        return (rows.schema.metadata or {}).get(what.encode(), b"").decode()

    def _names(self) -> list[str]:
        names: list[str] = []
        token = None
        while True:
            page = self._base.list_tables(page_token=token)
            names += page.tables
            token = page.page_token
            if not token:
                return names

    def _table(self, name: str) -> Any:
        try:
            return self._base.open_table(name)
        except ValueError:  # there is none of that name
            return None

    def _read(self, table: Any, columns: list[str], where: str | None = None) -> pa.RecordBatchReader:
        query = table.search().select(columns)
        if where is not None:
            query = query.where(where)
        return query.limit(max(1, table.count_rows())).to_batches(_BATCH_ROWS)

    def _batches(self, name: str, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        table = self._table(name)
        if table is not None:
            yield from table.search().select(columns).limit(max(1, table.count_rows())).to_batches(rows)

    def _numbers(self) -> dict[str, np.ndarray]:
        """Numbers of contents by the tables that tell: of codes, those of their segments do."""
        names = [name for name in self._names() if name.startswith(("segments_", "contents"))]
        return {name: np.unique(self._column(name, "number")) for name in names}

    def _column(self, name: str, column: str) -> np.ndarray:
        return self._read(self._base.open_table(name), [column]).read_all()[column].to_numpy()

    def _append(self, name: str, rows: pa.Table) -> None:
        table = self._table(name)
        if table is None:
            self._base.create_table(name, rows)
        else:
            table.add(rows)

    def _segment_rows(self, numbered: list[tuple[int, int, PackedSegment]]) -> pa.Table:
        """Of contents' numbers, and segments with their places in them."""
        arrow, segments = self._arrow, [segment for _, _, segment in numbered]
        return arrow.table({
            "number": arrow.array([number for number, _, _ in numbered], arrow.int32()),
            "segment": arrow.array([number + place for number, place, _ in numbered], arrow.int32()),
            "patches": arrow.array([segment.patches for segment in segments], arrow.int32()),
            "steps": self._lists(np.stack([segment.steps for segment in segments])),
            "mean": self._lists(np.stack([segment.mean for segment in segments])),
            "directions": self._lists(np.stack([segment.directions.ravel() for segment in segments])),
        })  # fmt: skip

    def _code_rows(self, numbered: list[tuple[int, int, PackedSegment]]) -> pa.Table:
        arrow, segments = self._arrow, [segment for _, _, segment in numbered]
        counts = [len(segment.codes) for segment in segments]

        def joined(part: str) -> np.ndarray:
            return np.concatenate([getattr(segment, part) for segment in segments])

        entry_and_patch = [np.divmod(np.arange(len(s.codes), dtype=np.int32), s.patches) for s in segments]
        return arrow.table({
            "segment": arrow.array(np.repeat(np.array([n + place for n, place, _ in numbered], np.int32), counts)),
            "entry": arrow.array(np.concatenate([entry for entry, _ in entry_and_patch])),
            "patch": arrow.array(np.concatenate([patch for _, patch in entry_and_patch])),
            "length": arrow.array(joined("lengths")),
            "middle_weight": arrow.array(joined("middle_weights")),
            "middle_length": arrow.array(joined("middle_lengths")),
            "code": self._lists(joined("codes")),
        })  # fmt: skip

    def _lists(self, rows: np.ndarray) -> pa.FixedSizeListArray:
        return self._arrow.FixedSizeListArray.from_arrays(self._arrow.array(rows.ravel()), rows.shape[1])


def _among(numbers: Iterable[int], column: str = "number") -> str:
    return f"{column} IN ({', '.join(str(int(number)) for number in numbers)})"


def _lancedb() -> Any:
    """The package. Of two seconds that importing it takes, it spends more than half on a client for servers, of which
    pydantic makes hundreds of models and checkers that a folder never needs; they are made later, or not at all.
    """
    try:
        import pydantic

        before = pydantic.validate_call, pydantic.BaseModel.model_config
        pydantic.validate_call = _unchecked
        pydantic.BaseModel.model_config = {**before[1], "defer_build": True}
        try:
            import lancedb
        finally:
            pydantic.validate_call, pydantic.BaseModel.model_config = before
    except ImportError:
        raise LibraryError('an index needs LanceDB: pip install "nervcodec[library]"') from None
    return lancedb


def _unchecked(function: Any = None, **_: Any) -> Any:
    """In place of ``pydantic.validate_call``, with or without arguments."""
    return function if function is not None else _unchecked
