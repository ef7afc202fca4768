# SPDX-License-Identifier: MIT
"""Sizes, times and qualities as people read them."""

from __future__ import annotations

from nervcodec.formats.header import IDENTICAL_DB


def human_bytes(count: int) -> str:
    """``509,868 bytes`` as ``510 KB``."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"


def timecode(seconds: float) -> str:
    """``h:mm:ss.mmm``, without the hours where there are none."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
    return f"{hours}:{tail}" if hours else tail


def decibels(psnr_db: float) -> str:
    """A quality, in words where nothing is lost."""
    return "the same pixels as the source" if psnr_db >= IDENTICAL_DB else f"{psnr_db:.2f} dB PSNR"
