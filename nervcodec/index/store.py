# SPDX-License-Identifier: MIT
"""The SQLite database of a folder's index: ``FOLDER/.nervcodec/index.sqlite3``.

``files``       one row per path (bytes, since a name need not be valid text): size, modification time and content, or
                the reason why the file cannot be searched
``contents``    one row per distinct content, shared by its copies: checksum, video and kind of its
                embeddings
``segments``    basis and 8-bit codes of each segment; a query reads all of them
``embeddings``  ``VideoEmbeddings.to_bytes`` of each content, compressed; a query reads those of the best candidates

Each change is one transaction, so a process that is killed at any moment leaves the state before or after it: SQLite
undoes an unfinished one from its rollback journal when the database is next opened. Readers hold one read transaction
for a query and see one state. The journal mode is DELETE: WAL needs shared memory, which network folders and folders
without write permission do not provide.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nervcodec.errors import FolderIndexError

FOLDER, _DATABASE, _LANCEDB_TABLE = ".nervcodec", "index.sqlite3", "files.lance"
_VERSION = 4  # of the schema, as user_version; 1 and 2 were LanceDB tables
_PAGE_BYTES, _CACHE_KB = 16_384, 8_192
_READ_TIMEOUT_S, _WRITE_TIMEOUT_S = 30.0, 300.0  # wait for the lock of another process
_MAX_FREE = 0.5  # of the pages: a database with more unused ones is rewritten
_COMPRESSION = 1
_SCHEMA = """
CREATE TABLE contents (
    number INTEGER PRIMARY KEY, checksum TEXT NOT NULL UNIQUE, source TEXT NOT NULL,
    encoder TEXT NOT NULL, dimension INTEGER NOT NULL, width INTEGER NOT NULL);
CREATE TABLE segments (
    content INTEGER NOT NULL REFERENCES contents ON DELETE CASCADE, basis BLOB NOT NULL, codes BLOB NOT NULL);
CREATE INDEX segments_by_content ON segments (content);
CREATE TABLE embeddings (
    content INTEGER PRIMARY KEY REFERENCES contents ON DELETE CASCADE, data BLOB NOT NULL);
CREATE TABLE files (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL,
    content INTEGER REFERENCES contents, problem TEXT NOT NULL);
