# SPDX-License-Identifier: MIT
"""How stored arrays hold weights. Standard library only.

The id is written to files, so it is a constant for ever: a new way of storing weights gets a new id beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

STREAM = "stream"  # uint8, all weights of a network, entropy coded (:mod:`nervcodec.formats.bitstream`)


@dataclass(frozen=True)
class TensorCode:
    """How one stored array turns back into numbers.

    Attributes:
        codec: ``stream``.
    """

    codec: str

    def __post_init__(self) -> None:
        if self.codec != STREAM:
            raise ValueError(f"unknown tensor codec {self.codec[:40]!r}; this file needs a newer nervcodec")
