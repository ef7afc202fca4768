# SPDX-License-Identifier: MIT
"""Errors raised by nervcodec. Each message states the problem, the file, and a remedy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class NervError(Exception):
    """Base class of all errors of nervcodec."""


class VideoError(NervError):
    """A source video cannot be read, or an output video cannot be written."""


class ChangedError(VideoError):
    """A source video was changed while it was encoded, so the result is invalid."""


class ContainerError(NervError):
    """A ``.nerv`` file is damaged, of another program, too new, or its header states impossible values."""


class TooNewError(ContainerError):
    """A valid ``.nerv`` file of a later format version."""


class OutdatedContainerError(ContainerError):
    """A valid ``.nerv`` file of an earlier version that is no longer supported."""


class ConfigError(NervError):
    """An option or a configuration value is out of range or does not fit the video."""


class OptionsError(ConfigError):
    """Wrong usage: an option without effect, a value it cannot have, or options that exclude each other."""


class NothingFoundError(ConfigError):
    """Folders hold no source."""


class LockedError(ConfigError):
    """Another process writes the same output."""


class CheckpointError(ConfigError):
    """There is no checkpoint to resume, it is damaged, or it belongs to another encode."""


class EncoderError(NervError):
    """A semantic encoder (OpenCLIP, offline) cannot be loaded, or is not the one a container needs."""


class FolderIndexError(NervError):
    """The index of a folder cannot be read or written."""


class DivergedError(NervError):
    """The fit produced values that are not finite."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, including torch's, means that memory is exhausted."""
    return isinstance(error, MemoryError) or "not enough memory" in str(error)


@contextlib.contextmanager
def prefix_path(file: object) -> Iterator[None]:
    """Prefix ContainerErrors of the block with a file path, unless they have it.

    Args:
        file: its path.
    """
    try:
        yield
    except ContainerError as error:
        text = str(error)
        raise type(error)(text if text.startswith(f"{file}: ") else f"{file}: {text}") from None


@contextlib.contextmanager
def wrap_os_error(what: str, kind: type[NervError], *also: type[Exception]) -> Iterator[None]:
    """Convert an OSError of the block: ``what``, a colon, and the system's reason.

    Args:
        what: the failed action and its file.
        kind: of the raised error.
        also: other errors to convert.
    """
    expected: tuple[type[Exception], ...] = (OSError, *also)
    try:
        yield
    except expected as error:
        raise kind(f"{what}: {getattr(error, 'strerror', None) or error}") from None
