# SPDX-License-Identifier: MIT
"""A source before its frames are decoded: its files, its streams, and which of them is read. Needs no PyAV."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from nervcodec.errors import ChangedError, VideoError
from nervcodec.formats.header import SOURCE_DIGEST_BYTES
from nervcodec.formats.text import SUFFIX
from nervcodec.media.options import DEFAULT_RATE

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_PROBE_RATE = Fraction(37)  # improbable, to test whether a stream takes any rate
_DEFAULT_BONUS = 5_000_000  # pixels that count for the stream marked as default, as in ffmpeg's choice
_DECODERS = {".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg"}
_PIECES, _PIECE_BYTES = 16, 64 << 10  # of a file that its digest covers
_NUMBER = re.compile(r"(\d+)\D*$")


@dataclass(frozen=True)
class Input:
    """How a source is opened and which of its streams is read.

    Attributes:
        path: file or folder.
        images: the files of a folder of frames, in order; empty for a video file.
        number: of the video stream, from 0; stills attached to sound do not count.
        frame_rate: imposed frame rate; None for its own.
        seeks: whether a start is sought in the file; otherwise earlier frames are decoded and dropped.
        threads: whether frames are decoded side by side; damaged ones would come out differently each time.
        animated: it is an animated WebP file.
    """

    path: Path
    images: tuple[Path, ...] = ()
    number: int = 0
    frame_rate: Fraction | None = None
    seeks: bool = True
    threads: bool = True
    animated: bool = False

    @property
    def image_codec(self) -> str:
        """FFmpeg's decoder of a folder's images, which are all of one kind."""
        return decoder_of(self.images[0])


@dataclass(frozen=True)
class Probed:
    """Streams of a source.

    Attributes:
        input: the chosen stream.
        streams: size before rotation and codec of all video streams except attached stills, for messages.
        time_base: of the stream.
        frame_rate: as the stream states it; None where it does not.
        is_guess: the rate is an assumption, since nothing in the file states one.
        has_audio: there is sound.
        duration_s: of the whole file as its container states it, in seconds; None where it does not.
        stream_s: of the stream as it states itself, in seconds; None where it does not.
        has_alpha: its packets hold a second picture, of transparency, which FFmpeg's own decoders leave out.
    """

    input: Input
    streams: tuple[str, ...]
    time_base: Fraction
    frame_rate: Fraction | None
    is_guess: bool = False
    has_audio: bool = False
    duration_s: float | None = None
    stream_s: float | None = None
    has_alpha: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user about the choice of the stream."""
        if len(self.streams) < 2:
            return ()
        listed = ", ".join(f"{number}: {stream}" for number, stream in enumerate(self.streams))
        return (f"has {len(self.streams)} video streams ({listed}); taking {self.input.number}",)


def require_file(path: Path) -> None:
    """Refuse sources that can be read only once: pipes, devices, standard input.

    Raises:
        VideoError: it is not there, or no file and no folder.
    """
    where = path.absolute().parts[:2]
    if str(path) == "-" or where == ("/", "proc") or (where == ("/", "dev") and "shm" not in path.parts):
        raise VideoError(f"{path}: is no file; the source is read more than once and must be a file")
    try:
        exists = path.exists()
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from None
    if not exists:
        raise VideoError(f"{path}: no such file or folder")
    if not path.is_file() and not path.is_dir():
        raise VideoError(f"{path}: is a pipe or a device; the source is read more than once and must be a file")


