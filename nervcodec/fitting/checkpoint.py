# SPDX-License-Identifier: MIT
"""The state of an encode on disk, so that one that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nervcodec import __version__
from nervcodec.errors import ConfigError
from nervcodec.formats.atomic import replacing
from nervcodec.formats.header import FORMAT_VERSION
from nervcodec.formats.names import within

SUFFIX = ".resume"
EVERY_S, FIRST_S = 60.0, 10.0  # at most one checkpoint in so long, the first after less


def identity(*parts: object) -> str:
    """What an encode must have in common with the one that is resumed, as a digest of the parts' ``repr``."""
    return hashlib.blake2b(repr((__version__, FORMAT_VERSION, *parts)).encode(), digest_size=16).hexdigest()


@dataclass
class Checkpoint:
    """An encode under way.

    Attributes:
        identity: see :func:`identity`.
        finished: what is known of each finished segment; plain values and tensors.
        trainer: state of the fit of the next segment, or None.
    """

    identity: str
    finished: list[dict[str, Any]] = field(default_factory=list)
    trainer: dict[str, Any] | None = None


class CheckpointFile:
    """The checkpoint beside an output, written whole or not at all: after ten seconds, then once a minute at most.

    Args:
        target: the output; the checkpoint has its name, shortened where need be, with ``.resume`` added.
        current: the encode's own checkpoint, whose ``identity`` a stored one must have.
        warn: told, once, that checkpoints cannot be written; the encode goes on without.
        clock: seconds.
    """

    def __init__(
        self,
        target: Path,
        current: Checkpoint,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.path = target.with_name(within(target.name, SUFFIX))
        self.current, self._warn, self._clock, self._last = current, warn, clock, clock() - EVERY_S + FIRST_S
        self._warned = False

    def load(self) -> None:
        """Take over what is stored.

        Raises:
            ConfigError: there is nothing, it is damaged, or it belongs to another source or other options.
        """
        try:
            stored = torch.load(self.path, map_location="cpu", weights_only=True)
            found = Checkpoint(stored["identity"], stored["finished"], stored["trainer"])
        except FileNotFoundError:
            raise ConfigError(f"{self.path}: nothing to resume; run without --resume") from None
        except Exception as error:  # a damaged file makes torch and its unpickler raise whatever there is
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
            raise ConfigError(f"{self.path}: cannot be resumed ({reason})") from None
        if found.identity != self.current.identity:
            raise ConfigError(f"{self.path}: belongs to another source or other options; run without --resume")
        self.current.finished, self.current.trainer = found.finished, found.trainer

    def save_if_due(self, trainer_state: Callable[[], dict[str, Any]]) -> bool:
        """Write the checkpoint if the last attempt is a minute old; tells whether it did."""
        if self._clock() - self._last < EVERY_S:
            return False
        self.current.trainer = trainer_state()
        return self._save()

    def finish_segment(self, facts: dict[str, Any]) -> None:
        """Note that a segment is done; it is written if that is due, or with the next checkpoint."""
        self.current.finished.append(facts)
        self.current.trainer = None
        if self._clock() - self._last >= EVERY_S:
            self._save()

    def _save(self) -> bool:
        self._last = self._clock()
        try:
            with replacing(self.path) as temporary:
                torch.save(vars(self.current), temporary)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            if not self._warned:
                reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:100]
                self._warn(f"{self.path}: checkpoints cannot be written ({reason}); the fit goes on without")
            self._warned = True
            return False
        return True

    def remove(self) -> None:
        """Delete the file, once there is nothing left to resume."""
        self.path.unlink(missing_ok=True)
