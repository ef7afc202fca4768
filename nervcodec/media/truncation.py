# SPDX-License-Identifier: MIT
"""Detection of media files that are cut off, from their structure. Standard library only.

FFmpeg reports it at most in its log. A file is followed from one stated length to the next, without its contents; an
unknown part, such as damage, does not count as an end.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_HEAD = 32  # bytes of the longest head of a part
_MP4_PARTS = set(b"ftyp styp moov mdat moof mfra sidx free skip wide uuid meta udta pnot PICT".split())
_EBML_OPEN = {0x18538067, 0x1F43B675}  # Segment and Cluster, which may have no stated length
_EBML_WITHIN = {0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0xAF, 0xBF, 0xEC, 0x5854}  # what a cluster holds; others have 4 bytes
_ASF_OBJECTS = {bytes.fromhex(g) for g in ["3026b275", "3626b275", "90080033", "d329e2d6", "f803b1fe", "d03fb73c"]}
_FLV_TAGS = {8, 9, 18}
_TS_PACKETS, _TS_SYNC, _TS_LOOK = (188, 192, 204), 0x47, 8
_GIF_IMAGE, _GIF_EXTENSION, _GIF_TRAILER = 0x2C, 0x21, 0x3B
_OGG_PAGE, _OGG_LONGEST = b"OggS", 27 + 255 + 255 * 255

Step = Callable[[bytes], int | None]


def is_cut_off(path: Path, form: str, end: int | None = None) -> bool:
    """Whether a file ends within a part whose length it states, or before the part that ends a file of its format.

    Args:
        path: the file.
        form: FFmpeg's names of its format, with commas between; False for one that is not known here.
        end: of the last packet, in bytes from the beginning of the file; None where that is not known.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.path.getsize(path)
    if end is not None and form in _BY_LAST_PACKET:
        return _BY_LAST_PACKET[form](size - end)
    with open(path, "rb") as file:
        for name in form.split(","):
            if name in _STEPS:
                return _walk(file, size, *_STEPS[name])
        return _OTHERS[form](file, size) if form in _OTHERS else False


def lacks_index(path: Path) -> bool:
    """Whether an MP4 or QuickTime file has media data (``mdat``) and no index (``moov``).

    Raises:
        OSError: the file cannot be read.
    """
    kinds = set()

    def step(head: bytes) -> int | None:
        kinds.add(head[4:8])
        return _mp4(head)

    with open(path, "rb") as file:
        _walk(file, os.path.getsize(path), step, 0)
    return b"mdat" in kinds and b"moov" not in kinds


def _walk(file: BinaryIO, size: int, step: Step, at: int) -> bool:
    while at < size:
        file.seek(at)
        head = file.read(_HEAD)
        length = step(head) if head else None
        if length is None:
            return False
        at += length
    return at > size


def _mp4(head: bytes) -> int | None:
    """An atom of MP4 or QuickTime."""
    length, kind = int.from_bytes(head[:4], "big"), head[4:8]
    if length == 1:
        length = int.from_bytes(head[8:16], "big")
    return length if length >= 8 and kind in _MP4_PARTS else None


def _ebml(head: bytes) -> int | None:
    """An element of Matroska; one of no stated length is stepped into."""
    if not head[0] >> 4:
        return None
    place = 9 - head[0].bit_length()
    if len(head) <= place:
        return _HEAD  # the file ends here
    if not head[place]:
        return None
    length = 9 - head[place].bit_length()
    size = int.from_bytes(head[place : place + length], "big") & ((1 << 7 * length) - 1)
    number = int.from_bytes(head[:place], "big")
    if size == (1 << 7 * length) - 1:
        return place + length if number in _EBML_OPEN else None
    return place + length + size if place == 4 or number in _EBML_WITHIN else None


def _riff(head: bytes) -> int | None:
    """A chunk of AVI; one that holds all is stepped into."""
    if head[:4] == b"RIFF":
        return 12
    length = int.from_bytes(head[4:8], "little")
    return 8 + length if head[:4] in (b"LIST", b"JUNK", b"idx1") and 0 < length < 0xFFFFFFFF else None


