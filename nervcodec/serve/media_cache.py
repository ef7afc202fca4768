# SPDX-License-Identifier: MIT
"""MP4 files to play, made by a worker process and cached on disk; H.264 can be streamed while it is coded."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import shutil
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from nervcodec.errors import NervError, VideoError, wrap_os_error
from nervcodec.formats.container import fingerprint
from nervcodec.formats.header import Header
from nervcodec.media import mux
from nervcodec.semantic import cache
from nervcodec.serve import stills, transcode
from nervcodec.serve.store import FileEntry
from nervcodec.worker import Worker

_STALE_S = 3600.0  # since the last change, after which what a killed server left is deleted
_IN_USE_S = 60.0  # since the last request, in which a file is not deleted: a browser asks for the next part of it
_COPYING_S = 3600.0  # that copying packets may take
_WANTED_S = 20.0  # since the last request, in which coding continues
_BLOCK_BYTES = 32_768  # Chromium gives its demuxer a response in whole blocks of this size


class Coding:
    """H.264 of one container, coded in pieces: first those that a stream waits for, then all others.

    To be used in one event loop.

    Args:
        entry: the container.
        header: of it.
        target: the MP4 file that is made of all pieces.
        worker: codes them.

    Attributes:
        folder: of the pieces.
        error: why coding ended early, or None.
        streams: how many are being sent.
    """

    def __init__(self, entry: FileEntry, header: Header, target: Path, worker: Worker):
        self._entry, self._header, self._target, self._worker = entry, header, target, worker
        self.folder = target.with_suffix(".parts")
        self._pieces = transcode.pieces(header)
        self._done: set[int] = set()  # by their first frames, as all pieces are named
        self._awaited: dict[int, None] = {}
        self._next, self._requested = 0, 0.0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.error: NervError | None = None
        self.streams = 0

    @property
    def is_active(self) -> bool:
        """Whether pieces are being coded or sent."""
        return self.streams > 0 or (self._task is not None and not self._task.done())

    @property
    def frames(self) -> list[tuple[int, int]]:
        """What is coded, as ranges of frames: (first, one after the last)."""
        ranges: list[tuple[int, int]] = []
        for first in self._pieces:
            if first in self._done:
                begins = ranges.pop()[0] if ranges and ranges[-1][1] == first else first
                ranges.append((begins, transcode.piece_end(self._header, first)))
        return ranges

    def start(self, again: bool = False) -> None:
        """Begin or go on with coding.

        Args:
            again: even after an error.
        """
        self._requested = time.monotonic()
        if again and not self.is_active:
            self.error = None
        if self.error is None and (self._task is None or self._task.done()) and not self._target.exists():
            names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
            self._done = {int(name) for name in names if name.isdecimal()}  # another server may have coded some
            self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        try:
            while self.streams or time.monotonic() - self._requested < _WANTED_S:
                order = itertools.chain(self._awaited, self._pieces[self._next :], self._pieces[: self._next])
                first = next((each for each in order if each not in self._done), None)
                if first is None:
                    join = partial(transcode.join_pieces, self._entry.file, self.folder, self._target)
                    await asyncio.to_thread(self._worker.call, join, timeout_s=_COPYING_S)
                    return
                file, version = self._entry.file, self._entry.version
                await asyncio.to_thread(self._worker.call, transcode.code_piece, file, version, first, self.folder)
                self._done.add(first)
                self._awaited.pop(first, None)
                self._next = bisect.bisect_right(self._pieces, first)
                self._notify()
        except Exception as error:  # told to whoever waits
            self.error = error if isinstance(error, NervError) else NervError(f"internal error: {error!r}")
        finally:
            self._task = None
            self._notify()
            self._clean()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _clean(self) -> None:
        if self._target.exists() and not self.streams:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def wait(self) -> None:
        """Wait for the target.

        Raises:
            NervError: what went wrong.
        """
        while not self._target.exists():
            self.start()
            if self.error is not None:
                raise self.error
            await self._changed.wait()

    async def stream(self, frame: int) -> AsyncGenerator[bytes, None]:
        """A fragmented MP4 file from a frame to the end of the video, each piece once it is coded.

        A ``free`` box pads each part to whole blocks, so that Chromium plays it before the next part is sent.

        Raises:
            NervError: what went wrong.
        """
        self.streams += 1
        try:
            for first in (frame, *(each for each in self._pieces if each > frame)):
                while first not in self._done:
                    self._awaited[first] = None
                    self.start()
                    if self.error is not None:
                        raise self.error
                    await self._changed.wait()
                names = (transcode.HEAD, str(first)) if first == frame else (str(first),)
                yield _padded(b"".join((self.folder / name).read_bytes() for name in names))
        finally:
            self.streams -= 1
            self._clean()


def _padded(boxes: bytes) -> bytes:
    """Boxes of an MP4 file, filled up to whole blocks with a ``free`` box."""
    size = -len(boxes) % _BLOCK_BYTES
    if size == 0:
        return boxes
    size += _BLOCK_BYTES if size < 8 else 0  # of the box's own head
    return boxes + size.to_bytes(4, "big") + b"free" + bytes(size - 8)


class MediaCache:
    """MP4 files of containers in a folder of limited size.

    To be used in one event loop.

    Args:
        limit_bytes: of the folder. The least recently used files are deleted first, none that is in use; one that is
            larger by itself is deleted once it is no longer in use.
    """

    def __init__(self, limit_bytes: int):
        self.folder, self._limit_bytes = cache.folder() / "media", limit_bytes
        self.worker = Worker()
        self._codings: dict[Path, Coding] = {}
        self._writing: dict[Path, asyncio.Task[None]] = {}
        self._readers: Counter[Path] = Counter()
        self._used: dict[Path, float] = {}
        self._preparing: asyncio.Future[None] | None = None
        for path in self._entries():
            if (path.name.startswith(".") or path.suffix == ".parts") and _age_s(path) > _STALE_S:
                _remove(path)

    def target(self, entry: FileEntry, codec: str) -> Path:
        """The file of a container in a codec, whether it exists or not.

        Raises:
            ContainerError: the container is damaged.
        """
        return self.folder / f"{cache.key('media 1', fingerprint(entry.file), codec)}.mp4"

    def coding(self, entry: FileEntry, header: Header) -> Coding:
        """The coding of a container as H.264."""
        target = self.target(entry, transcode.AVC)
        if target not in self._codings:
            self._codings[target] = Coding(entry, header, target, self.worker)
        return self._codings[target]

    async def file(self, entry: FileEntry, header: Header, codec: str) -> Path:
        """The file of a container in a codec, made if it is not there.

        Raises:
            NervError: what went wrong.
        """
        target = self.target(entry, codec)
        self._create_folder()
        if codec == transcode.AVC and not target.exists():
            made = self.coding(entry, header)
            made.start(again=True)
            await made.wait()
        else:
            await self._make(target, transcode.copy_base, entry.file, target)
        return self._record_use(target)

    async def clip(self, entry: FileEntry, header: Header, codec: str, start_s: float, stop_s: float) -> Path:
        """A moment of a container as a file: cut out of the whole one, or coded where that does not exist.

        Raises:
            NervError: what went wrong.
        """
        source = self.target(entry, codec)
        clip = source.with_name(f"{cache.key('clip 1', source.name, f'{start_s:.3f} {stop_s:.3f}')}.mp4")
        if source.exists() or codec == transcode.BASE:
            source = await self.file(entry, header, codec)
            await self._make(clip, mux.cut, source, clip, start_s, stop_s)
        else:
            self._create_folder()
            await self._make(clip, transcode.code_clip, entry.file, entry.version, clip, start_s, stop_s)
        return self._record_use(clip)

    def _create_folder(self) -> None:
        with wrap_os_error("the folder that NERVCODEC_CACHE names cannot be written", VideoError):
            self.folder.mkdir(parents=True, exist_ok=True)

    def _record_use(self, path: Path) -> Path:
        """Record that a file is used now, and evict others where the folder is too large."""
        self._used[path] = time.time()
        self.evict()
        return path

    async def _make(self, target: Path, function: Callable[..., None], *arguments: Any) -> None:
        """Let the worker write a file that does not exist yet, once for all who request it meanwhile."""
        if target.exists():
            return
        if target not in self._writing:
            call = asyncio.to_thread(self.worker.call, function, *arguments, timeout_s=_COPYING_S)
            self._writing[target] = asyncio.ensure_future(call)
            self._writing[target].add_done_callback(lambda _: self._writing.pop(target))
        await asyncio.shield(self._writing[target])

    def prepare(self) -> None:
        """Import in the worker what decoding a network takes, since somebody may soon want to play one."""
        if self._preparing is None or self._preparing.done():
            self._preparing = asyncio.ensure_future(asyncio.to_thread(self.worker.call, stills.load_renderer))
            self._preparing.add_done_callback(
                lambda task: task.cancelled() or task.exception()
            )  # told at the next call

    @contextlib.contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """While a file is sent."""
        self._readers[path] += 1
        try:
            yield
        finally:
            self._readers[path] -= 1
            self._used[path] = time.time()

    def evict(self) -> None:
        """Delete the files that were used least recently as long as the folder is larger than its limit."""
        for target, made in list(self._codings.items()):
            if not made.is_active and (target.exists() or made.error is not None):
                del self._codings[target]
        sizes = {path: _size(path) for path in self._entries()}
        total, now = sum(sizes.values()), time.time()
        used = {path: max(self._used.get(path, 0.0), now - _age_s(path)) for path in sizes}
        folders = {made.folder for made in self._codings.values() if made.is_active}
        for path in sorted(sizes, key=lambda each: used[each]):
            if total <= self._limit_bytes:
                return
            if not self._readers[path] and now - used[path] > _IN_USE_S and path not in folders:
                _remove(path)
                total -= sizes[path]

    def _entries(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except OSError:
            return []

    def close(self) -> None:
        """End what is being made."""
        self.worker.close()


def _age_s(path: Path) -> float:
    """Seconds since a file or folder was changed; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    """Bytes of a file, or of those in a folder."""
    with contextlib.suppress(OSError):
        return sum(map(_size, path.iterdir())) if path.is_dir() else path.stat().st_size
    return 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
