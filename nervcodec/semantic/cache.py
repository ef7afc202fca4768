# SPDX-License-Identifier: MIT
"""A folder of arrays and files that can be computed again: safe to delete at any time."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path

import numpy as np

from nervcodec.formats.atomic import replacing


def folder() -> Path:
    """``$NERVCODEC_CACHE``, else the platform's cache folder for nervcodec."""
    if chosen := os.environ.get("NERVCODEC_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "nervcodec"


def key(*parts: bytes | str) -> str:
    """A file name for a result that was computed from these parts."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def load(kind: str, name: str) -> np.ndarray | None:
    """A cached array, or None if there is none or it is damaged."""
    data = load_bytes(kind, f"{name}.npy")
    try:
        return None if data is None else np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def store(kind: str, name: str, array: np.ndarray) -> bool:
    """Store an array; see :func:`store_bytes`."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return store_bytes(kind, f"{name}.npy", buffer.getvalue())


def load_bytes(kind: str, name: str) -> bytes | None:
    """A cached file, or None if there is none."""
    try:
        return (folder() / kind / name).read_bytes()
    except OSError:
        return None


def store_bytes(kind: str, name: str, data: bytes) -> bool:
    """Store a file; returns False if the cache cannot be written, which only costs time later."""
    try:
        (folder() / kind).mkdir(parents=True, exist_ok=True)
        with replacing(folder() / kind / name) as temporary:
            temporary.write_bytes(data)
    except OSError:
        return False
    return True
