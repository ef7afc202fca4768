# SPDX-License-Identifier: MIT
"""The errors nervcodec raises on purpose. Each message says what is wrong, with which file, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class NervError(Exception):
    """Base of every error that a caller of nervcodec may want to catch."""


class VideoError(NervError):
    """A source video cannot be read, or an output video cannot be written."""


class ChangedError(VideoError):
    """A source video was changed while it was encoded: what was made of it so far is worth nothing."""


class ContainerError(NervError):
    """A ``.nerv`` file is damaged, foreign, too new, or its header states impossible values."""


class TooNewError(ContainerError):
    """A ``.nerv`` file of a format that a later nervcodec writes: nothing is wrong with it."""


class OutdatedContainerError(ContainerError):
    """A ``.nerv`` file that an earlier nervcodec wrote and that is no longer read: nothing is wrong with it."""


class ConfigError(NervError):
    """An option or a configuration value is out of range or does not fit the video."""


class OptionsError(ConfigError):
    """Wrong usage: an option without effect, a value it cannot have, or options that exclude each other."""


class NothingFoundError(ConfigError):
    """Folders hold no source."""


class LockedError(ConfigError):
    """Another process writes the same output."""


class CheckpointError(ConfigError):
    """There is no checkpoint to go on from, it is damaged, or it is another encode's."""


class EncoderError(NervError):
    """A semantic encoder (OpenCLIP, offline) cannot be loaded, or is not the one a container needs."""


class FolderIndexError(NervError):
    """The index of a folder cannot be read or written."""


class DivergedError(NervError):
    """The fit produced values that are not finite, so there is nothing worth writing."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, torch's own included, says that there was not enough memory."""
    return isinstance(error, MemoryError) or "not enough memory" in str(error)


@contextlib.contextmanager
def prefix_path(file: object) -> Iterator[None]:
    """Begin what is wrong with a container with its name, where it does not begin so already.

    Args:
        file: its path.
    """
    try:
        yield
    except ContainerError as error:
        said = str(error)
        raise type(error)(said if said.startswith(f"{file}: ") else f"{file}: {said}") from None


@contextlib.contextmanager
def wrap_os_error(what: str, kind: type[NervError], *also: type[Exception]) -> Iterator[None]:
    """Turn an OSError of the block into one of ours: ``what``, a colon, and the system's reason.

    Args:
        what: what cannot be done with which file.
        kind: of the error that is raised in its place.
        also: other errors that stand for the same.
    """
    expected: tuple[type[Exception], ...] = (OSError, *also)
    try:
        yield
    except expected as error:
        raise kind(f"{what}: {getattr(error, 'strerror', None) or error}") from None
