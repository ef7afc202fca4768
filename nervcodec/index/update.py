# SPDX-License-Identifier: MIT
"""Update of an index: new, changed, moved and deleted files below its folder."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from nervcodec.errors import ContainerError, FolderIndexError, NervError, wrap_os_error
from nervcodec.formats.container import fingerprint
from nervcodec.index import store
from nervcodec.index.store import Content, FileRow, Kind, Store, compress, explain_errors
from nervcodec.search.files import containers_below
from nervcodec.search.scores import QuantizedSegment, VideoEmbeddings

try:
    import fcntl
except ImportError:  # not POSIX: nothing stops a second writer; SQLite still keeps the database consistent
    fcntl = None  # type: ignore[assignment]

_COMMIT_S, _COMMIT_FILES = 5.0, 500  # files that were read are committed after this time or this number of them
_MIN_PARALLEL_FILES = 100  # with fewer, starting processes takes longer than it saves
_CHUNK_FILES = 8  # that a process reads at a time
_LEVELS = 127
_WIDTH_STEP = 32  # code widths are multiples of this, so that few kinds occur


@dataclass
class Report:
    """What an update did.

    Attributes:
        files: below the folder.
        new, changed, moved, gone: of them; a file that also exists under another path counts as moved.
        unreadable: reason by path of all files that cannot be searched.
        read: files that were opened.
        rows: codes in the index.
        size_bytes: of the index.
        seconds: duration.
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
        """Whether the index was up to date."""
        return not (self.new or self.changed or self.moved or self.gone)

    def to_json(self) -> dict:
        """As ``index --json`` prints it."""
        return asdict(self)


