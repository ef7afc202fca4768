# SPDX-License-Identifier: MIT
"""What a container is called, and whether a file may be written, asked before any work is done for it."""

from __future__ import annotations

import os
from pathlib import Path

from nervcodec.errors import ConfigError, explained
from nervcodec.formats.text import SUFFIX, within


def beside(source: Path, whole: bool = False) -> Path:
    """Where the container of a source goes that is told no other place: there, with its name and ``.nerv``.

    Args:
        source: a file, or a folder of frames, whose name is kept whole.
        whole: keep a file's ending as well, ``b.mp4.nerv``.
    """
    place = source if source.name not in ("", "..") else source.resolve()
    name = place.name if whole or os.path.isdir(place) else place.stem
    return place.with_name(within(name, SUFFIX))


def require_free(target: Path, force: bool) -> None:
    """Refuse an output that exists already or whose folder does not.

    Raises:
        ConfigError: it is a folder, exists and ``force`` is not set, cannot exist (a name that is too long), or its
            folder is not there or not to be written.
    """
    if _there(target):
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
    if not _there(target):
        return
    if not target.is_dir():
        raise ConfigError(f"{target}: is a file, not a folder")
    if not os.access(target, os.W_OK):
        raise ConfigError(f"{target}: is a folder without write permission")


def _there(target: Path) -> bool:
    # A ValueError for a name with a zero in it.
    with explained(f"{target}: cannot be written", ConfigError, ValueError):
        try:
            target.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True
