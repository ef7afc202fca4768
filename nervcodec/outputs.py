# SPDX-License-Identifier: MIT
"""Whether a file may be written, asked before any work is done for it."""

from __future__ import annotations

import os
from pathlib import Path

from nervcodec.errors import ConfigError


def require_free(target: Path, force: bool) -> None:
    """Refuse an output that exists already or whose folder does not.

    Raises:
        ConfigError: it is a folder, exists and ``force`` is not set, or its folder is not there or not to be written.
    """
    if target.is_dir():
        raise ConfigError(f"{target}: is a folder; name a file")
    if target.exists() and not force:
        raise ConfigError(f"{target}: exists already; use --force to overwrite it")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent}: no such folder")
    if not os.access(target.parent, os.W_OK):
        raise ConfigError(f"{target.parent}: is a folder without write permission")
