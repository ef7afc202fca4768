# SPDX-License-Identifier: MIT
"""Which containers are searched. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nervcodec.errors import ContainerError
from nervcodec.formats.names import SUFFIX


def containers(paths: Sequence[str]) -> list[Path]:
    """The files named, and all containers below the folders named; below the current folder without any.

    A file that is reached in several ways (links of either kind, spellings) counts once, under the first name it has;
    below a folder its own name goes before those of symbolic links.

    Raises:
        ContainerError: a path is not there, or there is no container.
    """
    files: dict[tuple[int, int], Path] = {}
    for path in paths or (".",):
        if not os.path.exists(path):
            raise ContainerError(f"{path}: no such file or folder")
        for file in _below(path) if os.path.isdir(path) else [Path(path)]:
            facts = os.stat(file)
            files.setdefault((facts.st_dev, facts.st_ino), file)
    if not files:
        where = ", ".join(paths) or "the current folder"
        raise ContainerError(f"no {SUFFIX} file below {where}")
    return list(files.values())


def _below(folder: str) -> list[Path]:
    """Containers in a folder and in those below it, sorted; hidden ones and hidden folders are left out."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if name.endswith(SUFFIX) and not name.startswith(".")]
    return sorted((file for file in found if os.path.isfile(file)), key=lambda file: (os.path.islink(file), file))
