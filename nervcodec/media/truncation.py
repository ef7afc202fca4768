# SPDX-License-Identifier: MIT
"""Detection of truncated media files from their structure. Standard library only.

FFmpeg reports truncation at most in its log.
Most formats are sequences of elements that state their length: they are followed from one to the next without reading
their contents. An unknown element, such as damage, does not count as truncation.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_HEADER_BYTES = 32  # of the longest element header
_MP4_ATOMS = set(b"ftyp styp moov mdat moof mfra sidx free skip wide uuid meta udta pnot PICT".split())
_EBML_UNSIZED = {0x18538067, 0x1F43B675}  # Segment and Cluster, which may state no length
_EBML_IN_CLUSTER = {0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0xAF, 0xBF, 0xEC, 0x5854}  # other identifiers have 4 bytes
_ASF_OBJECTS = {bytes.fromhex(g) for g in ["3026b275", "3626b275", "90080033", "d329e2d6", "f803b1fe", "d03fb73c"]}
_FLV_TAGS = {8, 9, 18}
_TS_PACKET_SIZES, _TS_SYNC_BYTE, _TS_CHECKED_PACKETS = (188, 192, 204), 0x47, 8
_GIF_IMAGE, _GIF_EXTENSION, _GIF_TRAILER = 0x2C, 0x21, 0x3B
_OGG_PAGE, _OGG_MAX_PAGE_BYTES = b"OggS", 27 + 255 + 255 * 255

# From the first bytes of an element to the distance to the next element; None for an unknown element.
ElementLength = Callable[[bytes], int | None]


def is_cut_off(path: Path, form: str, end: int | None = None) -> bool:
    """Whether a file ends within an element whose length it states, or without the element that ends its format.

    Args:
        path: the file.
        form: FFmpeg's names of its format, separated by commas; False for a format that is not known here.
        end: of the last packet, in bytes from the beginning of the file; None if unknown.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.path.getsize(path)
    if end is not None and form == "yuv4mpegpipe":  # all frames have the same size
        return size > end
    if end is not None and form == "dv":
        return size < end
    with open(path, "rb") as file:
        for name in form.split(","):
            if name in _ELEMENTS:
                return _ends_in_element(file, size, *_ELEMENTS[name])
        return _TRAILERS[form](file, size) if form in _TRAILERS else False


def lacks_index(path: Path) -> bool:
    """Whether an MP4 or QuickTime file has media data (``mdat``) and no index (``moov``).

    Raises:
        OSError: the file cannot be read.
    """
    atoms = set()

    def length(header: bytes) -> int | None:
        atoms.add(header[4:8])
        return _mp4(header)

    with open(path, "rb") as file:
        _ends_in_element(file, os.path.getsize(path), length, 0)
    return b"mdat" in atoms and b"moov" not in atoms


def _ends_in_element(file: BinaryIO, size: int, length_of: ElementLength, offset: int) -> bool:
    while offset < size:
        file.seek(offset)
        header = file.read(_HEADER_BYTES)
        length = length_of(header) if header else None
        if length is None:
            return False
        offset += length
    return offset > size


def _mp4(header: bytes) -> int | None:
    """An atom of MP4 or QuickTime."""
    length = int.from_bytes(header[:4], "big")
    if length == 1:
        length = int.from_bytes(header[8:16], "big")
    return length if length >= 8 and header[4:8] in _MP4_ATOMS else None


def _ebml(header: bytes) -> int | None:
    """An element of Matroska; one without a stated length is entered."""
    if not header[0] >> 4:
        return None
    id_bytes = 9 - header[0].bit_length()
    if len(header) <= id_bytes:
        return _HEADER_BYTES  # the file ends here
    if not header[id_bytes]:
        return None
    size_bytes = 9 - header[id_bytes].bit_length()
    unknown_size = (1 << 7 * size_bytes) - 1
    size = int.from_bytes(header[id_bytes : id_bytes + size_bytes], "big") & unknown_size
    number = int.from_bytes(header[:id_bytes], "big")
    if size == unknown_size:
        return id_bytes + size_bytes if number in _EBML_UNSIZED else None
    return id_bytes + size_bytes + size if id_bytes == 4 or number in _EBML_IN_CLUSTER else None


def _riff(header: bytes) -> int | None:
    """A chunk of AVI; the outermost one is entered."""
    if header[:4] == b"RIFF":
        return 12
    length = int.from_bytes(header[4:8], "little")
    return 8 + length if header[:4] in (b"LIST", b"JUNK", b"idx1") and 0 < length < 0xFFFFFFFF else None


