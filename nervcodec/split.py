# SPDX-License-Identifier: MIT
"""Which frames are fitted and which are held out, to see what the network gives between frames it was shown."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nervcodec.errors import ConfigError

FITTED, HELD_OUT, UNUSED = "train", "val", "unused"
LONGEST = 1000


@dataclass(frozen=True)
class FrameSplit:
    """A repeating pattern of frames, written ``valid_train/total_train/total_data`` as HNeRV has it.

    Of every ``total`` frames, ``train`` are on the training side and the rest are held out; of the training side,
    ``fitted`` are fitted and the rest are used for nothing. Each choice is spread evenly. Where ``train`` is
    ``total``, the training frames left over are held out, since nothing else would be.

    Attributes:
        fitted, train, total: 1 <= fitted <= train <= total <= 1000.
    """

    fitted: int
    train: int
    total: int

    def __post_init__(self) -> None:
        if not 1 <= self.fitted <= self.train <= self.total <= LONGEST:
            raise ConfigError(
                f"a split of {self.fitted}/{self.train}/{self.total} frames does not ascend from 1 to at most {LONGEST}"
            )

    @property
    def pattern(self) -> tuple[str, ...]:
        """The role of each of ``total`` frames in turn: ``train``, ``val`` or ``unused``. The first is ``train``."""
        train = _spread(range(self.total), self.train)
        fitted = {train[i] for i in _spread(range(self.train), self.fitted)}
        left_over = HELD_OUT if self.train == self.total else UNUSED
        return tuple(FITTED if i in fitted else left_over if i in train else HELD_OUT for i in range(self.total))

    def roles(self, first: int, count: int) -> list[str]:
        """Roles of ``count`` frames of the video from number ``first`` on."""
        pattern = self.pattern
        return [pattern[(first + i) % self.total] for i in range(count)]


def _spread(items: range, count: int) -> list[int]:
    """``count`` of the items, evenly spaced, the first among them."""
    return [items[k * len(items) // count] for k in range(count)]


def parse_split(text: str) -> FrameSplit:
    """Read ``6_6_10`` or ``6/6/10``.

    Raises:
        ConfigError: not such a text, or numbers that do not ascend.
    """
    if not (match := re.fullmatch(r"(\d{1,4})[_/](\d{1,4})[_/](\d{1,4})", text)):
        raise ConfigError(f"{text!r} is not a split of frames such as 6_6_10")
    return FrameSplit(*(int(part) for part in match.groups()))
