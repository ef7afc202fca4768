# SPDX-License-Identifier: MIT
"""Options of the base layer: its kind and quality. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from nervcodec.errors import OptionsError
from nervcodec.formats.header import AV1, COPY, MAX_CRF
from nervcodec.settings import Setting, validate

SECTION = "Base layer"
NONE = "none"
DEFAULT_CRF = 35


def _check_quarter(crf: float) -> None:
    if crf * 4 % 1:
        raise OptionsError(f"crf {crf:g} must be a multiple of 0.25")


@dataclass(frozen=True)
class BaseOptions:
    """The base layer: none, an AV1 stream, or the source's stream as it is."""

    base: str = Setting(
        NONE, "What holds the frames: the network itself, an AV1 stream, or the source's own stream, bit for bit. "
        "Embeddings are stored beside a stream.", SECTION, choices=(NONE, AV1, COPY),
    ).field()  # fmt: skip
    crf: float | None = Setting(
        None, "Quality of the AV1 stream, from 1 (best) on, in steps of a quarter.", SECTION,
        unset=f"{DEFAULT_CRF}, or what a size, a PSNR or a VMAF takes", least=1, most=MAX_CRF, check=_check_quarter,
        metavar="N",
    ).field()  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)

    @property
    def first_crf(self) -> float:
        """The chosen or default quality, at which a search begins."""
        return DEFAULT_CRF if self.crf is None else self.crf
