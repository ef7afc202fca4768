# SPDX-License-Identifier: MIT
"""The served containers: the list of files, their headers, and the open ones."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nervcodec.errors import ConfigError, ContainerError, NervError
from nervcodec.formats.container import Container
from nervcodec.formats.header import AUDIO, Header
from nervcodec.formats.text import SUFFIX, escape, is_system_folder
from nervcodec.search.files import containers_below
from nervcodec.serve import limits
from nervcodec.serve.limits import MissingError

_LONGEST = 4_096  # bytes of a path


@dataclass(frozen=True)
class FileEntry:
    """A file at one state of its contents; after a change it is another entry.

    Attributes:
        path: within the folder, with slashes.
        file: on the disk.
        size: bytes.
        modified_ns: modification time.
        inode: number of the file.
    """

    path: str
    file: Path
    size: int
    modified_ns: int
    inode: int

    @property
    def version(self) -> str:
        """Changes whenever the file system reports other contents."""
        return f"{self.size:x}-{self.modified_ns:x}-{self.inode:x}"

    @property
    def name(self) -> str:
        """Without folders."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class FileStatus:
    """The header of a file, and its damage.

    Attributes:
        header: None if it cannot be read.
        damaged: the reason in words, or None.
    """

    header: Header | None
    damaged: str | None = None


class ContainerStore:
    """The containers below a folder, or a single one. Thread-safe.

    Args:
        place: a folder or a container.

    Raises:
        ConfigError: it is neither.

    Attributes:
        folder: that holds them.
        single: the path of a single container, or None.
        name: of the folder or container.
    """

    def __init__(self, place: Path):
        if not place.is_dir() and place.suffix.lower() != SUFFIX:
            raise ConfigError(f"{place}: is neither a folder nor a {SUFFIX} file")
        self.single = None if place.is_dir() else place.name
        self.folder = place if self.single is None else place.parent
        self.name = self.single or place.resolve().name or str(place)
        self._root = os.path.realpath(self.folder)
        self._lock = threading.Lock()
        self._statuses: dict[str, tuple[str, FileStatus]] = {}

    def entries(self, below: str = "") -> list[FileEntry]:
        """All containers below a folder, the newest first, without links that lead out of the store."""
        if self.single is not None:
            return [self.entry(self.single)]
        entries = []
        for path, facts in containers_below(self.folder).items():
            file = self.folder / path
            if not os.path.islink(file) or self._within(file):
                entries.append(_entry(path, file, facts))
        paths = {entry.path for entry in entries}
        with self._lock:
            self._statuses = {path: status for path, status in self._statuses.items() if path in paths}
        inside = f"{below}/" if below else ""
        entries = [entry for entry in entries if entry.path.startswith(inside)]
        return sorted(entries, key=lambda entry: (-entry.modified_ns, entry.path))

    def entry(self, path: str) -> FileEntry:
        """The file at a path of an address.

        Raises:
            MissingError: there is none, or it is not served.
        """
        missing = MissingError(f"there is no {escape(path[:100])}")
        parts = path.split("/")
        odd = any(not part or part.startswith(".") or is_system_folder(part) for part in parts)
        if odd or "\0" in path or os.sep != "/" and os.sep in path or not path.lower().endswith(SUFFIX):
            raise missing
        if len(os.fsencode(path)) > _LONGEST or self.single not in (None, path):
            raise missing
        file = self.folder.joinpath(*parts)
        try:
            facts = file.stat()
        except (OSError, ValueError):
            raise missing from None
        if not stat.S_ISREG(facts.st_mode) or not (self.single or self._within(file)):
            raise missing
        return _entry(path, file, facts)

    def _within(self, file: Path) -> bool:
        return os.path.realpath(file).startswith(os.path.join(self._root, ""))

    def status(self, entry: FileEntry) -> FileStatus:
        """The header of a file and its damage, read once per version."""
        with self._lock:
            version, status = self._statuses.get(entry.path, ("", None))
        if status is None or version != entry.version:
            status = _read(entry)
            with self._lock:
                self._statuses[entry.path] = entry.version, status
        return status

    def note_damage(self, entry: FileEntry, error: ContainerError) -> None:
        """Remember damage that was found behind the header."""
        header = self.status(entry).header
        with self._lock:
            self._statuses[entry.path] = entry.version, FileStatus(header, _reason(entry, error))

    def require_showable(self, entry: FileEntry) -> Header:
        """The header of a file.

        Raises:
            ContainerError: it is damaged, or its frames are too large to be decoded here.
        """
        status = self.status(entry)
        if status.header is None:
            raise ContainerError(f"{entry.file}: {status.damaged}")
        video = status.header.video
        if video.width * video.height > limits.MOST_PIXELS:
            raise ContainerError(f"{entry.file}: frames of {video.width} x {video.height} are too large to show")
        return status.header

    def redact(self, text: str) -> str:
        """A message without the path of the served folder."""
        return text.replace(os.path.join(str(self.folder), ""), "")

    def facts(self, entry: FileEntry) -> dict:
        """What the list shows of one file."""
        status = self.status(entry)
        facts: dict = {
            "path": entry.path,
            "name": entry.name,
            "size_bytes": entry.size,
            "modified": entry.modified_ns / 1e9,
            **dict.fromkeys(_KEYS),
            "has_sound": False,
            "searchable": False,
            "damaged": status.damaged,
        }
        if status.header is not None:
            facts |= _facts(status.header)
        return facts


_KEYS = ("duration_s", "width", "height", "frame_rate", "frame_count", "pixel_aspect", "psnr_db")


def _facts(header: Header) -> dict:
    video = header.video
    values: Sequence[float] = (
        video.duration_s,
        video.width,
        video.height,
        video.fps,
        video.frame_count,
        video.sample_aspect_ratio[0] / video.sample_aspect_ratio[1],
        header.fit.psnr_db,
    )
    more = {"has_sound": AUDIO in header.tensors, "searchable": header.semantic is not None}
    return dict(zip(_KEYS, values, strict=True)) | more


def _entry(path: str, file: Path, facts: os.stat_result) -> FileEntry:
    return FileEntry(path if _is_text(path) else escape(path), file, facts.st_size, facts.st_mtime_ns, facts.st_ino)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(entry: FileEntry) -> FileStatus:
    if not _is_text(str(entry.file)):
        return FileStatus(None, "its name is not valid UTF-8; rename it")
    try:
        with Container.open(entry.file) as opened:
            return FileStatus(opened.header)
    except NervError as error:
        return FileStatus(None, _reason(entry, error))


def _reason(entry: FileEntry, error: NervError) -> str:
    return str(error).removeprefix(f"{entry.file}: ")
