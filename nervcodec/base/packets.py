# SPDX-License-Identifier: MIT
"""A source's video packets taken out as they are, and the proof that they decode to the frames of the source."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nervcodec.base import copied
from nervcodec.errors import ContainerError, VideoError, explained
from nervcodec.formats.header import BaseFacts, PlaneFormat
from nervcodec.formats.kinds import COPY
from nervcodec.video import ffmpeg, matroska
from nervcodec.video.planes import Planes
from nervcodec.video.source import VideoInfo

_REMEDY = "--base av1 codes it anew"
_CLUSTERS = ["-cluster_time_limit", "5000", "-cluster_size_limit", str(5 << 20)]  # the longest and largest
_PIECE = 1 << 20  # bytes read at once
_TICK_S = 1e-3  # of times in Matroska
_APART_S = 5.0  # from one entry to the next, at least


def fingerprint(frame: Planes) -> bytes:
    """What tells frames apart."""
    digest = hashlib.blake2b(digest_size=8)
    for plane in frame:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.digest()


@dataclass(frozen=True)
class Packets:
    """Packets of a video stream in a Matroska file.

    Attributes:
        file: where they are.
        source: of whose they are.
        form: what samples become.
        codec: ffmpeg's name.
        size: (width, height) as coded, before rotation.
    """

    file: Path
    source: VideoInfo
    form: PlaneFormat
    codec: str
    size: tuple[int, int]

    @classmethod
    def of(cls, source: VideoInfo, form: PlaneFormat, file: Path) -> Packets:
        """Take the packets of a source.

        Args:
            source: a scanned file.
            form: what its samples become.
            file: to be written.

        Raises:
            VideoError: it is a folder of images, or its packets cannot go into Matroska.
        """
        from nervcodec.video import media

        require_packets(source)
        opening = ["-fflags", "+genpts", *source.input.arguments()]
        output = ["-c", "copy", "-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact"]
        # Live: of no stated length, so that what begins at a cluster is a whole file, too.
        output += ["-allow_raw_vfw", "1", "-live", "1", *_CLUSTERS, "-f", "matroska", f"file:{file}"]
        with ffmpeg.Process([*opening, *output]) as process:
            if process.wait():
                said = process.complaint()
                raise VideoError(f"{source.path}: its packets cannot go into Matroska as they are ({said}); {_REMEDY}")
        with media.opened(file) as container:
            (stream,) = container.streams.video
            return cls(file, source, form, media.codec_name(stream), (stream.width, stream.height))

    def checked(self, wanted: Sequence[bytes], advance: Callable[[], None]) -> BaseFacts:
        """What a header says of them, once they were seen to decode to the frames of the source.

        Args:
            wanted: fingerprints of the frames of the source, in order.
            advance: called for each frame that is decoded.

        Raises:
            VideoError: they do not.
        """
        try:
            skipped, flawed = self._found(wanted, False, advance), False
        except ContainerError:
            skipped, flawed = self._found_for_sure(wanted, advance), True
        entries = () if skipped or flawed else tuple(self._entries(wanted, advance))
        return BaseFacts(
            COPY, self.codec, self.form, *self.size, psnr_db=100.0, skipped=skipped, entries=entries, flawed=flawed
        )

    def _found_for_sure(self, wanted: Sequence[bytes], advance: Callable[[], None]) -> int:
        try:
            return self._found(wanted, True, advance)
        except ContainerError as error:
            raise VideoError(
                f"{self.source.path}: its packets do not decode to its frames without its file ({error}); {_REMEDY}"
            ) from None

    def _found(self, wanted: Sequence[bytes], flawed: bool, advance: Callable[[], None]) -> int:
        """How many frames come before those that are wanted; they are all that come after."""
        found = []
        for frame in self._from(0, flawed):
            found.append(fingerprint(frame))
            advance()
        skipped = len(found) - len(wanted)
        if skipped < 0:
            raise ContainerError(f"they give {len(found)} frames, and the source {len(wanted)}")
        for number, (one, other) in enumerate(zip(found[skipped:], wanted, strict=True)):
            if one != other:
                what = f"frame {number} is another" if not skipped else f"they give {len(found)} frames"
                raise ContainerError(f"{what}, and the source has {len(wanted)}")
        return skipped

    def _from(self, begin: int, flawed: bool = False, said: list[str] | None = None) -> Generator[Planes, None, None]:
        """Frames decoded from a cluster on, or from the beginning; see :func:`nervcodec.base.copied.every_frame`."""
        pieces = self._pieces((0, None)) if not begin else self._pieces((0, self._clusters[0].begin), (begin, None))
        return copied.every_frame(pieces, self.form, self.source.width, self.source.height, flawed=flawed, said=said)

    def _pieces(self, *parts: tuple[int, int | None]) -> Iterator[bytes]:
        with explained(f"{self.file}: cannot be read", VideoError), open(self.file, "rb") as file:
            for begin, end in parts:
                file.seek(begin)
                while piece := file.read(_PIECE if end is None else min(_PIECE, end - file.tell())):
                    yield piece

    @cached_property
    def _clusters(self) -> list[matroska.Cluster]:
        return list(matroska.clusters(np.memmap(self.file, np.uint8, "r").data))

    def _entries(self, wanted: Sequence[bytes], advance: Callable[[], None]) -> list[tuple[int, int]]:
        """Where decoding may begin, (frame, byte): what was tried and gave the same frames up to the next.

        A key frame alone is no proof: frames after it may lean on some before it, or the picture builds up slowly.
        """
        candidates = self._candidates()
        kept = candidates[:1]
        ends = [*(frame for frame, _ in candidates[2:]), len(wanted)]
        for (frame, begin), end in zip(candidates[1:], ends, strict=False):
            if self._agrees(begin, wanted[frame:end], advance):
                kept.append((frame, begin))
        return kept if len(kept) > 1 else []

    def _candidates(self) -> list[tuple[int, int]]:
        """Key frames that begin a cluster and show when a frame does, the first among them, some seconds apart."""
        clusters, times = self._clusters, self.source.times_s
        if not clusters:
            return []
        found = [(0, clusters[0].begin)]
        for cluster in clusters[1:]:
            shows_s = (cluster.time - clusters[0].time) * _TICK_S
            frame = int(np.argmin(np.abs(times - shows_s)))
            is_apart = times[frame] - times[found[-1][0]] >= _APART_S
            if cluster.is_key and is_apart and abs(times[frame] - shows_s) <= 1.5 * _TICK_S:
                found.append((frame, cluster.begin))
        return found

    def _agrees(self, begin: int, wanted: Sequence[bytes], advance: Callable[[], None]) -> bool:
        said: list[str] = []
        with contextlib.closing(self._from(begin, said=said)) as frames:
            try:
                for fingerprint_ in wanted:
                    if fingerprint(next(frames)) != fingerprint_:
                        return False
                    advance()
            except (ContainerError, StopIteration):
                return False
        return not said  # what it complained of may come to be known after the frames, and would later be an error


def require_packets(source: VideoInfo) -> None:
    """Refuse what has no packets.

    Raises:
        VideoError: it is a folder of images.
    """
    if source.images:
        raise VideoError(f"{source.path}: is a folder of images, which has no stream to copy; {_REMEDY}")
