# SPDX-License-Identifier: MIT
"""The containers below folders. Standard library only."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from nervcodec.errors import ContainerError
from nervcodec.formats.text import SUFFIX, is_system_folder


def find_containers(paths: Sequence[str]) -> dict[Path, os.stat_result]:
    """Files, and all containers below folders (default: the current one), with their ``os.stat_result``.

    A file that is reached by several paths (links of either kind, spellings) counts once, under the first of them;
    below a folder its own name comes before those of symbolic links.

    Raises:
        ContainerError: a path does not exist, or there is no container.
    """
    files: dict[tuple[int, int], tuple[Path, os.stat_result]] = {}
    for path in paths or (".",):
        if not os.path.exists(path):
            raise ContainerError(f"{path}: no such file or folder")
        pairs = _below(path) if os.path.isdir(path) else [(path, os.stat(path))]
        for file, info in pairs:
            files.setdefault((info.st_dev, info.st_ino), (Path(file), info))
    if not files:
        where = ", ".join(paths) or "the current folder"
        raise ContainerError(f"no {SUFFIX} file below {where}")
    return dict(files.values())


def containers_below(folder: Path) -> dict[str, os.stat_result]:
    """All containers below a folder by their paths within it, with slashes; see :func:`find_containers`."""
    files: dict[tuple[int, int], tuple[str, os.stat_result]] = {}
    start = len(os.path.join(folder, ""))
    for file, info in _below(str(folder)):
        files.setdefault((info.st_dev, info.st_ino), (file[start:].replace(os.sep, "/"), info))
    return dict(files.values())


def _below(folder: str) -> list[tuple[str, os.stat_result]]:
    """Containers in a folder and its subfolders, sorted, without hidden files and hidden or system folders."""
    entries: list[tuple[bool, list[str], str, os.stat_result]] = []
    folders = [folder]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as scan:  # an unreadable folder counts as empty
            for entry in scan:
                if entry.name.startswith("."):
                    continue
                with contextlib.suppress(OSError):  # a dangling link, or deleted meanwhile
                    if entry.is_dir(follow_symlinks=False):
                        folders += [] if is_system_folder(entry.name) else [entry.path]
                    elif entry.name.lower().endswith(SUFFIX) and stat.S_ISREG((info := entry.stat()).st_mode):
                        entries.append((entry.is_symlink(), entry.path.split(os.sep), entry.path, info))
    return [entry[2:] for entry in sorted(entries, key=lambda entry: entry[:2])]
