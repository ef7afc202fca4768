# SPDX-License-Identifier: MIT
"""Bringing an index up to date: what is new, changed, moved or gone below its folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nervcodec.errors import ContainerError, LibraryError, explained
from nervcodec.index.reading import Read, read_all
from nervcodec.index.store import NOTHING, PLACE, FileRow, Store
from nervcodec.index.tables import readable
from nervcodec.search.collection import containers_below

try:
    import fcntl
except ImportError:  # not POSIX: whoever runs two writers at once there may lose what one of them wrote
    fcntl = None  # type: ignore[assignment]

_COMMIT_S, _COMMIT_FILES = 5.0, 500  # what was read is written when so much time has passed or so many files are ready
_TIDY_VERSIONS = 24  # from so many versions of a table on it is put in order


@dataclass
class Report:
    """What was done.

    Attributes:
        files: below the folder.
        new, changed, moved, gone: of them; a file that is also elsewhere counts as moved.
        unreadable: why, by path, of all that cannot be searched.
        read: files that were opened.
        rows: codes in the index.
        size_bytes: of the index.
        seconds: it took.
    """

    files: int = 0
    new: int = 0
    changed: int = 0
    moved: int = 0
    gone: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    read: int = 0
    rows: int = 0
    size_bytes: int = 0
    seconds: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.new or self.changed or self.moved or self.gone)

    def to_json(self) -> dict:
        """As ``index --json`` prints it."""
        return asdict(self)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[Store]:
    """The tables of a folder, for one writer at a time; the lock of one that died is gone with it.

    Raises:
        LibraryError: the folder is none or cannot be written, somebody else is writing, or lancedb is not installed.
    """
    if not folder.is_dir():
        raise LibraryError(f"{folder}: is no folder")
    place = folder / PLACE
    with explained(f"{place}: cannot be written", LibraryError):
        place.mkdir(exist_ok=True)
        lock = open(place / "lock", "a+")  # noqa: SIM115  # closed below
    with lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            who = lock.read(20).strip()
            raise LibraryError(
                f"{folder}: its index is being written by another nervcodec (process {who or 'unknown'}); wait for it, "
                "or search meanwhile"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield Store(folder)


class Update:
    """One pass over a folder.

    Args:
        folder: the index's.
        store: its tables, held by :func:`writing`.
        workers: processes that read; None: as many as there are processors, where there is enough to read.
        progress: is told of files read and to be read.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        workers: int | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ):
        self._folder, self._store, self._workers, self._progress = folder, store, workers, progress
        self._rows: dict[str, FileRow] = {}
        self._numbers: dict[str, int] = {}  # by checksum

    def run(self) -> Report:
        """Bring the index up to date.

        Raises:
            LibraryError: the tables cannot be written.
        """
        start = time.perf_counter()
        with explained(f"{self._folder / PLACE}: cannot be written", LibraryError, RuntimeError):
            report = self._run()
            report.rows = self._store.row_count()
        report.size_bytes = sum(
            os.path.getsize(os.path.join(place, name))
            for place, _, names in os.walk(self._folder / PLACE)
            for name in names
        )
        report.seconds = round(time.perf_counter() - start, 3)
        return report

    def _run(self) -> Report:
        with readable(self._folder):
            known = {row.path: row for row in self._store.files()}
        if not known:
            self._store.clear()  # what another form or a writer that was killed at its first step left
        found = {name: (facts.st_size, facts.st_mtime_ns) for name, facts in containers_below(self._folder).items()}
        report = Report(files=len(found))
        self._rows = {name: row for name, row in known.items() if found.get(name) == (row.size, row.modified_ns)}
        elsewhere = {(row.checksum, row.size, row.modified_ns): row for row in known.values() if row.checksum}
        self._numbers = {row.checksum: row.number for row in known.values() if row.number != NOTHING}
        to_read = []
        for name in sorted(found.keys() - self._rows.keys()):
            row = self._moved(name, found[name], elsewhere) if name not in known else None
            if row is not None:
                self._rows[name] = row
                report.moved += 1
            else:
                to_read.append(name)
        report.changed = sum(name in known for name in to_read)
        report.new, report.read = len(to_read) - report.changed, len(to_read)
        old = set(known) - set(found)
        report.gone = max(0, len(old) - report.moved)
        if report.moved or old:
            self._commit()
        self._read(to_read, found)
        report.unreadable = {name: row.problem for name, row in sorted(self._rows.items()) if row.problem}
        if not report.idle:
            self._store.sweep(self._rows.values())
            self._store.tidy(_TIDY_VERSIONS)
        return report

    def _moved(self, name: str, facts: tuple[int, int], elsewhere: dict[tuple, FileRow]) -> FileRow | None:
        """The row of a file that was known under another name; it is not read again."""
        from nervcodec.formats.container import fingerprint

        if not any(key[1:] == facts for key in elsewhere):
            return None
        try:
            checksum = fingerprint(self._folder / name)
        except ContainerError:
            return None
        row = elsewhere.get((checksum, *facts))
        return None if row is None else FileRow(name, *facts, checksum, row.number, row.problem)

    def _read(self, names: list[str], found: dict[str, tuple[int, int]]) -> None:
        """Read files and commit them by and by."""
        ready: list[tuple[str, Read]] = []
        since = time.monotonic()
        for done, (name, read) in enumerate(read_all(self._folder, names, self._workers), 1):
            self._rows.pop(name, None)
            ready.append((name, read))
            self._progress(done, len(names))
            if len(ready) >= _COMMIT_FILES or time.monotonic() - since > _COMMIT_S or done == len(names):
                self._take(ready, found)
                ready, since = [], time.monotonic()

    def _take(self, ready: list[tuple[str, Read]], found: dict[str, tuple[int, int]]) -> None:
        contents = {}
        for _, read in ready:
            if read.content is not None and read.content.checksum not in self._numbers:
                contents[read.content.checksum] = read.content
        if contents:
            self._numbers |= zip(contents, self._store.add(list(contents.values())), strict=True)
        for name, read in ready:
            checksum = read.content.checksum if read.content is not None else ""
            number = self._numbers[checksum] if checksum else NOTHING
            self._rows[name] = FileRow(name, *found[name], checksum, number, read.problem)
        self._commit()

    def _commit(self) -> None:
        self._store.replace_files(self._rows[name] for name in sorted(self._rows))
