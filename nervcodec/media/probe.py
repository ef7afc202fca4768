# SPDX-License-Identifier: MIT
"""What a source consists of, before its frames are looked at: its streams, its rate, and which stream is taken."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from nervcodec.errors import VideoError
from nervcodec.formats.text import SUFFIX

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_ODD_RATE = Fraction(37)  # that no file states
_OF_DEFAULT = 5_000_000  # pixels that count for the stream marked as default, as in ffmpeg's choice


@dataclass(frozen=True)
class Input:
    """How a source is opened and which of its streams is read.

    Attributes:
        path: file or folder.
        images: the files of a folder of frames, in order; empty for a video file.
        number: of the video stream, from 0; stills attached to sound do not count.
        frame_rate: that is imposed on it; None for its own.
        seeks: whether a start is sought in the file; otherwise what comes before is read and thrown away.
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


@dataclass(frozen=True)
class Probed:
    """What was found.

    Attributes:
        input: the stream that is taken.
        streams: size, before rotation, and codec of all video streams that are no attached stills, for messages.
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
        """What somebody who encodes the source should know of the choice."""
        if len(self.streams) < 2:
            return ()
        listed = ", ".join(f"{number}: {stream}" for number, stream in enumerate(self.streams))
        return (f"has {len(self.streams)} video streams ({listed}); taking {self.input.number}",)


def require_file(path: Path) -> None:
    """Refuse what cannot be read more than once: pipes, devices, standard input.

    Raises:
        VideoError: it is not there, or no file and no folder.
    """
    where = path.absolute().parts[:2]
    if str(path) == "-" or where == ("/", "proc") or (where == ("/", "dev") and "shm" not in path.parts):
        raise VideoError(f"{path}: is no file; the source is read more than once and must be a file")
    try:
        there = path.exists()
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from None
    if not there:
        raise VideoError(f"{path}: no such file or folder")
    if not path.is_file() and not path.is_dir():
        raise VideoError(f"{path}: is a pipe or a device; the source is read more than once and must be a file")


def probe(path: Path, stream: int | None = None, frame_rate: Fraction | None = None) -> Probed:
    """Look into a video file.

    Args:
        path: the file.
        stream: number of the video stream to take, from 0; None takes what a player does: the one marked as default,
            else the largest.
        frame_rate: to take where the file states none.

    Raises:
        VideoError: no video in it, no such stream, or a rate given for a file that has one.
    """
    from nervcodec.media import media

    if path.suffix == SUFFIX:
        raise VideoError(f"{path}: is a container already; nervcodec decode makes a video of it")
    if path.suffix.lower() == ".webp" and stream is None and frame_rate is None and media.is_animated(path):
        return Probed(Input(path, seeks=False, animated=True), (), Fraction(1, 1000), None)
    with media.opened(path, frame_rate) as container:
        videos = media.videos(container)
        if not videos:
            raise VideoError(f"{path}: has no video stream")
        if stream is not None and stream >= len(videos):
            raise VideoError(f"{path}: has no video stream {stream}; there are {len(videos)}, counted from 0")
        streams = tuple(f"{s.codec_context.width}x{s.codec_context.height} {media.codec_name(s)}" for s in videos)
        number = stream if stream is not None else _players_choice(videos)
        chosen = videos[number]
        takes_rate = bool(container.format.flags & media.HAS_NO_STAMPS) or "_pipe" in container.format.name
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
            media.stated_s(container, chosen),
            media.has_alpha(chosen),
        )


def _players_choice(videos: list[VideoStream]) -> int:
    """The stream that ffmpeg takes by itself: the largest, where the one marked as default counts for more."""
    sizes = [s.width * s.height + _OF_DEFAULT * bool(s.disposition & s.disposition.default) for s in videos]
    return sizes.index(max(sizes))


def _states_no_rate(path: Path, number: int) -> bool:
    """Whether a stream takes any rate that it is told."""
    from nervcodec.media import media

    with media.opened(path, _ODD_RATE) as container:
        return media.videos(container)[number].guessed_rate == _ODD_RATE
