# SPDX-License-Identifier: MIT
"""Output files: their default names, checks before any work is done, and a lock while one is written."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nervcodec.errors import ConfigError, LockedError, wrap_os_error
from nervcodec.formats.atomic import replacing
from nervcodec.formats.text import SUFFIX, truncate_name

# Of videos below a folder, and of no container.
VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".ivf", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".rm", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
_IMAGE_SUFFIXES = (".apng", ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FRAMES_ENDING = "_frames"  # of the folder that decoded frames go to
_LOCK_SUFFIX = ".lock"
_RENEW_S, _STALE_S = 60.0, 300.0  # a lock is renewed at this interval, and abandoned when it is older
_SETTLE_S = 0.2  # between taking over an abandoned lock and reading who holds it


def beside(source: Path, keep_suffix: bool = False) -> Path:
    """The default container of a source: beside it, with its name and ``.nerv``.

    Args:
        source: a file, or a folder of frames, whose name is kept whole.
        keep_suffix: keep a file's ending as well, ``b.mp4.nerv``.
    """
    path = source if source.name not in ("", "..") else source.resolve()
    name = path.name if keep_suffix or os.path.isdir(path) else path.stem
    return path.with_name(truncate_name(name, SUFFIX))


def container_of_frames(folder: Path) -> Path | None:
    """The container whose frames ``decode --frames`` writes to a folder by default, ``NAME_frames`` beside it."""
    for ending in (f".decoded{FRAMES_ENDING}", FRAMES_ENDING):
        container = folder.with_name(folder.name.removesuffix(ending) + SUFFIX)
        if folder.name.endswith(ending) and container.is_file():
            return container
    return None


def is_media_name(target: str | os.PathLike[str]) -> bool:
    """Whether a name has the suffix of a video or an image."""
    return Path(target).suffix.lower() in (*VIDEO_SUFFIXES, *_IMAGE_SUFFIXES)


def require_container(target: Path, force: bool, source: Path) -> None:
    """Refuse a container that cannot or must not be written.

    Raises:
        ConfigError: see :func:`require_free`; or it has the suffix of a video or an image.
    """
    require_free(target, force, source)
    if is_media_name(target):
        raise ConfigError(
            f"{target}: has the suffix of a video or an image; name the container {target.with_suffix(SUFFIX).name}"
        )


def require_free(target: Path, force: bool, *inputs: str | os.PathLike[str]) -> None:
    """Refuse an output that exists already or whose folder does not.

    Args:
        target: the output.
        force: overwrite it.
        inputs: files or folders that are not overwritten even so.

    Raises:
        ConfigError: it is an input or a folder, exists and ``force`` is not set, cannot exist (a name that is too
            long), or its folder is not there or not to be written.
    """
    if _exists(target):
        if any(os.path.exists(path) and target.samefile(path) for path in inputs):
            raise ConfigError(f"{target}: input and output are the same file")
        if target.is_dir():
            raise ConfigError(f"{target}: is a folder; name a file")
        if not force:
            raise ConfigError(f"{target}: exists already; use --force to overwrite it")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent}: no such folder")
    if not os.access(target.parent, os.W_OK):
        raise ConfigError(f"{target.parent}: is a folder without write permission")


def require_folder(target: Path) -> None:
    """Refuse a folder for outputs that is none, or that cannot be made.

    Raises:
        ConfigError: it is a file, cannot be written, or cannot exist (a name that is too long).
    """
    if not _exists(target):
        return
    if not target.is_dir():
        raise ConfigError(f"{target}: is a file, not a folder")
    if not os.access(target, os.W_OK):
        raise ConfigError(f"{target}: is a folder without write permission")


def _exists(target: Path) -> bool:
    # A ValueError for a name with a zero in it.
    with wrap_os_error(f"{target}: cannot be written", ConfigError, ValueError):
        try:
            target.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of an output, so that no other process writes it at the same time.

    The lock is a hidden file beside the output, ``.NAME.lock``: JSON with the host, the process and when it started.
    A lock is abandoned, and taken over, if its process is gone from this host or did not renew it for five minutes.

    Raises:
        LockedError: another encode holds it.
        ConfigError: it cannot be written.
    """
    lock = target.with_name(truncate_name(f".{target.name}", _LOCK_SUFFIX))
    own = {"host": platform.node(), "process": os.getpid(), "start": time.time(), "thread": threading.get_ident()}
    with wrap_os_error(f"{target}: cannot be written", ConfigError):
        if not _create(lock, own):
            holder = _holder(lock)
            if holder is not None:
                raise LockedError(f"{target}: is being written by {_in_words(holder)}")
            _overwrite(lock, own)
            time.sleep(_SETTLE_S)  # two processes may take over at the same time: the last one to write holds it
            if (holder := _holder(lock)) is not None and holder != own:
                raise LockedError(f"{target}: is being written by {_in_words(holder)}")
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(lock, ended), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        with contextlib.suppress(OSError):
            if _read(lock) == own:
                lock.unlink()


def _create(lock: Path, own: dict[str, Any]) -> bool:
    """Write a lock; False where there is one."""
    try:
        with open(lock, "x", encoding="utf-8") as file:
            json.dump(own, file)
    except FileExistsError:
        return False
    except OSError:
        lock.unlink(missing_ok=True)
        raise
    return True


def _overwrite(lock: Path, own: dict[str, Any]) -> None:
    with replacing(lock) as temporary:
        temporary.write_text(json.dumps(own), encoding="utf-8")


def _read(lock: Path) -> dict[str, Any]:
    """What a lock says; nothing where it is not yet or not properly written.

    Raises:
        OSError: it is gone or cannot be read.
    """
    try:
        record = json.loads(lock.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _holder(lock: Path) -> dict[str, Any] | None:
    """The record of a lock that is held; None where it is gone or abandoned."""
    try:
        age_s, record = time.time() - lock.stat().st_mtime, _read(lock)
    except FileNotFoundError:
        return None
    is_here = record.get("host") == platform.node()
    is_gone = is_here and not _is_running(record.get("process"))
    return None if is_gone or age_s > _STALE_S else record


def _is_running(process: Any) -> bool:
    """Whether a process of this host is running; True where the system does not tell."""
    if not isinstance(process, int) or process <= 0 or os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _in_words(holder: dict[str, Any]) -> str:
    host, process = holder.get("host"), holder.get("process")
    if process is None:
        return "another process"
    return f"process {process}" if host == platform.node() else f"process {process} of {host}"


def _renew(lock: Path, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_S):
        with contextlib.suppress(OSError):  # a file system that is away for a while
            os.utime(lock)


class UnchangedOutput:
    """An output as it was before the work on it: a file that appears or changes meanwhile is not overwritten.

    Args:
        target: the output.
        force: overwrite it all the same.
    """

    def __init__(self, target: Path, force: bool):
        self._target, self._force = target, force
        self._before = self._state()

    def require(self) -> None:
        """Refuse to overwrite a file of somebody else.

        Raises:
            ConfigError: the file appeared or changed since.
        """
        if not self._force and self._state() not in (None, self._before):
            raise ConfigError(f"{self._target}: appeared during the encode and is not overwritten")

    def _state(self) -> tuple[int, int, int] | None:
        try:
            now = os.stat(self._target)
        except OSError:
            return None
        return now.st_ino, now.st_size, now.st_mtime_ns
