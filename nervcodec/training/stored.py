# SPDX-License-Identifier: MIT
"""One file of a checkpoint: plain values and tensors, and of which encode they are. In torch's format, mapped."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nervcodec.errors import CheckpointError
from nervcodec.formats.atomic import replacing

UNUSABLE = "is damaged and cannot be resumed; run without --resume"


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