CREATE INDEX files_by_content ON files (content);
"""


@dataclass(frozen=True)
class FileRow:
    """One file of the index.

    Attributes:
        path: relative to the folder, with slashes.
        size, modified_ns: of the file when it was read.
        checksum: of its content; None if it cannot be searched.
        problem: why it cannot be searched, without the path, or empty.
        content: number of its content; None if it cannot be searched, or is not stored yet.
    """

    path: str
    size: int
    modified_ns: int
    checksum: str | None
    problem: str = ""
    content: int | None = None


@dataclass(frozen=True, order=True)
class Kind:
    """What the codes that one query vector is compared with have in common.

    Attributes:
        encoder: name of the reference encoder.
        dimension: numbers in an embedding, ``D``.
        width: numbers in a code, ``W``.
    """

    encoder: str
    dimension: int
    width: int

    @property
    def basis_type(self) -> np.dtype:
        """The basis of a segment, in which ``patches`` codes make a frame; see :func:`nervcodec.index.update.pack`."""
        fields = [("patches", "<i4"), ("mean", "<f4", self.dimension), ("steps", "<f4", self.width)]
        return np.dtype([*fields, ("directions", "i1", (self.width, self.dimension))])

    @property
    def code_type(self) -> np.dtype:
        """The code of one patch."""
        fields = [("length", "<f4"), ("middle_weight", "<f4"), ("middle_length", "<f4")]
        return np.dtype([*fields, ("values", "i1", self.width)])


@dataclass(frozen=True)
class Content:
    """The embeddings of a container, ready to be stored.

    Attributes:
        checksum: of the container.
        source: ``VideoEmbeddings.source``.
        kind: of its codes.
        embeddings: from :func:`compress`.
        segments: basis and codes of each segment, bytes of the types that ``kind`` gives.
    """

    checksum: str
    source: str
    kind: Kind
    embeddings: bytes
    segments: tuple[tuple[bytes, bytes], ...]


def compress(embeddings: bytes) -> bytes:
    """``VideoEmbeddings.to_bytes`` as :class:`Content` holds it."""
    return zlib.compress(embeddings, _COMPRESSION)


def has_index(folder: Path) -> bool:
    """Whether a folder has an index of its own, be it one of an earlier nervcodec."""
    return any((folder / FOLDER / name).exists() for name in (_DATABASE, _LANCEDB_TABLE))


def has_lancedb_tables(folder: Path) -> bool:
    """Whether a folder has tables of an earlier nervcodec, which kept its index in LanceDB."""
    return (folder / FOLDER / _LANCEDB_TABLE).exists()


@contextlib.contextmanager
def explain_errors(folder: Path) -> Iterator[None]:
    """Turn any error that a database raises which cannot be read or written into a FolderIndexError."""
    try:
        yield
    except sqlite3.OperationalError as error:  # locked, disk full, no permission: nothing is wrong with the database
        raise FolderIndexError(f"{folder}: its index cannot be used ({error})") from None
    except (sqlite3.Error, OSError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise FolderIndexError(
            f"{folder}: its index cannot be read ({reason}); nervcodec index --force {folder} rebuilds it"
        ) from None


class Store:
    """An open database. A reader holds a read transaction until :meth:`close`.

    Args:
        folder: the indexed folder.
        writable: create the database if there is none, replace one of another schema.

    Raises:
        FolderIndexError: the database is of another schema, or cannot be opened.
    """

    def __init__(self, folder: Path, writable: bool = False):
        self.folder, self._path = folder, folder / FOLDER / _DATABASE
        with explain_errors(folder):
            self._database = self._open_writable() if writable else self._open_readable()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the read transaction."""
        self._database.close()

    # ------------------------------------------------------------------ reading

    def files(self) -> dict[str, FileRow]:
        """All files by their paths."""
        rows = self._database.execute(
            "SELECT path, size, modified_ns, checksum, problem, content "
            "FROM files LEFT JOIN contents ON content = number"
        )
        return {row.path: row for row in (FileRow(os.fsdecode(path), *values) for path, *values in rows)}

    def kinds(self) -> dict[int, Kind]:
        """The kind of every content by its number."""
        rows = self._database.execute("SELECT number, encoder, dimension, width FROM contents")
        kinds: dict[tuple, Kind] = {}
        return {number: kinds.setdefault(tuple(values), Kind(*values)) for number, *values in rows}

    def sources(self) -> dict[int | None, str]:
        """``VideoEmbeddings.source`` of every content by its number."""
        return dict(self._database.execute("SELECT number, source FROM contents"))

    def segments(self, kind: Kind) -> Iterator[tuple[int, bytes, bytes]]:
        """Number of the content, basis and codes of every segment of one kind."""
        yield from self._database.execute(
            "SELECT content, basis, codes FROM segments JOIN contents ON content = number "
            "WHERE encoder = ? AND dimension = ? AND width = ?",
            (kind.encoder, kind.dimension, kind.width),
        )

    def embeddings(self, content: int | None) -> bytes:
        """``VideoEmbeddings.to_bytes`` of a content."""
        row = self._database.execute("SELECT data FROM embeddings WHERE content = ?", (content,)).fetchone()
        if row is None:
            raise ValueError("embeddings are missing")
        return zlib.decompress(row[0])

    def code_count(self) -> int:
        """Codes in the index."""
        rows = self._database.execute("SELECT content, length(codes) FROM segments")
        sizes = {number: kind.code_type.itemsize for number, kind in self.kinds().items()}
        return sum(length // sizes[content] for content, length in rows)

    # ------------------------------------------------------------------ writing

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes of the block are stored at its end, or none of them."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def add(self, contents: Iterable[Content], files: Iterable[FileRow]) -> None:
        """Store contents that are not there yet, and files, whose contents are given by their checksums."""
        for content in contents:
            kind = content.kind
            cursor = self._database.execute(
                "INSERT OR IGNORE INTO contents (checksum, source, encoder, dimension, width) VALUES (?, ?, ?, ?, ?)",
                (content.checksum, content.source, kind.encoder, kind.dimension, kind.width),
            )
            if cursor.rowcount:
                number = cursor.lastrowid
                self._database.execute("INSERT INTO embeddings VALUES (?, ?)", (number, content.embeddings))
                rows = ((number, basis, codes) for basis, codes in content.segments)
                self._database.executemany("INSERT INTO segments VALUES (?, ?, ?)", rows)
        self._database.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, (SELECT number FROM contents WHERE checksum = ?), ?)",
            ((os.fsencode(f.path), f.size, f.modified_ns, f.checksum, f.problem) for f in files),
        )

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; their contents stay until :meth:`remove_unused`."""
        self._database.executemany("DELETE FROM files WHERE path = ?", ((os.fsencode(path),) for path in paths))

    def remove_unused(self) -> None:
        """Remove contents that no file has."""
        self._database.execute(
            "DELETE FROM contents WHERE number NOT IN (SELECT content FROM files WHERE content IS NOT NULL)"
        )

    def compact(self) -> None:
        """Rewrite the database if more than half of it is unused."""
        free, pages = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count")
        )
        if free > _MAX_FREE * pages:
            self._database.execute("VACUUM")

    def clear(self) -> None:
        """Remove all files and contents."""
        with self.transaction():
            for table in ("files", "segments", "embeddings", "contents"):
                self._database.execute(f"DELETE FROM {table}")

    # ------------------------------------------------------------------ opening

    def _open_readable(self) -> sqlite3.Connection:
        if not self._path.exists():
            raise FolderIndexError(self._outdated())
        # A process that may write also undoes what a killed writer left unfinished.
        mode = "rw" if os.access(self._path, os.W_OK) and os.access(self._path.parent, os.W_OK) else "ro"
        database = self._connect(mode, _READ_TIMEOUT_S)
        database.execute("PRAGMA query_only = ON")
        database.execute("BEGIN")
        if self._version(database) != _VERSION:
            database.close()
            raise FolderIndexError(self._outdated())
        return database

    def _open_writable(self) -> sqlite3.Connection:
        database = self._connect("rwc", _WRITE_TIMEOUT_S)
        if self._version(database) not in (0, _VERSION):
            database.close()
            self.delete(self.folder)
            database = self._connect("rwc", _WRITE_TIMEOUT_S)
        database.execute("PRAGMA foreign_keys = ON")
        if self._version(database) == 0:
            database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            # The version is part of the transaction: a reader sees the whole schema or none.
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        return database

    def _connect(self, mode: str, timeout_s: float) -> sqlite3.Connection:
        address = f"{self._path.absolute().as_uri()}?mode={mode}"
        database = sqlite3.connect(address, timeout_s, isolation_level=None, check_same_thread=False, uri=True)
        database.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        return database

    @staticmethod
    def _version(database: sqlite3.Connection) -> int:
        return database.execute("PRAGMA user_version").fetchone()[0]

    def _outdated(self) -> str:
        return f"{self.folder}: its index is of another version of nervcodec; nervcodec index {self.folder} rebuilds it"

    @staticmethod
    def delete(folder: Path) -> None:
        """Delete the database, which may be damaged; nobody else may be writing it."""
        for suffix in ("", "-journal"):  # in this order: a journal without its database is ignored
            (folder / FOLDER / f"{_DATABASE}{suffix}").unlink(missing_ok=True)


def size_bytes(folder: Path) -> int:
    """Bytes of the index's files."""
    return sum(file.stat().st_size for file in (folder / FOLDER).rglob("*") if file.is_file())
