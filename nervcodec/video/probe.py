# SPDX-License-Identifier: MIT
"""What a source consists of, before its frames are looked at: its streams, its rate, and which stream is taken.

Everything is asked for in forms that are made to be read by programs (ffmpeg's ``framecrc`` muxer, the head of a
YUV4MPEG2 stream), never searched for in ffmpeg's log, where titles and comments of a file are text among text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from nervcodec.errors import VideoError
from nervcodec.formats.names import SUFFIX
from nervcodec.video import ffmpeg, folder

_ODD_RATE = Fraction(37)  # that no file states
_HEAD = 256  # bytes of a YUV4MPEG2 stream that hold its first line
_DURATION = re.compile(r"^\[info\]   Duration: (\d+):(\d\d):(\d\d\.\d+), ")


@dataclass(frozen=True)
class Stream:
    """One stream of a source, as ``framecrc`` describes it.

    Attributes:
        kind: ``video`` or ``audio``.
        codec: ffmpeg's name.
        size: (width, height) as coded, before rotation; None for sound.
        time_base: seconds that a tick of its time stamps takes.
        first_packet: size and checksum of its first packet, where one was read, and of its codec's setup.
    """

    kind: str
    codec: str
    size: tuple[int, int] | None
    time_base: Fraction
    first_packet: tuple[str, ...]


@dataclass(frozen=True)
class Input:
    """How a source is opened and which of its streams is read.

    Attributes:
        path: file or folder.
        images: the files of a folder of frames, in order; empty for a video file.
        number: of the video stream, from 0; stills attached to sound do not count.
        frame_rate: that is imposed on it; None for its own.
        seeks: whether a start is sought in the file; otherwise what comes before is read and thrown away.
    """

    path: Path
    images: tuple[Path, ...] = ()
    number: int = 0
    frame_rate: Fraction | None = None
    seeks: bool = True

    def arguments(self, start_s: float = 0.0, duration_s: float | None = None) -> list[str]:
        """ffmpeg's arguments that open it and choose the stream and the range, before any filter."""
        if self.images:  # the range is in the choice of images
            rate = str(self.frame_rate or folder.DEFAULT_RATE)
            return ["-f", "image2pipe", "-framerate", rate, "-c:v", folder.decoder_of(self.images[0]), "-i", "pipe:0"]
        chosen = [] if not start_s else ["-ss", f"{start_s:.6f}"]
        if duration_s is not None:
            chosen += ["-t", f"{duration_s:.6f}"]
        opening = [*self._opening(), "-i", f"file:{self.path}", "-map", f"0:V:{self.number}"]
        return [*chosen, *opening] if self.seeks else [*opening, *chosen]

    def _opening(self) -> list[str]:
        return [] if self.frame_rate is None else ["-framerate", str(self.frame_rate)]


@dataclass(frozen=True)
class Probed:
    """What was found.

    Attributes:
        input: the stream that is taken.
        streams: all video streams that are no attached stills.
        time_base: of the stream.
        frame_rate: as the stream states it; None where it does not.
        is_guess: the rate is an assumption, since nothing in the file states one.
        has_audio: there is sound.
    """

    input: Input
    streams: tuple[Stream, ...]
    time_base: Fraction
    frame_rate: Fraction | None
    is_guess: bool
    has_audio: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What somebody who encodes the source should know of the choice."""
        if len(self.streams) < 2:
            return ()
        listed = ", ".join(f"{i}: {s.size[0]}x{s.size[1]} {s.codec}" for i, s in enumerate(self.streams) if s.size)
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
    streams, has_audio = _streams(path)
    videos = tuple(s for s in streams if s.kind == "video")
    if not videos:
        raise VideoError(f"{path}: has no video stream")
    if stream is not None and stream >= len(videos):
        raise VideoError(f"{path}: has no video stream {stream}; there are {len(videos)}, counted from 0")
    number = stream if stream is not None else _players_choice(path, videos)
    imposed = _stated_rate(Input(path, number=number, frame_rate=_ODD_RATE))
    chosen = Input(path, number=number, seeks=imposed is None)  # what takes a rate has no index to seek by
    if frame_rate is None:
        stated, is_guess = _stated_rate(chosen), imposed == _ODD_RATE
        return Probed(chosen, videos, videos[number].time_base, stated, is_guess, has_audio)
    if imposed != _ODD_RATE:
        raise VideoError(
            f"{path}: has a frame rate of its own; --fps is for folders of frames and for streams that state none"
        )
    chosen = replace(chosen, frame_rate=frame_rate)
    return Probed(chosen, videos, _first(chosen.arguments(), path).time_base, frame_rate, False, has_audio)


def stated_duration(path: Path) -> float | None:
    """Seconds of the whole file as its container states them; None where it does not.

    The one figure that ffmpeg gives in its log alone. The line is told from free text by how it begins: what a file
    says of itself is always set in further.
    """
    with ffmpeg.Process(["-i", f"file:{path}"], level="level+info") as process:
        process.wait()  # it fails, since it is told of no output
        found = (_DURATION.match(line.text) for line in process.log)
        match = next((m for m in found if m), None)
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def stream_duration(chosen: Input) -> float | None:
    """Seconds that the stream's own ``DURATION`` entry states (Matroska); None without one."""
    arguments = [*chosen.arguments(), "-c", "copy", "-frames:v", "1", "-f", "ffmetadata", "-"]
    try:
        said = ffmpeg.run(arguments, f"{chosen.path}: cannot be read").decode("utf-8", "replace")
    except VideoError:
        return None  # metadata that cannot be had say nothing
    whole = said.replace("\\\n", " ")  # a value goes on behind a backslash
    match = re.search(r"^DURATION=(\d+):(\d\d):(\d\d(?:\.\d+)?)$", whole, re.MULTILINE)
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def _streams(path: Path) -> tuple[tuple[Stream, ...], bool]:
    """Video streams and sound of a file, and whether there is sound.

    Raises:
        VideoError: ffmpeg cannot open it.
    """
    streams, _ = _listed(path, ["-map", "0:V", "-map", "0:a?"])
    if streams:
        return streams, any(s.kind == "audio" for s in streams)
    streams, _ = _listed(path, ["-map", "0:V"])
    if streams:  # sound that ffmpeg cannot describe is no reason to refuse the picture
        return streams, True
    # What opens and holds something else (sound, a cover, subtitles) has no video; what does not open is damaged.
    others, reason = _listed(path, ["-map", "0"])
    if not others:
        if path.suffix == SUFFIX:
            raise VideoError(f"{path}: is a container already; nervcodec decode makes a video of it")
        raise VideoError(f"{path}: no frame could be read ({reason})")
    return (), False