def probe(path: Path, stream: int | None = None, frame_rate: Fraction | None = None) -> Probed:
    """Read the streams of a video file.

    Args:
        path: the file.
        stream: number of the video stream to take, from 0; None takes what a player does: the one marked as default,
            else the largest.
        frame_rate: to take where the file states none.

    Raises:
        VideoError: no video stream, no such stream, or ``frame_rate`` for a file that states one.
    """
    from nervcodec.media import decoder

    if path.suffix == SUFFIX:
        raise VideoError(f"{path}: is a container already; nervcodec decode makes a video of it")
    if path.suffix.lower() == ".webp" and stream is None and frame_rate is None and decoder.is_animated(path):
        return Probed(Input(path, seeks=False, animated=True), (), Fraction(1, 1000), None)
    with decoder.opened(path, frame_rate) as container:
        videos = decoder.videos(container)
        if not videos:
            raise VideoError(f"{path}: has no video stream")
        if stream is not None and stream >= len(videos):
            raise VideoError(f"{path}: has no video stream {stream}; there are {len(videos)}, counted from 0")
        streams = tuple(f"{s.codec_context.width}x{s.codec_context.height} {decoder.codec_name(s)}" for s in videos)
        number = stream if stream is not None else _default_stream(videos)
        chosen = videos[number]
        takes_rate = bool(container.format.flags & decoder.NO_TIMESTAMPS) or "_pipe" in container.format.name
        is_guess = takes_rate and _states_no_rate(path, number)
        if frame_rate is not None and not is_guess:
            raise VideoError(
                f"{path}: has a frame rate of its own; --fps is for folders of frames and for streams that state none"
            )
        duration_s = None if container.duration is None else container.duration / 1e6
        assert chosen.time_base is not None
        return Probed(
            # What takes a rate has no index to seek by.
            Input(path, number=number, frame_rate=frame_rate, seeks=not takes_rate),
            streams,
            chosen.time_base,
            frame_rate or chosen.guessed_rate,
            is_guess and frame_rate is None,
            bool(container.streams.audio),
            duration_s,
            decoder.stated_duration_s(container, chosen),
            decoder.has_alpha(chosen),
        )


def _default_stream(videos: list[VideoStream]) -> int:
    """The stream that ffmpeg takes by itself: the largest, where the one marked as default counts for more."""
    sizes = [s.width * s.height + _DEFAULT_BONUS * bool(s.disposition & s.disposition.default) for s in videos]
    return sizes.index(max(sizes))


def _states_no_rate(path: Path, number: int) -> bool:
    """Whether a stream takes any imposed rate."""
    from nervcodec.media import decoder

    with decoder.opened(path, _PROBE_RATE) as container:
        return decoder.videos(container)[number].guessed_rate == _PROBE_RATE


def decoder_of(image: Path) -> str:
    """FFmpeg's decoder for an image, by its suffix."""
    return _DECODERS[image.suffix.lower()]


def images_in(folder: Path) -> list[Path]:
    """PNG and JPEG files of a folder, hidden ones left out, in no order.

    Raises:
        OSError: the folder cannot be read.
    """
    return [p for p in folder.iterdir() if p.suffix.lower() in _DECODERS and not p.name.startswith(".")]


def modified(source: Path) -> float:
    """When a source was last changed, in seconds; of a folder of frames, the latest of its files.

    Raises:
        OSError: it is not there or cannot be read.
    """
    files = list(source.iterdir()) if source.is_dir() else [source]
    return max(file.stat().st_mtime for file in files)


