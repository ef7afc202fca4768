# SPDX-License-Identifier: MIT
"""Checkpoints of an encode on disk, so that an interrupted encode can be resumed.

Each file of a checkpoint is written by ``torch.save``, holds plain values and tensors, and is read memory-mapped.
"""

from __future__ import annotations

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
from nervcodec.formats.text import within

UNUSABLE = "is damaged and cannot be resumed; run without --resume"
SUFFIX = ".resume"
_STATE, _SEGMENT, _SHARED = "fit", "segment_", "shared"  # names in the folder
_NOTHING = "nothing to resume; run without --resume"
EVERY_S, FIRST_S = 60.0, 10.0  # at most one checkpoint in so long, the first after less


class DamagedError(CheckpointError):
    """A file is damaged."""


class Stored(NamedTuple):
    """What a file holds.

    Attributes:
        number: that was given to it.
        facts: plain values and tensors, which are not in memory.
    """

    number: int
    facts: dict[str, Any]


def write(place: Path, identity: str, stored: Stored) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError, RuntimeError: it cannot be written; torch reports a full disk as the latter.
    """
    with replacing(place) as temporary:
        torch.save({"identity": identity, "number": stored.number, "facts": stored.facts}, temporary)


def read(place: Path, identity: str, check: bool = False) -> Stored:
    """Read a file.

    Args:
        place: where it is.
        identity: that it must have.
        check: look at all of it. Torch writes a checksum of each part, and reads none.

    Raises:
        DamagedError: it is.
        CheckpointError: it is another encode's.
    """
    try:
        if check:
            with zipfile.ZipFile(place) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
        stored = torch.load(place, map_location="cpu", weights_only=True, mmap=True)
        found, own = Stored(stored["number"], stored["facts"]), stored["identity"]
    except Exception:  # a damaged file makes torch and its unpickler raise whatever there is
        raise DamagedError(f"{place}: {UNUSABLE}") from None
    if own != identity:
        raise CheckpointError(f"{place.parent}: belongs to another source or other options; run without --resume")
    return found


def read_if_whole(place: Path, identity: str, damaged: list[Path]) -> Stored | None:
    """All of a file; None where there is none, and where it is damaged, which is added to those that are.

    Raises:
        CheckpointError: it is another encode's.
    """
    try:
        return read(place, identity, check=True) if place.exists() else None
    except DamagedError:
        damaged.append(place)
        return None


def identity(*parts: object) -> str:
    """What an encode must have in common with the one that is resumed, as a digest of the parts' ``repr``."""
    return hashlib.blake2b(repr((__version__, FORMAT_VERSION, *parts)).encode(), digest_size=16).hexdigest()