def _listed(path: Path, choice: list[str]) -> tuple[tuple[Stream, ...], str]:
    """Streams of a file that a choice describes, none where it fails, and what ffmpeg complained of."""
    arguments = ["-i", f"file:{path}", *choice, "-c", "copy", "-t", "0", "-f", "framecrc", "-"]
    with ffmpeg.Process(arguments, read=True) as process:
        streams = parse_streams(process.read(-1).decode("utf-8", "replace"))
        return (() if process.wait() else streams), process.complaint()


def _first(opening: list[str], path: Path) -> Stream:
    """The one video stream that these arguments open, with its first packet."""
    arguments = [*opening, "-c", "copy", "-frames:v", "1", "-f", "framecrc", "-"]
    output = ffmpeg.run(arguments, f"{path}: no frame could be read")
    return parse_streams(output.decode("utf-8", "replace"))[0]


def _players_choice(path: Path, videos: tuple[Stream, ...]) -> int:
    """The stream that ffmpeg takes by itself, found again by its first packet."""
    if len(videos) == 1:
        return 0
    taken = _first(["-i", f"file:{path}", "-an", "-sn", "-dn"], path)
    numbers = range(len(videos))
    return next((i for i in numbers if _first(Input(path, number=i).arguments(), path) == taken), 0)


def _stated_rate(chosen: Input) -> Fraction | None:
    """Frames a second as ffmpeg understands the stream's head; None where it does not, or refuses ``frame_rate``."""
    arguments = [*chosen.arguments(), "-frames:v", "1", "-fps_mode", "passthrough", "-strict", "-1"]
    arguments += ["-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "-"]
    with ffmpeg.Process(arguments, read=True) as process:
        head = process.read(_HEAD).split(b"\n")[0].decode("ascii", "replace")
    match = re.search(r" F(\d+):(\d+) ", head)
    return Fraction(int(match[1]), int(match[2])) if match and int(match[1]) and int(match[2]) else None


def parse_streams(text: str) -> tuple[Stream, ...]:
    """Streams of a ``framecrc`` listing, in order."""
    facts: dict[int, dict[str, str]] = {}
    first: dict[int, tuple[str, ...]] = {}
    for line in text.split("\n"):
        if match := re.match(r"#(\w+) (\d+): +(.*)", line):
            facts.setdefault(int(match[2]), {})[match[1]] = match[3]
        elif match := re.match(r"(\d+),", line):
            row = [cell.strip() for cell in line.split(",")]
            first.setdefault(int(match[1]), (row[4], row[5]))
    streams = []
    for number, fact in sorted(facts.items()):
        if "tb" not in fact:  # setup of a stream that never began
            continue
        width, x, height = fact.get("dimensions", "").partition("x")
        setup = first.get(number, ()) + (fact.get("extradata", ""),)
        size = (int(width), int(height)) if x else None
        streams.append(Stream(fact.get("media_type", ""), fact.get("codec_id", ""), size, Fraction(fact["tb"]), setup))
    return tuple(streams)
