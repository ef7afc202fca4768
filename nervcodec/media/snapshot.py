# SPDX-License-Identifier: MIT
"""Size and time of a source's files, to notice that they are changed while the source is encoded."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nervcodec.errors import ChangedError, VideoError


@dataclass(frozen=True)
class Snapshot:
    """What the system says of the files of a source.

    Inode numbers are not compared: some network file systems give a file another one each time.

    Attributes:
        source: file or folder.
        files: of it.
        machine: that looked at them; times are compared on the same one only.
        sizes: in bytes.
        modified_ns: when each was changed last.
    """

    source: Path
    files: tuple[Path, ...]
    machine: str
    sizes: tuple[int, ...]
    modified_ns: tuple[int, ...]

    @classmethod
    def of(cls, source: Path, files: Sequence[Path]) -> Snapshot:
        """Look at some files.

        Raises:
            OSError: one is not there.
        """
        facts = [os.stat(file) for file in files]
        sizes, times = tuple(f.st_size for f in facts), tuple(f.st_mtime_ns for f in facts)
        return cls(source, tuple(files), platform.node(), sizes, times)

    def is_there(self) -> bool:
        """Whether the files are still there.

        Raises:
            ChangedError: they are, and changed.
        """
        try:
            now = Snapshot.of(self.source, self.files)
        except OSError:
            return False
        if now.sizes != self.sizes or (now.machine == self.machine and now.modified_ns != self.modified_ns):
            raise self._changed
        return True

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Around a reading: it fails where the files are changed by its end; where it fails by itself, that the files
        are changed or gone is the reason.

        Raises:
            ChangedError: they are.
        """
        try:
            yield
        except (VideoError, OSError):
            if not self.is_there():
                raise self._changed from None
            raise
        self.is_there()

    @property
    def _changed(self) -> ChangedError:
        return ChangedError(f"{self.source}: changed while it was encoded")