class Checkpoint:
    """An encode under way, in a folder beside its output: each finished segment, and the state of the fit of the next.

    Files are written whole or not at all: a segment's when it is finished, the state after ten seconds, then once a
    minute at most.

    Args:
        target: the output; the folder has its name, shortened where need be, with ``.resume`` added.
        identity: see :func:`identity`; a stored one must be the same.
        warn: told, once, that checkpoints cannot be written; the encode goes on without.
        clock: seconds.

    Attributes:
        finished: what is known of each finished segment by its number, plain values and tensors; those read from the
            folder are not in memory.
        shared: what is known of what segments share, plain values and tensors; None before that is finished, or where
            they share nothing.
        trainer: state of the fit that comes next to go on from, or None.
    """

    def __init__(
        self,
        target: Path,
        identity: str,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._target, self.path = target, target.with_name(within(target.name, SUFFIX))
        self.identity = identity
        self.finished: dict[int, dict[str, Any]] = {}
        self.shared: dict[str, Any] | None = None
        self.trainer: dict[str, Any] | None = None
        self._warn, self._clock, self._last = warn, clock, clock() - EVERY_S + FIRST_S
        self._warned = self._begun = False
        self._useless = False  # what segments share could not be written: without it they are worth nothing

    def load(self, shares_network: bool = False) -> None:
        """Take over what is stored and whole; it warns of what is damaged.

        Args:
            shares_network: finished segments are worth nothing without what they share.

        Raises:
            CheckpointError: there is nothing, all of it is damaged, or it belongs to another source or other options.
        """
        if not os.path.lexists(self.path):
            raise CheckpointError(f"{self.path}: {_NOTHING}")
        names = [place.name.removeprefix(_SEGMENT) for place in self.path.glob(f"{_SEGMENT}*")]
        numbers = sorted(int(name) for name in names if name.isdecimal())
        damaged: list[Path] = []
        found = {number: read_if_whole(self._place(number), self.identity, damaged) for number in numbers}
        shared, state = (read_if_whole(self.path / name, self.identity, damaged) for name in (_SHARED, _STATE))
        self.finished = {number: each.facts for number, each in found.items() if each is not None}
        if not self.finished and shared is None and state is None:
            raise CheckpointError(f"{damaged[0]}: {UNUSABLE}" if damaged else f"{self.path}: {_NOTHING}")
        if shares_network and self.finished and shared is None:
            raise CheckpointError(f"{self.path}: {UNUSABLE}")
        for place in damaged:
            self._warn(f"{place}: is damaged; what it held is fitted again")
        self.shared = None if shared is None else shared.facts
        # A state that is older than what was finished last is of a fit that is over; where something is damaged, how
        # much is finished does not tell.
        goes_on = not damaged and state is not None and state.number == self._fits
        self.trainer = state.facts if state is not None and goes_on else None
        self._begun = True

    def anew(self) -> Checkpoint:
        """An empty one, since what is stored cannot be gone on from; it is told so."""
        self._warn(f"{self.path}: is damaged, or of another source or other options; the encode begins anew")
        return Checkpoint(self._target, self.identity, self._warn, self._clock)

    def _place(self, number: int) -> Path:
        return self.path / f"{_SEGMENT}{number}"

    def save_if_due(self, trainer_state: Callable[[], dict[str, Any]]) -> bool:
        """Write the state of the fit if the last attempt is a minute old; tells whether it did."""
        if self._clock() - self._last < EVERY_S:
            return False
        self._last = self._clock()
        return self._save(self.path / _STATE, self._fits, trainer_state())

    @property
    def _fits(self) -> int:
        """Fits that are over."""
        return len(self.finished) + (self.shared is not None)

    def finish_shared(self, facts: dict[str, Any]) -> None:
        """Write what segments share, once it is finished."""
        self._useless = not self._save(self.path / _SHARED, 0, facts)
        self.shared, self.trainer = facts, None

    def finish_segment(self, number: int, facts: dict[str, Any]) -> dict[str, Any]:
        """Write a finished segment; returns what is known of it, out of memory where it could be written."""
        if not self._useless and self._save(self._place(number), number, facts):
            facts = read(self._place(number), self.identity).facts
        self.finished[number] = facts
        self.trainer = None
        return facts

    def _save(self, place: Path, number: int, facts: dict[str, Any]) -> bool:
        try:
            if not self._begun:
                self.remove()  # what an encode left that nobody went on with
                self.path.mkdir(exist_ok=True)
                self._begun = True
            write(place, self.identity, Stored(number, facts))
        except (OSError, RuntimeError) as error:
            if not self._warned:
                # What torch says of a full disk is of its own parts.
                reason = getattr(error, "strerror", None) or "the disk may be full"
                reason = "a file of that name is in the way" if isinstance(error, FileExistsError) else reason
                self._warn(f"{self.path}: checkpoints cannot be written ({reason}); the fit goes on without")
            self._warned = True
            self._drop_if_empty()
            return False
        return True

    def forget_fit(self) -> None:
        """Delete the state of the last fit, which is over: the output may need the room."""
        if self._begun:
            (self.path / _STATE).unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete all of it, once there is nothing left to resume; files that are not its own stay."""
        if not self.path.is_dir():
            return
        for place in self.path.iterdir():
            if place.name.lstrip(".").startswith((_STATE, _SEGMENT, _SHARED)):
                place.unlink(missing_ok=True)
        self._drop_if_empty()

    def _drop_if_empty(self) -> None:
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()
            self._begun = False
