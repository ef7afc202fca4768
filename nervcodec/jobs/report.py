# SPDX-License-Identifier: MIT
"""The result of each source of a run, and errors that concern one source only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nervcodec.errors import NervError, is_out_of_memory
from nervcodec.events import Observer
from nervcodec.jobs.inputs import Job

if TYPE_CHECKING:
    from nervcodec.encoding import EncodeReport

DONE, SKIPPED, FAILED, STOPPED = "done", "skipped", "failed", "stopped"
STATUSES = (DONE, SKIPPED, FAILED, STOPPED)


@dataclass(frozen=True)
class FileReport:
    """What became of one source.

    Attributes:
        source: file or folder.
        target: its container.
        status: ``done``; ``skipped``, since the container was there; ``failed``; or ``stopped``, where the encode was
            ended early and the container holds the best state by then.
        reason: why, in words; empty where it is done.
        report: of its encode, or None where there was none.
        seconds: that it took.
    """

    source: Path
    target: Path
    status: str
    reason: str = ""
    report: EncodeReport | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, object]:
        """As ``encode --json`` prints it for several inputs."""
        return {
            "source": str(self.source),
            "target": str(self.target),
            "status": self.status,
            "reason": self.reason,
            "seconds": round(self.seconds, 2),
            "report": None if self.report is None else self.report.to_json(),
        }


def failed(job: Job, why: str, observer: Observer, seconds: float = 0.0) -> FileReport:
    """A report of a failure, which the observer is told at once."""
    told = why.removeprefix(f"{os.path.abspath(job.source)}: ").removeprefix(f"{job.source}: ")
    observer.note(why if told == why and str(job.target) in why else f"{job.source}: {told}")
    return FileReport(job.source, job.target, FAILED, told, seconds=seconds)


def is_of_a_source(error: BaseException) -> bool:
    """Whether an error concerns one source, so that the others can be encoded all the same."""
    return isinstance(error, (NervError, OSError)) or is_out_of_memory(error)


def reason(error: BaseException) -> str:
    """Such an error in words."""
    if isinstance(error, NervError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return "out of memory; try a smaller --scale or --segment"
