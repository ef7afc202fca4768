# SPDX-License-Identifier: MIT
"""``nervcodec index``."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from nervcodec.cli import options
from nervcodec.cli.output import one_thread_for_numpy, remark
from nervcodec.cli.progress import signal_handler
from nervcodec.formats.text import count_noun

if TYPE_CHECKING:
    from nervcodec.index.update import Report

_POLL_S, _POLL_RATIO = 2.0, 20  # seconds between updates, and at least this multiple of what an update takes


@click.command(epilog="Example: nervcodec index videos/; from then on: nervcodec search sink videos/")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--watch", is_flag=True, help="Keep the index up to date until Ctrl-C.")
@click.option("--force", is_flag=True, help="Rebuild the index from the start.")
@click.option("--workers", type=click.IntRange(1), help="Processes that read files; default: one per processor.")
@options.as_json
@options.debug
def index(folder: str, watch: bool, force: bool, workers: int | None, as_json: bool) -> None:
    """Create or update the index of all .nerv files below FOLDER; search uses it by itself.

    It is stored in FOLDER/.nervcodec and takes about 100 KB for ten seconds of video. Deleting it and interrupting an
    update are safe. Files that cannot be read are named and left out.
    """
    one_thread_for_numpy()
    from nervcodec.errors import FolderIndexError
    from nervcodec.index.store import has_lancedb_tables
    from nervcodec.index.update import open_writable, update

    with open_writable(Path(folder), force) as store:
        if has_lancedb_tables(store.folder):
            remark(f"{folder}: its index is of an earlier nervcodec and is rebuilt")
        progress = _Progress()
        report = update(store, workers, progress)
        _print_report(report, as_json, report.unreadable)
        if report.files and len(report.unreadable) == report.files:
            raise FolderIndexError(f"{folder}: none of its {report.files:,} files can be indexed")
        if not watch:
            return
        # The first Ctrl-C ends --watch after the update in progress, which takes seconds; the second one, at once.
        interrupted = threading.Event()

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            if interrupted.is_set():
                raise KeyboardInterrupt
            interrupted.set()

        with signal_handler(interrupt):
            while not interrupted.wait(max(_POLL_S, _POLL_RATIO * report.seconds if report.idle else 0.0)):
                known = report.unreadable
                report = update(store, workers, progress)
                if not report.idle:
                    new = {path: reason for path, reason in report.unreadable.items() if known.get(path) != reason}
                    _print_report(report, as_json, new)
    raise KeyboardInterrupt


class _Progress:
    """A line on stderr every ten seconds."""

    _EVERY_S = 10.0

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last > self._EVERY_S:
            self._last = now
            remark(f"{done} of {count_noun(total, 'file')} read")


def _print_report(report: Report, as_json: bool, problems: dict[str, str]) -> None:
    """Name files that cannot be searched, and print a report."""
    from nervcodec.cli.output import print_json, print_pairs
    from nervcodec.formats.text import human_bytes

    for path, reason in problems.items():
        remark(f"skipped: {path}: {reason}")
    if as_json:
        print_json(report.to_json())
        return
    counts = ((name, f"{getattr(report, name):,}") for name in ("files", "new", "changed", "moved", "gone"))
    rest = [("unreadable", f"{len(report.unreadable):,}"), ("rows", f"{report.rows:,}")]
    rest += [("size", human_bytes(report.size_bytes)), ("seconds", f"{report.seconds:.1f}")]
    print_pairs("Index", [*counts, *rest])