def _flv(head: bytes) -> int | None:
    """A tag of FLV with the length of the one before it."""
    if len(head) <= 4:
        return len(head)  # the last length, or a part of it
    is_tag = head[4] & 31 in _FLV_TAGS and not any(head[12:15])
    return 15 + int.from_bytes(head[5:8], "big") if is_tag else None


def _mxf(head: bytes) -> int | None:
    """A key, length and value of MXF."""
    if head[:4] != b"\x06\x0e\x2b\x34" or len(head) < 17:
        return None
    more = head[16] & 127 if head[16] & 128 else 0
    return 17 + more + (int.from_bytes(head[17 : 17 + more], "big") if more else head[16])


def _mpegps(head: bytes) -> int | None:
    """A pack header or a packet of an MPEG program stream."""
    if head[:3] != b"\0\0\1" or len(head) < 4 or head[3] < 0xB9:
        return None
    if head[3] == 0xB9:
        return 4
    if head[3] != 0xBA:
        return 6 + int.from_bytes(head[4:6], "big")
    if len(head) < 14:
        return _HEAD
    return 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12  # MPEG-2 or 1


def _asf(head: bytes) -> int | None:
    """An object of ASF."""
    length = int.from_bytes(head[16:24], "little")
    return length if length >= 24 and head[:4] in _ASF_OBJECTS else None


def _mpegts(file: BinaryIO, size: int) -> bool:
    """Whether the last of several whole packets of a transport stream is followed by a part of one."""
    begin = max(0, size - max(_TS_PACKETS) * (_TS_LOOK + 1))
    file.seek(begin)
    tail = file.read()
    for packet in _TS_PACKETS:
        sync = 4 if packet == 192 else 0  # behind a time stamp of Blu-ray discs
        for rest in range(packet):  # bytes behind the last whole packet
            places = [len(tail) - rest - packet * number + sync for number in range(1, _TS_LOOK + 1)]
            if places[-1] >= 0 and all(tail[place] == _TS_SYNC for place in places):
                return rest > sync and tail[len(tail) - rest + sync] == _TS_SYNC
    return False


def _ogg(file: BinaryIO, size: int) -> bool:
    """Whether the last page of an Ogg file is cut off."""
    file.seek(max(0, size - 2 * _OGG_LONGEST))
    tail = file.read()
    if (place := tail.rfind(_OGG_PAGE)) < 0:
        return False
    page = tail[place:]
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _nut(file: BinaryIO, size: int) -> bool:
    """Whether the index at the end of a NUT file is missing."""
    file.seek(max(0, size - 12))
    length = int.from_bytes(file.read(8), "big")
    file.seek(max(0, size - length))
    return file.read(2) != b"NX"


def _gif(file: BinaryIO, size: int) -> bool:
    """Whether no trailer follows the images and extensions of a GIF file, which are read no further than that."""
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def colours(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    with data, contextlib.suppress(IndexError):
        at = 13 + colours(data[10])
        while (kind := data[at]) != _GIF_TRAILER:
            if kind not in (_GIF_IMAGE, _GIF_EXTENSION):
                return True
            at += 11 + colours(data[at + 9]) if kind == _GIF_IMAGE else 2
            while length := data[at]:
                at += 1 + length
            at += 1
        return False
    return True


# By the bytes behind the last packet: frames of Y4M and DV are all as long.
_BY_LAST_PACKET: dict[str, Callable[[int], bool]] = {
    "yuv4mpegpipe": lambda rest: rest > 0,
    "dv": lambda rest: rest < 0,
}
_STEPS: dict[str, tuple[Step, int]] = {
    "mov": (_mp4, 0),
    "matroska": (_ebml, 0),
    "avi": (_riff, 0),
    "flv": (_flv, 9),
    "asf": (_asf, 0),
    "mpeg": (_mpegps, 0),
    "mxf": (_mxf, 0),
}
_OTHERS: dict[str, Callable[[BinaryIO, int], bool]] = {"mpegts": _mpegts, "ogg": _ogg, "gif": _gif, "nut": _nut}
