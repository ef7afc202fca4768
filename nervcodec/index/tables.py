# SPDX-License-Identifier: MIT
"""LanceDB's tables in a folder, as an index uses them: by name, appended to, and read in the order of writing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nervcodec.device import keep_memory
from nervcodec.errors import LibraryError

if TYPE_CHECKING:
    import pyarrow as pa

_IN_ITS_SOURCE = re.compile(r",? */\S+\.rs:\d+(:\d+)?")  # where LanceDB was built, of which its errors tell
_KEPT = timedelta(minutes=10)  # old versions stay so long for readers that are in the middle of them


def available() -> bool:
    """Whether lancedb is installed."""
    from importlib.util import find_spec

    return find_spec("lancedb") is not None


def package() -> Any:
    """lancedb itself, which takes two seconds when it is first asked for.

    Raises:
        LibraryError: it is not installed.
    """
    try:
        import lancedb
    except ImportError:
        raise LibraryError('an index needs LanceDB: pip install "nervcodec[library]"') from None
    return lancedb


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turns whatever LanceDB raises for tables of a folder that it cannot read into one of our errors."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = _IN_ITS_SOURCE.sub("", str(getattr(error, "strerror", None) or error))
        raise LibraryError(
            f"{folder}: its index cannot be read ({reason}); nervcodec index --force {folder} makes it anew"
        ) from None


class Tables:
    """The tables of a folder.

    Args:
        place: the folder; it is there.

    Raises:
        LibraryError: lancedb is not installed.
    """

    def __init__(self, place: Path):
        keep_memory(arenas=1)  # what is read comes and goes by megabytes: fresh pages took a third of the time
        self._base = package().connect(place)

    def names(self) -> list[str]:
        """Of all tables."""
        names: list[str] = []
        token = None
        while True:
            page = self._base.list_tables(page_token=token)
            names += page.tables
            token = page.page_token
            if not token:
                return names

    def whole(self, name: str) -> pa.Table | None:
        """All of a table with what its schema says, or None where there is none of that name."""
        table = self._table(name)
        return None if table is None else table.to_arrow()

    def rows(
        self, name: str, columns: list[str], where: str | None = None, at_once: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        """Some columns, so many rows at a time, in the order they were written; none where there is no such table.

        Args:
            name: of the table.
            columns: names.
            where: which rows, in SQL.
            at_once: rows in a batch.
        """
        table = self._table(name)
        if table is None:
            return
        query = table.search().select(columns)
        if where is not None:
            query = query.where(where)
        yield from query.limit(max(1, table.count_rows())).to_batches(at_once)

    def column(self, name: str, column: str) -> np.ndarray:
        """A column of numbers."""
        parts = [batch[column].to_numpy() for batch in self.rows(name, [column])]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def count(self, name: str) -> int:
        """Rows of a table."""
        return self._base.open_table(name).count_rows()

    def append(self, name: str, rows: pa.Table) -> None:
        """Add rows in one step, to a new table if there is none of that name."""
        table = self._table(name)
        if table is None:
            self._base.create_table(name, rows)
        else:
            table.add(rows)

    def replace(self, name: str, rows: pa.Table) -> None:
        """Make a table this one, in one step."""
        if self._table(name) is None:
            self._base.create_table(name, rows)
        else:
            self._base.create_table(name, rows, mode="overwrite")

    def delete(self, name: str, where: str) -> None:
        """Take away rows, if there is such a table."""
        if (table := self._table(name)) is not None:
            table.delete(where)

    def drop(self, name: str) -> None:
        """Take away a table."""
        self._base.drop_table(name)

    def tidy(self, at_least: int) -> None:
        """Join small pieces of tables that have at least so many, and let go of versions that nobody reads any more."""
        for name in self.names():
            table = self._base.open_table(name)
            versions = table.list_versions()
            if len(versions) >= at_least and datetime.now() - versions[0]["timestamp"] > _KEPT:
                table.optimize(cleanup_older_than=_KEPT)

    def _table(self, name: str) -> Any:
        try:
            return self._base.open_table(name)
        except ValueError:  # there is none of that name
            return None


def among(numbers: Iterable[int], column: str = "number") -> str:
    """A condition: that a column is one of some numbers."""
    return f"{column} IN ({', '.join(str(int(number)) for number in numbers)})"
