# SPDX-License-Identifier: MIT
"""Text for people and for file names: names that fit a file system, escaped foreign text, sizes, times, qualities."""

from __future__ import annotations

import os
import unicodedata

from nervcodec.formats.header import IDENTICAL_DB

SUFFIX = ".nerv"  # of a container
# Folders that a file system, a NAS, a recycle bin or an archive keeps its own files in, in lower case.
SYSTEM_FOLDERS = frozenset(
    ("@eadir", "@recently-snapshot", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "recycler", "lost+found")
    + ("__macosx", "system volume information", "network trash folder", "temporary items")
)
NAME_BYTES = 255  # the most that ext4, APFS, NTFS and most others take for one name
_JOINERS = "\u200c\u200d"  # within words of Persian and Indic scripts, and within emoji
_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def truncate_name(stem: str, suffix: str = "", limit: int = NAME_BYTES) -> str:
    """``stem + suffix``, with the stem truncated where the name would exceed ``limit`` bytes.

    Args:
        stem: may contain surrogate escapes of ``os.fsdecode``; no character is split.
        suffix: never truncated.
        limit: in encoded bytes.
    """
    available = limit - len(os.fsencode(suffix))
    sizes = [len(os.fsencode(character)) for character in stem]
    kept, used = len(stem), sum(sizes)
    while kept and used > available:
        kept -= 1
        used -= sizes[kept]
    return stem[:kept] + suffix


def is_system_folder(name: str) -> bool:
    """Whether a folder of this name holds system files such as thumbnails or deleted files."""
    return name.lower() in SYSTEM_FOLDERS


def sanitize_name(name: str) -> str:
    """A source's name for the header: printable, without folders, at most a file name long."""
    return truncate_name("".join(c if c.isprintable() and c not in "/\\" else "_" for c in name))


def escape_character(character: str) -> str:
    r"""A character as ``\n``, ``\x1b`` or ``\u202e``; a surrogate escape (``\udcff``) as ``\xff``."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape(text: str) -> str:
    """The text on one line, with control and unprintable characters escaped."""
    return "".join(c if _is_harmless(c) else escape_character(c) for c in text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def count_noun(count: int, noun: str) -> str:
    """A number and what it counts: ``1 frame``, ``2,000 frames``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shorten(text: str, length: int = 70) -> str:
    """:func:`escape`, with the middle elided beyond ``length`` characters."""
    line = escape(text)
    if len(line) <= length:
        return line
    end = length // 3
    return f"{line[: length - end - 1]}…{line[len(line) - end :]}"


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


def short_timecode(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def decibels(psnr_db: float) -> str:
    """A PSNR, or words for identical pixels."""
    return "the same pixels as the source" if psnr_db >= IDENTICAL_DB else f"{psnr_db:.2f} dB PSNR"