@contextlib.contextmanager
def open_writable(folder: Path, force: bool = False) -> Iterator[Store]:
    """Open the index of a folder for the only writer. The lock of a process that died is released by the system.

    Args:
        folder: the indexed folder.
        force: empty the index first, or replace it if it is damaged.

    Raises:
        FolderIndexError: not a folder, not writable, damaged, or another process is writing.
    """
    if not folder.is_dir():
        raise FolderIndexError(f"{folder}: is not a folder")
    index = folder / store.FOLDER
    try:
        index.mkdir(exist_ok=True)
        lock = open(index / "lock", "a+")  # noqa: SIM115  # closed below
    except OSError as error:
        raise FolderIndexError(
            f"{index}: cannot be written ({error.strerror}); search works without an index, or index a writable copy"
        ) from None
    with lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            process = lock.read(20).strip() or "unknown"
            raise FolderIndexError(
                f"{folder}: its index is being written by another nervcodec (process {process}); wait for it, or "
                "search meanwhile"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        if force:
            _empty(folder)
        with Store(folder, writable=True) as opened:
            yield opened


def _empty(folder: Path) -> None:
    """Remove all files of an index; the database is replaced only if it is damaged, since others may be reading it."""
    try:
        with Store(folder, writable=True) as opened, explain_errors(folder):
            opened.clear()
            opened.compact()
    except FolderIndexError:
        with wrap_os_error(f"{folder / store.FOLDER}: cannot be written", FolderIndexError):
            Store.delete(folder)


def update(
    opened: Store, workers: int | None = None, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Report:
    """Bring an index up to date.

    Args:
        opened: from :func:`open_writable`.
        workers: processes that read; None: one per processor if there are enough files to read.
        progress: called with the number of files read and to be read.

    Raises:
        FolderIndexError: the database cannot be read or written.
    """
    start, folder = time.perf_counter(), opened.folder
    with explain_errors(folder):
        report = _update(opened, workers, progress)
        report.rows = opened.code_count()
    _remove_lancedb_tables(folder)
    report.size_bytes = store.size_bytes(folder)
    report.seconds = round(time.perf_counter() - start, 3)
    return report


def _update(opened: Store, workers: int | None, progress: Callable[[int, int], None]) -> Report:
    stored = opened.files()
    stats = {path: (stat.st_size, stat.st_mtime_ns) for path, stat in containers_below(opened.folder).items()}
    current = {path: row for path, row in stored.items() if stats.get(path) == (row.size, row.modified_ns)}
    by_content = {(row.checksum, row.size, row.modified_ns): row for row in stored.values() if row.checksum}
    known_stats = {key[1:] for key in by_content}
    moved, unread = [], []
    for path in sorted(stats.keys() - current.keys()):
        checksum = _checksum(opened.folder / path) if path not in stored and stats[path] in known_stats else None
        if (checksum, *stats[path]) in by_content:
            moved.append(FileRow(path, *stats[path], checksum))
        else:
            unread.append(path)
    deleted = stored.keys() - stats.keys()
    report = Report(files=len(stats), moved=len(moved), read=len(unread), gone=max(0, len(deleted) - len(moved)))
    report.changed = sum(path in stored for path in unread)
    report.new = len(unread) - report.changed
    if moved or deleted:
        with opened.transaction():
            opened.remove(deleted)
            opened.add([], moved)
    problems = {path: row.problem for path, row in current.items() if row.problem}
    batch: list[tuple[FileRow, Content | None]] = []
    committed = time.monotonic()
    for done, (path, result) in enumerate(read_all(opened.folder, unread, workers), 1):
        if isinstance(result, Content):
            batch.append((FileRow(path, *stats[path], result.checksum), result))
        else:
            batch.append((FileRow(path, *stats[path], None, result), None))
            problems[path] = result
        progress(done, len(unread))
        if len(batch) >= _COMMIT_FILES or time.monotonic() - committed > _COMMIT_S or done == len(unread):
            with opened.transaction():
                opened.add((content for _, content in batch if content is not None), (row for row, _ in batch))
            batch, committed = [], time.monotonic()
    report.unreadable = dict(sorted(problems.items()))
    with opened.transaction():
        opened.remove_unused()
    opened.compact()
    return report


def _checksum(path: Path) -> str | None:
    try:
        return fingerprint(path)
    except ContainerError:
        return None


def _remove_lancedb_tables(folder: Path) -> None:
    """Remove the tables of an earlier nervcodec, which the database replaces."""
    for table in (folder / store.FOLDER).glob("*.lance"):
        shutil.rmtree(table, ignore_errors=True)


# ---------------------------------------------------------------------- reading containers


def read(path: Path) -> Content | str:
    """The embeddings of a container for the index, or the reason why it cannot be searched. No pixel is decoded."""
    try:
        checksum = fingerprint(path)
        embeddings = VideoEmbeddings.read(path, "cpu")
        if fingerprint(path) != checksum:
            return "was replaced by another while it was read"
    except NervError as error:
        return str(error).removeprefix(f"{path}: ")
    rank = max(len(segment.basis) for segment in embeddings.segments)
    kind = Kind(embeddings.encoder, embeddings.dimension, -(-rank // _WIDTH_STEP) * _WIDTH_STEP)
    segments = tuple(pack(segment, kind) for segment in embeddings.segments)
    return Content(checksum, embeddings.source, kind, compress(embeddings.to_bytes()), segments)


def read_all(folder: Path, names: Sequence[str], workers: int | None = None) -> Iterator[tuple[str, Content | str]]:
    """:func:`read` files in order, in worker processes if there are many.

    Args:
        folder: names are relative to it.
        names: files.
        workers: processes; None: one per processor, none for a few files.
    """
    if workers is None:
        workers = (os.cpu_count() or 1) if len(names) > _MIN_PARALLEL_FILES else 1
    done = 0
    if workers > 1 and names:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
        try:
            results = pool.map(partial(_read_below, folder), names, chunksize=_CHUNK_FILES)
            for done, result in enumerate(results, 1):
                yield names[done - 1], result
        except BrokenProcessPool:  # a worker died, for lack of memory perhaps: the rest is read below
            pass
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    for name in names[done:]:
        yield name, read(folder / name)


def _read_below(folder: Path, name: str) -> Content | str:
    return read(folder / name)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent process, and end with it, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def pack(segment: QuantizedSegment, kind: Kind) -> tuple[bytes, bytes]:
    """A segment as the index stores it: what its scores depend on, in 8 bits where that suffices.

    Fields of the basis: ``patches`` in a frame, ``mean``, and ``directions``, the basis times the unit of each
    coefficient, in units of ``steps``. Fields of a code, for each stored frame and patch: ``values``, the
    coefficients padded with zeros, and ``length`` of the embedding before it is normalised. Halfway to the next
    stored frame an embedding may match better than at both: ``middle_weight`` is the weight of the next one in the
    frame nearest to the middle, ``middle_length`` the length there; 0 and ``length`` if no frame lies between.

    Returns:
        Bytes of ``kind.basis_type`` and of ``(frames * patches,)`` of ``kind.code_type``, frame by frame.
    """
    frames, patches, rank = segment.coefficients.shape
    basis = segment.basis.astype(np.float32)
    directions = np.zeros((kind.width, kind.dimension), np.float32)
    directions[:rank] = segment.scale[:, None] * basis
    stored = np.zeros((), kind.basis_type)
    stored["patches"], stored["mean"] = patches, segment.mean
    stored["steps"] = np.maximum(np.abs(directions).max(axis=1) / _LEVELS, 1e-30)
    stored["directions"] = np.rint(directions / stored["steps"][:, None])
    vectors = (segment.coefficients * segment.scale) @ basis + segment.mean.astype(np.float32)
    codes = np.zeros((frames, patches), kind.code_type)
    codes["values"][..., :rank] = segment.coefficients
    codes["length"] = codes["middle_length"] = np.maximum(np.linalg.norm(vectors, axis=-1), 1e-4)
    between = np.flatnonzero((segment.after == segment.before + 1) & (segment.weight > 0) & (segment.weight < 1))
    # Of the frames after a stored one, the last assignment stays: the frame nearest to the middle.
    order = between[np.argsort(-np.abs(segment.weight[between] - 0.5), kind="stable")]
    codes["middle_weight"][segment.before[order]] = segment.weight[order, None]
    codes["middle_length"][segment.before[order]] = np.maximum(segment.lengths[order], 1e-4)
    return stored.tobytes(), codes.tobytes()
