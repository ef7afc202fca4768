# SPDX-License-Identifier: MIT
"""What was found in a source: the facts that a first pass establishes.

``scan`` decodes the source once and keeps no pixel, only what ffmpeg's ``framecrc`` muxer says of every frame. That is
the one way to know the exact number of frames and the time of each: containers lie about both.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from nervcodec.errors import VideoError
from nervcodec.formats.header import MAX_FRAMES, MAX_PIXELS, MAX_SIDE
from nervcodec.video import ffmpeg, folder, timing
from nervcodec.video.options import SourceOptions
from nervcodec.video.probe import Input, Probed, probe, require_file, stated_duration, stream_duration

_APART = 250  # frames between a complaint of ffmpeg and the damage it speaks of, where the machine is busy
_FEW_GAPS = 0.1  # of the frames about damage, that a frame was lost before
_CONCEALED = 15  # frames before the first that was lost, and after the last, which damage may have changed


@dataclass(frozen=True)
class VideoInfo:
    """A scanned source.

    Attributes:
        input: how it is opened, and which stream is read.
        width, height: of the frames that will be read, after rotation, crop and scale.
        frame_rate: nominal for a constant rate, one over the median gap for a variable one.
        times_s: ``(frame_count,)`` float64, when each frame is shown, the first at 0.
        duration_s: seconds from the first frame to the end of the last.
        sample_aspect_ratio: of the frames as read.
        variable_frame_rate: True where frames are not evenly spaced, or the last is held.
        file_bytes: size of the source, or of all images of a folder.
        source_size: (width, height) before crop and scale, after rotation.
        source_duration_s: of the whole source as its container states it, where a part is read; None without that.
        complaints: what ffmpeg said of damaged parts, at most a few sentences, and which frames they are near.
        notes: choices that were made for want of something said, a line each.
        has_audio: there is an audio stream.
        first_frame_s: when the first frame shows, in the time that other streams of the source share.
        checksums: ``(frame_count,)`` uint32 of the frames as they are decoded, before any crop or scale.
    """

    input: Input
    width: int
    height: int
    frame_rate: Fraction
    times_s: np.ndarray
    duration_s: float
    sample_aspect_ratio: Fraction
    variable_frame_rate: bool
    file_bytes: int
    source_size: tuple[int, int]
    source_duration_s: float | None = None
    complaints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    has_audio: bool = False
    first_frame_s: float = 0.0
    checksums: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint32), repr=False)

    @property
    def path(self) -> Path:
        """File or folder."""
        return self.input.path

    @property
    def images(self) -> tuple[Path, ...]:
        """The files of a folder of frames, in order; empty for a video file."""
        return self.input.images

    @property
    def frame_count(self) -> int:
        """Number of frames that will be read."""
        return len(self.times_s)


def reading(info: VideoInfo, options: SourceOptions, *more: str, scaling: str = "") -> list[str]:
    """ffmpeg's arguments from the source to frames of ``info.width`` x ``info.height``, each once.

    Args:
        info: of the source.
        options: those it was scanned with.
        more: further filters.
        scaling: as :func:`filters` takes it.
    """
    opening = info.input.arguments(options.start_s, options.duration_s)
    return [*opening, "-vf", ",".join([filters(info, options, scaling), *more]), "-fps_mode", "passthrough"]


def scan(path: str | Path, options: SourceOptions | None = None) -> VideoInfo:
    """Decode a source once and say what is in it.

    Args:
        path: a video file, or a folder of numbered PNG or JPEG frames.
        options: range, crop, scale, stream.

    Raises:
        VideoError: nothing there, not a video, no frame in the range asked for, or impossible crop or scale.
    """
    path, options = Path(path), options or SourceOptions()
    require_file(path)
    found = _probed_folder(path, options) if path.is_dir() else probe(path, options.stream, options.frame_rate)
    frames = _list(found, options)
    if options.start_s and found.input.seeks and not _is_there(frames, found, options):
        # The index led nowhere, or past frames that belong to the range: read from the beginning.
        found = replace(found, input=replace(found.input, seeks=False))
        frames = _list(found, options)
    return _interpret(found, options, frames)


def _probed_folder(path: Path, options: SourceOptions) -> Probed:
    if options.stream is not None:
        raise VideoError(f"{path}: is a folder of frames; --stream is for files of several video streams")
    images = folder.numbered_images(path, options.start_s, options.duration_s, options.frame_rate)
    folder.require_one_size(images)
    rate = options.frame_rate or folder.DEFAULT_RATE
    return Probed(Input(path, images, frame_rate=rate), (), 1 / rate, rate, False, False)


@dataclass(frozen=True)
class _Frames:
    """What ``framecrc`` says of the decoded frames of a range.

    Attributes:
        size: (width, height) of the first.
        aspect: of a pixel, 1 where it is unknown.
        stamps: ticks of the stream's time base at which they show; None where there are none.
        last: ticks that the last is shown, as stated; 0 for not.
        checksums: of the decoded frames, as they are in the source.
        log: what ffmpeg complained of, with the number of frames given before.
    """

    size: tuple[int, int]
    aspect: Fraction
    stamps: np.ndarray | None
    count: int
    last: int
    checksums: np.ndarray
    log: list[ffmpeg.LogLine]


def _list(found: Probed, options: SourceOptions) -> _Frames:
    """Decode a range once."""
    ticks = found.time_base
    arguments = [*found.input.arguments(options.start_s, options.duration_s), "-fps_mode", "passthrough"]
    arguments += ["-noautoscale", "-enc_time_base", f"{ticks.numerator}/{ticks.denominator}"]
    arguments += ["-c:v", "rawvideo", "-f", "framecrc", "-"]
    feed = folder.contents(found.input.images) if found.input.images else None
    facts: dict[str, str] = {}
    stamps: list[int] = []
    checksums: list[int] = []
    duration = 0
    with ffmpeg.Process(arguments, feed, read=True) as process:
        for line in process.lines():
            if line.startswith("#"):
                name, _, value = line[1:].partition(" 0: ")
                facts[name] = value.strip()
                continue
            row = line.split(",")
            stamps.append(int(row[2]))
            duration = int(row[3])
            checksums.append(int(row[5], 16))
            process.position = len(stamps)
        process.wait()
    width, _, height = facts.get("dimensions", "0x0").partition("x")
    numerator, _, denominator = facts.get("sar", "0/1").partition("/")
    aspect = Fraction(int(numerator) or 1, int(denominator) or 1)  # 0 means unknown: square
    known = np.array(stamps, np.int64)
    has_times = len(known) > 0 and known.min() > timing.NO_STAMP
    when = known if has_times else None
    checks = np.array(checksums, np.uint32)
    return _Frames((int(width), int(height)), aspect, when, len(stamps), duration, checks, process.log)


def _is_there(frames: _Frames, found: Probed, options: SourceOptions) -> bool:
    """Whether a range begins where it should: with a frame at most one and a half of its gaps after the start."""
    if not frames.count or frames.stamps is None or found.frame_rate is None:
        return False
    begins = float(frames.stamps[0] * found.time_base)
    return -0.5 <= begins * float(found.frame_rate) <= 1.5


def _interpret(found: Probed, options: SourceOptions, frames: _Frames) -> VideoInfo:
    path, images = found.input.path, found.input.images
    complaints = _complaints(frames.log)
    if not frames.count:
        if options.start_s and not complaints:
            raise VideoError(f"{path}: no frame at or after {options.start_s:g} s")
        raise VideoError(f"{path}: no frame could be read ({complaints[-1] if complaints else 'it holds no frame'})")
    if frames.count > MAX_FRAMES:
        raise VideoError(f"{path}: has more than {MAX_FRAMES:,} frames; encode it in parts (--start, --duration)")
    if images and frames.count != len(images):
        raise VideoError(f"{path}: only {frames.count} of {len(images)} images could be read ({'; '.join(complaints)})")
    width, height = output_size(path, frames.size, options)
    # Scaling by different factors across and down changes the shape of a pixel, as in ffmpeg's scale filter.
    cropped = options.crop[::-1] if options.crop else frames.size
    aspect = frames.aspect * Fraction(cropped[0], cropped[1]) / Fraction(width, height)
    when = timing.read(frames.stamps, frames.count, found.time_base, found.frame_rate)
    trimmed = options.start_s > 0 or options.duration_s is not None
    whole = stated_duration(path) if trimmed and not images else None
    last_s = float(frames.last * found.time_base)
    if when.is_variable and not images and not trimmed:
        last_s = max(last_s, _held_until(found) - float(when.times_s[-1]))
    when = when.with_last(last_s, options.duration_s)
    notes = [f"{path.name}: {note}" for note in found.notes]
    if found.is_guess and frames.count > 1:
        notes.append(f"{path.name}: states no frame rate; {float(when.rate):g} frames a second are assumed (--fps)")
    said = [f"ffmpeg says: {text}" for text in complaints[:3]]
    return VideoInfo(
        input=found.input,
        width=width,
        height=height,
        frame_rate=when.rate,
        times_s=when.times_s,
        duration_s=when.end_s,
        sample_aspect_ratio=aspect.limit_denominator(10_000),
        variable_frame_rate=when.is_variable,
        file_bytes=sum(i.stat().st_size for i in images) if images else path.stat().st_size,
        source_size=frames.size,
        source_duration_s=whole,
        complaints=(*said, *_damage(frames.log, when.times_s, float(when.rate))),
        notes=tuple(notes),
        has_audio=found.has_audio,
        first_frame_s=0.0 if frames.stamps is None else float(int(frames.stamps[0]) * found.time_base),
        checksums=frames.checksums,
    )


def _held_until(found: Probed) -> float:
    """Seconds at which the stream ends, as stated: by itself, or by a container that holds nothing else; 0 for not."""
    own = stream_duration(found.input)
    if own is None and len(found.streams) == 1 and not found.has_audio:
        own = stated_duration(found.input.path)
    return own or 0.0


def _complaints(log: list[ffmpeg.LogLine]) -> list[str]:
    """Errors of ffmpeg that speak of damage, each once, in order."""
    return list(dict.fromkeys(ffmpeg.plain(line.text) for line in log))


def _damage(log: list[ffmpeg.LogLine], times: np.ndarray, rate: float) -> list[str]:
    """Where ffmpeg complained, by the frames that it gave about then, and how many it lost: a line or none.

    Its decoder runs ahead of what is read of it, and what it says is read beside its frames, so that on a busy
    machine a complaint may come long before or after the frames it speaks of. Where frames were lost their times say
    better where that was.
    """
    near = [min(line.position, len(times) - 1) for line in log]
    if not near:
        return []
    first, last = near[0], near[-1]
    begin = max(first - _APART, 0)
    missing = np.maximum((np.diff(times[begin : last + _APART]) * rate).round() - 1, 0)
    # Where many frames come late, that is how the video is: its rate varies.
    lost = int(missing.sum()) if (missing > 0).mean() < _FEW_GAPS else 0
    gaps = begin + np.flatnonzero(missing)
    if lost:
        first, last = max(gaps[0] - _CONCEALED, 0), min(gaps[-1] + _CONCEALED, len(times) - 1)
    where = f"near frames {first} to {last} ({times[first]:.2f} s to {times[last]:.2f} s)"
    return [f"damaged {where}: concealed as well as ffmpeg can, {lost} frames missing there"]


def output_size(path: Path, size: tuple[int, int], options: SourceOptions) -> tuple[int, int]:
    """(width, height) after crop and scale.

    Raises:
        VideoError: the crop is larger than the frame, or the result has no pixel or too many.
    """
    width, height = size
    if options.crop:
        crop_height, crop_width = options.crop
        if crop_height > height or crop_width > width or min(options.crop) < 1:
            raise VideoError(f"{path}: cannot crop {crop_width}x{crop_height} from frames of {width}x{height}")
        width, height = crop_width, crop_height
    if isinstance(options.scale, tuple):
        width, height = options.scale
    elif options.scale is not None:
        width, height = (max(1, round(side * options.scale)) for side in (width, height))
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise VideoError(f"{path}: frames of {width}x{height} pixels are out of range")
    return width, height


def filters(info: VideoInfo, options: SourceOptions, scaling: str = "") -> str:
    """The ffmpeg filter chain that brings every frame to ``info.width`` x ``info.height``.

    Args:
        info: of the source.
        options: those it was scanned with.
        scaling: further options of its last filter, ``scale``, with a colon before each.
    """
    chain = []
    if options.crop:
        height, width = options.crop
        chain.append(f"scale={info.source_size[0]}:{info.source_size[1]}")  # a size change in mid-stream is undone
        chain.append(f"crop={width}:{height}:exact=1")
    chain.append(f"scale={info.width}:{info.height}{scaling}")
    return ",".join(chain)