def _flv(header: bytes) -> int | None:
    """A tag of FLV with the length of the previous tag before it."""
    if len(header) <= 4:
        return len(header)  # the last length, or a part of it
    is_tag = header[4] & 31 in _FLV_TAGS and not any(header[12:15])
    return 15 + int.from_bytes(header[5:8], "big") if is_tag else None


def _mxf(header: bytes) -> int | None:
    """A key, length and value of MXF."""
    if header[:4] != b"\x06\x0e\x2b\x34" or len(header) < 17:
        return None
    extra = header[16] & 127 if header[16] & 128 else 0
    return 17 + extra + (int.from_bytes(header[17 : 17 + extra], "big") if extra else header[16])


def _mpegps(header: bytes) -> int | None:
    """A pack header or a packet of an MPEG program stream."""
    if header[:3] != b"\0\0\1" or len(header) < 4 or header[3] < 0xB9:
        return None
    if header[3] == 0xB9:
        return 4
    if header[3] != 0xBA:
        return 6 + int.from_bytes(header[4:6], "big")
    if len(header) < 14:
        return _HEADER_BYTES
    return 14 + (header[13] & 7) if header[4] >> 6 == 1 else 12  # MPEG-2 or 1


def _asf(header: bytes) -> int | None:
    """An object of ASF."""
    length = int.from_bytes(header[16:24], "little")
    return length if length >= 24 and header[:4] in _ASF_OBJECTS else None


def _mpegts(file: BinaryIO, size: int) -> bool:
    """Whether the last complete packets of a transport stream are followed by a part of one."""
    file.seek(max(0, size - max(_TS_PACKET_SIZES) * (_TS_CHECKED_PACKETS + 1)))
    tail = file.read()
    for packet in _TS_PACKET_SIZES:
        sync = 4 if packet == 192 else 0  # behind a time stamp of Blu-ray discs
        for partial in range(packet):  # bytes behind the last complete packet
            end = len(tail) - partial + sync
            offsets = range(end - packet, end - packet * (_TS_CHECKED_PACKETS + 1), -packet)
            if offsets[-1] >= 0 and all(tail[offset] == _TS_SYNC_BYTE for offset in offsets):
                return partial > sync and tail[end] == _TS_SYNC_BYTE
    return False


def _ogg(file: BinaryIO, size: int) -> bool:
    """Whether the last page of an Ogg file is cut off."""
    file.seek(max(0, size - 2 * _OGG_MAX_PAGE_BYTES))
    _, magic, page = file.read().rpartition(_OGG_PAGE)
    page = magic + page
    return bool(magic) and (len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]))


def _nut(file: BinaryIO, size: int) -> bool:
    """Whether the index at the end of a NUT file is missing."""
    file.seek(max(0, size - 12))
    length = int.from_bytes(file.read(8), "big")
    file.seek(max(0, size - length))
    return file.read(2) != b"NX"


def _gif(file: BinaryIO, size: int) -> bool:
    """Whether no trailer follows the images and extensions of a GIF file."""
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def palette_bytes(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    with data, contextlib.suppress(IndexError):
        offset = 13 + palette_bytes(data[10])
        while (kind := data[offset]) != _GIF_TRAILER:
            if kind not in (_GIF_IMAGE, _GIF_EXTENSION):
                return True
            offset += 11 + palette_bytes(data[offset + 9]) if kind == _GIF_IMAGE else 2
            while length := data[offset]:
                offset += 1 + length
            offset += 1
        return False
    return True


def _mjpeg(file: BinaryIO, size: int) -> bool:
    """Whether the last picture of raw Motion JPEG lacks the end marker that an earlier one has."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(b"\xff\xd8\xff") > data.rfind(b"\xff\xd9") >= 0


# For each format, the length of an element and the offset of the first element.
_ELEMENTS: dict[str, tuple[ElementLength, int]] = {
    "mov": (_mp4, 0), "matroska": (_ebml, 0), "avi": (_riff, 0), "flv": (_flv, 9),
    "asf": (_asf, 0), "mpeg": (_mpegps, 0), "mxf": (_mxf, 0),
}  # fmt: skip
_TRAILERS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "mpegts": _mpegts, "ogg": _ogg, "gif": _gif, "nut": _nut, "mjpeg": _mjpeg, "jpeg_pipe": _mjpeg,
}  # fmt: skip