def source_digest(source: Path) -> str:
    """32 hexadecimal digits that tell a source from others, without any date.

    BLAKE2b of a file's length and of 16 pieces of 64 KiB spread evenly over it (of all of it where it is no longer
    than those), or of the names and sizes of a folder's images.

    Raises:
        OSError: the source is missing or cannot be read.
    """
    digest = hashlib.blake2b(digest_size=SOURCE_DIGEST_BYTES)
    if source.is_dir():
        for name, size in sorted((os.fsencode(image.name), image.stat().st_size) for image in images_in(source)):
            digest.update(b"%s\0%d\0" % (name, size))
        return digest.hexdigest()
    with open(source, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        digest.update(b"%d\0" % length)
        last = max(length - _PIECE_BYTES, 0)
        is_short = length <= _PIECES * _PIECE_BYTES
        for number in range(_PIECES):
            file.seek(number * _PIECE_BYTES if is_short else number * last // (_PIECES - 1))
            digest.update(file.read(_PIECE_BYTES))
    return digest.hexdigest()


def numbered_images(
    folder: Path, start_s: float = 0.0, duration_s: float | None = None, rate: Fraction | None = None
) -> tuple[Path, ...]:
    """PNG or JPEG files of a folder, ordered by the last number in their names.

    Raises:
        VideoError: no such image, PNG and JPEG mixed, a number twice or missing, or none in the range of time.
    """
    images = images_in(folder)
    if no_file := next((p for p in images if not p.is_file()), None):
        raise VideoError(f"{no_file}: is no file; frames are read more than once and must be files")
    if not images:
        raise VideoError(f"{folder}: no PNG or JPEG frames in this folder")
    if len({decoder_of(p) for p in images}) > 1:
        raise VideoError(f"{folder}: holds both PNG and JPEG images; keep one kind")
    by_number: dict[int, Path] = {}
    for image in images:
        match = _NUMBER.search(image.stem)
        if match is None:
            raise VideoError(f"{image}: frames need a number in their name, such as frame_0001.png")
        number = int(match.group(1))
        if number in by_number:
            raise VideoError(f"{folder}: {by_number[number].name} and {image.name} have the same number")
        by_number[number] = image
    numbers = sorted(by_number)
    if numbers[-1] - numbers[0] + 1 != len(numbers):
        gap = next(a + 1 for a, b in zip(numbers, numbers[1:], strict=False) if b != a + 1)
        raise VideoError(f"{folder}: frame {gap} is missing; rename the frames if that is intended")
    ordered = [by_number[n] for n in numbers]
    per_second = rate or DEFAULT_RATE
    first = max(0, -int(-(Fraction(start_s).limit_denominator(1_000_000) * per_second) // 1))
    last = len(ordered)
    if duration_s is not None:
        last = first + -int(-(Fraction(duration_s).limit_denominator(1_000_000) * per_second) // 1)
    chosen = tuple(ordered[first:last])
    if not chosen:
        raise VideoError(f"{folder}: no frame at or after {start_s:g} s")
    return chosen


def require_one_size(images: tuple[Path, ...]) -> None:
    """Refuse images of several sizes; what is no image is left to ffmpeg to refuse.

    Raises:
        VideoError: they differ.
    """
    from PIL import Image

    sizes: dict[tuple[int, int], Path] = {}
    for path in images:
        with contextlib.suppress(OSError, ValueError, Image.DecompressionBombError), Image.open(path) as image:
            sizes.setdefault(image.size, path)
    if len(sizes) > 1:
        (size, one), (other_size, other) = list(sizes.items())[:2]
        raise VideoError(f"{one.parent}: the images differ in size: {one.name} is {size}, {other.name} {other_size}")


@dataclass(frozen=True)
class Snapshot:
    """Size and modification time of the files of a source, to notice a change during an encode.

    Inode numbers are not compared: some network file systems give a file another one each time.

    Attributes:
        source: file or folder.
        files: of it.
        machine: host that read them; times are compared on the same host only.
        sizes: in bytes.
        modified_ns: when each was changed last.
    """

    source: Path
    files: tuple[Path, ...]
    machine: str
    sizes: tuple[int, ...]
    modified_ns: tuple[int, ...]

    @classmethod
    def of(cls, source: Path, files: Sequence[Path]) -> Snapshot:
        """Take a snapshot of files.

        Raises:
            OSError: one is not there.
        """
        stats = [os.stat(file) for file in files]
        sizes, times = tuple(f.st_size for f in stats), tuple(f.st_mtime_ns for f in stats)
        return cls(source, tuple(files), platform.node(), sizes, times)

    def is_there(self) -> bool:
        """Whether the files are still there.

        Raises:
            ChangedError: they are, and changed.
        """
        try:
            now = Snapshot.of(self.source, self.files)
        except OSError:
            return False
        if now.sizes != self.sizes or (now.machine == self.machine and now.modified_ns != self.modified_ns):
            raise self._changed
        return True

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Context that raises at its end, or in place of an error inside it, if the files changed or are missing.

        Raises:
            ChangedError: they changed.
        """
        try:
            yield
        except (VideoError, OSError):
            if not self.is_there():
                raise self._changed from None
            raise
        self.is_there()

    @property
    def _changed(self) -> ChangedError:
        return ChangedError(f"{self.source}: changed while it was encoded")
