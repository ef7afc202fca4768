# SPDX-License-Identifier: MIT
"""Whether a container that is there needs no encode any more. Torch-free, and no weights are decoded."""

from __future__ import annotations

import os
from collections.abc import Callable

from nervcodec.base.check import check_whole
from nervcodec.errors import ConfigError, ContainerError, OutdatedContainerError, TooNewError
from nervcodec.formats.container import Container, is_container
from nervcodec.formats.text import recorded
from nervcodec.jobs.inputs import Job
from nervcodec.media.probe import modified

_FINEST_S = 0.01  # that times of files are told apart by


def is_done(job: Job, note: Callable[[str], None]) -> bool:
    """Whether a job's container is there, whole, no older than its source, and of an encode that was not stopped.

    Args:
        job: the source and its container.
        note: told where a container is there and has to be encoded again all the same.

    Raises:
        ConfigError: an existing file is kept: it is no container, of another source, or of an earlier or later
            nervcodec.
        OSError: source or container cannot be looked at.
    """
    source, target = job.source, job.target
    changed = modified(source)
    if not target.is_file():
        return False
    if not is_container(target):
        raise ConfigError(f"{target}: not a .nerv file; --force replaces it")
    try:
        with Container.at(target) as opened:
            made_of, fit = opened.header.video.source_name, opened.header.fit
            if made_of != recorded(source.resolve().name):
                raise ConfigError(
                    f"{target}: is there and was made of another source, {made_of}; --force overwrites it"
                )
            if target.stat().st_mtime < changed:
                note(f"{target}: is older than its source and is encoded again")
                return False
            if not fit.complete:
                note(f"{target}: its encode was stopped; it is resumed or started again")
                return False
            check_whole(opened, weights=False)
    except TooNewError as error:
        raise ConfigError(f"{error}, or overwrite it with --force") from None
    except OutdatedContainerError as error:
        raise ConfigError(f"{error}; --force replaces it") from None
    except ContainerError as error:
        note(f"{error}; it is encoded again")
        return False
    return True


def set_date(job: Job, changed: float, note: Callable[[str], None]) -> None:
    """Date a container that was just written so that the next call sees whether its source was changed since.

    Args:
        job: the source and its container.
        changed: when the source was last changed before it was read, in seconds; may be in the future, where a clock
            was wrong.
        note: told where it was changed meanwhile.
    """
    try:
        now = modified(job.source)
    except OSError:  # removed meanwhile, which the encode told
        return
    if now != changed:
        os.utime(job.target, (now - 1, now - 1))
        note(f"{job.source}: was changed while it was encoded; encode it once more")
    elif job.target.stat().st_mtime < now:
        os.utime(job.target, (now + _FINEST_S, now + _FINEST_S))
