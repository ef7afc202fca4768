# SPDX-License-Identifier: MIT
"""Files that appear whole or not at all: write beside the target, flush to disk, then rename."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path in the target's folder; it becomes the target when the block ends without an error.

    The temporary name keeps the target's suffix, since ffmpeg chooses a format by it. On any error, an interrupt
    included, the temporary file is removed and the target stays as it was.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    target = Path(target)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files; an output gets the user's usual mode
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
