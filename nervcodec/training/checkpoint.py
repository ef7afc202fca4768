# SPDX-License-Identifier: MIT
"""Checkpoints of an encode on disk, so that an interrupted encode can be resumed.

Each file of a checkpoint is written by ``torch.save``, holds plain values and tensors, and is read memory-mapped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nervcodec import __version__
from nervcodec.errors import CheckpointError
from nervcodec.formats.atomic import replacing
from nervcodec.formats.header import FORMAT_VERSION
from nervcodec.formats.text import truncate_name

SUFFIX = ".resume"
EVERY_S, FIRST_S = 60.0, 10.0  # shortest time between two checkpoints, and until the first
_VERSION = 3  # of what is stored; goes up whenever an earlier checkpoint cannot be continued
_FIT, _SEGMENT, _SHARED = "fit", "segment_", "shared"  # file names in the folder
_NOTHING = "nothing to resume; run without --resume"
_UNUSABLE = "is damaged and cannot be resumed; run without --resume"


class DamagedError(CheckpointError):
    """A file of a checkpoint is damaged."""


class StoredState(NamedTuple):
    """Contents of one file.

    Attributes:
        number: of the segment, or of the fits finished before this state.
        data: plain values and tensors, memory-mapped.
    """

    number: int
    data: dict[str, Any]


def identity(*parts: object) -> str:
    """Digest of what a resumed encode must have in common with the interrupted one, from the ``repr`` of its parts."""
    text = repr((__version__, FORMAT_VERSION, _VERSION, *parts))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_state(path: Path, identity: str, state: StoredState) -> None:
    """Write a file atomically.

    Raises:
        OSError, RuntimeError: it cannot be written; torch reports a full disk as the latter.
    """
    with replacing(path) as temporary:
        torch.save({"identity": identity, "number": state.number, "facts": state.data}, temporary)


def read_state(path: Path, identity: str, verify: bool = False) -> StoredState:
    """Read a file.

    Args:
        path: of the file.
        identity: expected.
        verify: compare the checksums that torch writes, but does not read.

    Raises:
        DamagedError: it is damaged.
        CheckpointError: it belongs to another encode.
    """
    try:
        if verify:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state, stored_identity = StoredState(stored["number"], stored["facts"]), stored["identity"]
    except Exception:  # torch and its unpickler raise many kinds of errors for a damaged file
        raise DamagedError(f"{path}: {_UNUSABLE}") from None
    if stored_identity != identity:
        raise CheckpointError(f"{path.parent}: belongs to another source or other options; run without --resume")
    return state


class Checkpoint:
    """Checkpoint of an encode in a folder beside its output: finished segments, and the state of the current fit.

    Files are written atomically: a segment's when it is finished, the state of the fit after ten seconds, then once a
    minute at most.

    Args:
        target: the output; the folder has its name, shortened if necessary, with ``.resume`` appended.
        identity: see :func:`identity`; a stored one must be equal.
        warn: told once if checkpoints cannot be written; the encode continues without.
        clock: seconds.

    Attributes:
        warn: see above.
        finished: stored form of each finished segment by its number, plain values and tensors; those read from the
            folder are memory-mapped.
        shared: stored form of the parameters that segments share; None before they are finished, or if there are none.
        trainer: state of the current fit to continue, or None.
    """

    def __init__(
        self,
        target: Path,
        identity: str,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._target, self.path = target, target.with_name(truncate_name(target.name, SUFFIX))
        self.identity = identity
        self.finished: dict[int, dict[str, Any]] = {}
        self.shared: dict[str, Any] | None = None
        self.trainer: dict[str, Any] | None = None
        self.warn, self._clock, self._last = warn, clock, clock() - EVERY_S + FIRST_S
        self._warned = self._created = False
        self._previous_fits = 0  # finished, of an encode whose finished segments another process has
        self._shared_failed = False  # shared parameters could not be written: segments are useless without them

    def __getstate__(self) -> dict[str, Any]:
        """For a worker on this machine that runs the next fit and saves its state; without finished segments."""
        return {
            "target": self._target,
            "identity": self.identity,
            "fits": self._finished_fits,
            "created": self._created,
            "resumes": self.trainer is not None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["target"], state["identity"], lambda _text: None)  # type: ignore[misc]
        self._previous_fits, self._created = state["fits"], state["created"]
        if state["resumes"]:
            self.reload_fit()

    def reload_fit(self) -> None:
        """Read the state of the next fit, which another process saved."""
        with contextlib.suppress(CheckpointError):
            state = read_state(self.path / _FIT, self.identity, verify=True)
            if state.number == self._finished_fits:
                self.trainer, self._created = state.data, True

    def load(self, shares_network: bool = False) -> None:
        """Read the valid files of the folder; warns of damaged ones.

        Args:
            shares_network: finished segments are useless without the shared parameters.

        Raises:
            CheckpointError: there is none, all files are damaged, or it belongs to another source or other options.
        """
        if not os.path.lexists(self.path):
            raise CheckpointError(f"{self.path}: {_NOTHING}")
        damaged: list[Path] = []

        def read_if_valid(path: Path) -> StoredState | None:
            try:
                return read_state(path, self.identity, verify=True) if path.exists() else None
            except DamagedError:
                damaged.append(path)
                return None

        names = [path.name.removeprefix(_SEGMENT) for path in self.path.glob(f"{_SEGMENT}*")]
        numbers = sorted(int(name) for name in names if name.isdecimal())
        segments = {number: read_if_valid(self._segment_path(number)) for number in numbers}
        shared, fit = read_if_valid(self.path / _SHARED), read_if_valid(self.path / _FIT)
        self.finished = {number: state.data for number, state in segments.items() if state is not None}
        if not self.finished and shared is None and fit is None:
            raise CheckpointError(f"{damaged[0]}: {_UNUSABLE}" if damaged else f"{self.path}: {_NOTHING}")
        if shares_network and self.finished and shared is None:
            raise CheckpointError(f"{self.path}: {_UNUSABLE}")
        for path in damaged:
            self.warn(f"{path}: is damaged; it is fitted again")
        self.shared = None if shared is None else shared.data
        # A state older than the latest finished segment is of a finished fit. With damaged files the number of
        # finished fits is not known.
        is_current = not damaged and fit is not None and fit.number == self._finished_fits
        self.trainer = fit.data if fit is not None and is_current else None
        self._created = True

    def restarted(self) -> Checkpoint:
        """An empty checkpoint in place of one that is missing or cannot be resumed; warns of it."""
        exists = os.path.lexists(self.path)
        reason = "is damaged, or of another source or other options" if exists else "nothing to resume"
        self.warn(f"{self.path}: {reason}; the encode starts from the beginning")
        return Checkpoint(self._target, self.identity, self.warn, self._clock)

    def _segment_path(self, number: int) -> Path:
        return self.path / f"{_SEGMENT}{number}"

    def save_if_due(self, trainer_state: Callable[[], dict[str, Any]]) -> bool:
        """Write the state of the fit if the last attempt is a minute ago; returns whether it was written."""
        if self._clock() - self._last < EVERY_S:
            return False
        self._last = self._clock()
        return self._save(self.path / _FIT, self._finished_fits, trainer_state())

    @property
    def _finished_fits(self) -> int:
        return self._previous_fits + len(self.finished) + (self.shared is not None)

    def finish_shared(self, data: dict[str, Any]) -> None:
        """Write the finished shared parameters."""
        self._shared_failed = not self._save(self.path / _SHARED, 0, data)
        self.shared, self.trainer = data, None

    def finish_segment(self, number: int, data: dict[str, Any]) -> dict[str, Any]:
        """Write a finished segment; returns its data, memory-mapped where it could be written."""
        if not self._shared_failed and self._save(self._segment_path(number), number, data):
            data = read_state(self._segment_path(number), self.identity).data
        self.finished[number] = data
        self.trainer = None
        return data

    def _save(self, path: Path, number: int, data: dict[str, Any]) -> bool:
        try:
            if not self._created:
                self.remove()  # left by an encode that was not resumed
                self.path.mkdir(exist_ok=True)
                self._created = True
            write_state(path, self.identity, StoredState(number, data))
        except (OSError, RuntimeError) as error:
            if not self._warned:
                # torch's message for a full disk names its internals.
                reason = getattr(error, "strerror", None) or "the disk may be full"
                reason = "a file of that name is in the way" if isinstance(error, FileExistsError) else reason
                self.warn(f"{self.path}: checkpoints cannot be written ({reason}); the fit continues without")
            self._warned = True
            self._remove_if_empty()
            return False
        return True

    def delete_fit(self) -> None:
        """Delete the state of the last, finished fit: the output may need the space."""
        if self.path.is_dir():
            (self.path / _FIT).unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the checkpoint; other files in its folder stay."""
        if not self.path.is_dir():
            return
        for path in self.path.iterdir():
            if path.name.lstrip(".").startswith((_FIT, _SEGMENT, _SHARED)):
                path.unlink(missing_ok=True)
        self._remove_if_empty()

    def _remove_if_empty(self) -> None:
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()
            self._created = False
