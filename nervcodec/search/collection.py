# SPDX-License-Identifier: MIT
"""Which containers are searched. Standard library only."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from nervcodec.errors import ContainerError
from nervcodec.formats.text import SUFFIX, is_system_folder


def containers(paths: Sequence[str]) -> dict[Path, os.stat_result]:
    """The files named, and all containers below the folders named, each with what the system says of it; below the
    current folder without any.

    A file that is reached in several ways (links of either kind, spellings) counts once, under the first name it has;
    below a folder its own name goes before those of symbolic links.

    Raises:
        ContainerError: a path is not there, or there is no container.
    """
    files: dict[tuple[int, int], tuple[Path, os.stat_result]] = {}
    for path in paths or (".",):
        if not os.path.exists(path):
            raise ContainerError(f"{path}: no such file or folder")
        found = _below(path) if os.path.isdir(path) else [(path, os.stat(path))]
        for file, facts in found:
            files.setdefault((facts.st_dev, facts.st_ino), (Path(file), facts))
    if not files:
        where = ", ".join(paths) or "the current folder"
        raise ContainerError(f"no {SUFFIX} file below {where}")
    return dict(files.values())


def containers_below(folder: Path) -> dict[str, os.stat_result]:
    """All containers below a folder by their paths within it, with slashes; see :func:`containers`."""
    files: dict[tuple[int, int], tuple[str, os.stat_result]] = {}
    start = len(os.path.join(folder, ""))
    for file, facts in _below(str(folder)):
        files.setdefault((facts.st_dev, facts.st_ino), (file[start:].replace(os.sep, "/"), facts))
    return dict(files.values())


def _below(folder: str) -> list[tuple[str, os.stat_result]]:
    """Containers in a folder and in those below it, sorted; hidden ones and hidden or system folders are left out."""
    found: list[tuple[bool, list[str], str, os.stat_result]] = []
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(place) as entries:  # a folder that may not be read has nothing
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                with contextlib.suppress(OSError):  # a link to nothing, or gone meanwhile
                    if entry.is_dir(follow_symlinks=False):
                        waiting += [] if is_system_folder(entry.name) else [entry.path]
                    elif entry.name.lower().endswith(SUFFIX) and stat.S_ISREG((facts := entry.stat()).st_mode):
                        found.append((entry.is_symlink(), entry.path.split(os.sep), entry.path, facts))
    return [entry[2:] for entry in sorted(found, key=lambda entry: entry[:2])]
