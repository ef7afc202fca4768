# SPDX-License-Identifier: MIT
"""Atomic outputs: write beside the target, flush to disk, then rename."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nervcodec.errors import NervError, wrap_os_error
from nervcodec.formats.text import truncate_name

_STEM_BYTES, _SUFFIX_BYTES = 60, 60  # of a temporary name, which has eight more characters in between


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder that replaces the target if the block ends without an error.

    The temporary name keeps the target's suffix, since FFmpeg chooses a format by it, unless it is too long for that.
    On any error or interrupt the temporary file is removed and the target is not changed.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    target = Path(target)
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= _SUFFIX_BYTES else ""
    prefix = truncate_name(f".{target.stem}", ".", _STEM_BYTES)
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=target.parent)
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


@contextlib.contextmanager
def writing(target: Path, kind: type[NervError], *also: type[Exception]) -> Iterator[Path]:
    """As :func:`replacing`, with OSErrors converted to a NervError.

    Args:
        target: the output.
        kind: of the error.
        also: errors besides OSError to convert.
    """
    with wrap_os_error(f"{target}: cannot be written", kind, *also), replacing(target) as temporary:
        yield temporary
