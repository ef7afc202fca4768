# SPDX-License-Identifier: MIT
"""``nervcodec index``."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from nervcodec.cli import options
from nervcodec.cli.interrupts import handled
from nervcodec.cli.output import one_thread_for_numpy, remark
from nervcodec.formats.text import counted

if TYPE_CHECKING:
    from nervcodec.index.update import Report

_POLL_S, _SHARE = 2.0, 20  # seconds between two looks, and at least so many times what a look takes


@click.command(epilog="Example: nervcodec index videos/; from then on: nervcodec search sink videos/")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--watch", is_flag=True, help="Keep the index up to date until Ctrl-C.")
@click.option("--force", is_flag=True, help="Forget the index that is there and make it anew.")
@click.option("--workers", type=click.IntRange(1), help="Processes that read files; default: one a processor.")
@options.as_json
@options.debug
def index(folder: str, watch: bool, force: bool, workers: int | None, as_json: bool) -> None:
    """Make or bring up to date the index of all .nerv files below FOLDER; search uses it by itself.

    It lies in FOLDER/.nervcodec and takes about 100 KB for ten seconds of video. It is safe to delete, and writing it
    is safe to interrupt. Files that cannot be read are named and left out. Needs the extra "library".
    """
    one_thread_for_numpy()
    from nervcodec.errors import LibraryError
    from nervcodec.index.update import Update, writing

    place = Path(folder)
    with writing(place) as store:
        if force:
            store.clear()
        progress = _Progress()
        report = Update(place, store, workers, progress).run()
        _show(report, as_json)
        if report.files and len(report.unreadable) == report.files:
            raise LibraryError(f"{folder}: none of its {report.files:,} files can be indexed")
        if not watch:
            return
        # What runs in other languages' threads may lose a KeyboardInterrupt that is raised in the midst of it. So what
        # is under way comes to its end, which takes seconds, unless it is asked twice.
        asked = threading.Event()

        def ask(_number: int, _frame: FrameType | None) -> None:
            if asked.is_set():
                raise KeyboardInterrupt
            asked.set()

        with handled(ask):
            while not asked.wait(max(_POLL_S, _SHARE * report.seconds if report.idle else 0.0)):
                before = report.unreadable
                report = Update(place, store, workers, progress).run()
                if not report.idle:
                    _show(replace(report, unreadable=_new(report.unreadable, before)), as_json)
    raise KeyboardInterrupt


def _new(now: dict[str, str], before: dict[str, str]) -> dict[str, str]:
    return {path: why for path, why in now.items() if before.get(path) != why}


class _Progress:
    """A line on stderr now and then, where there is much to read."""

    _EVERY_S = 10.0

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last > self._EVERY_S:
            self._last = now
            remark(f"{done} of {counted(total, 'file')} read")


def _show(report: Report, as_json: bool) -> None:
    from nervcodec.cli.render import print_json, print_pairs
    from nervcodec.formats.text import human_bytes

    for path, why in report.unreadable.items():
        remark(f"skipped: {path}: {why}")
    if as_json:
        print_json(report.to_json())
        return
    counted = ((name, f"{getattr(report, name):,}") for name in ("files", "new", "changed", "moved", "gone"))
    rest = [("unreadable", f"{len(report.unreadable):,}"), ("rows", f"{report.rows:,}")]
    rest += [("size", human_bytes(report.size_bytes)), ("seconds", f"{report.seconds:.1f}")]
    print_pairs("Index", [*counted, *rest])
