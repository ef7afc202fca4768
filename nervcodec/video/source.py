# SPDX-License-Identifier: MIT
"""What to read and what was found: the options of a source, and the facts a first pass establishes.

``scan`` decodes the source once with ffmpeg's ``showinfo`` filter and throws the pixels away. That is the one
way to know the exact number of frames and the time of each: containers lie about both.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from nervcodec.errors import VideoError
from nervcodec.formats.header import MAX_FRAMES, MAX_PIXELS, MAX_SIDE
from nervcodec.video import ffmpeg, folder

_CONFIG = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
_AUDIO = re.compile(r"Stream #0:\d+.*: Audio: ")
_NUMBER = re.compile(r"showinfo.*\bn: *(\d+) ")
_FRAME = re.compile(r"\bn: *\d+ pts: *(-?\d+|NOPTS) .*?\bsar:(\d+)/(\d+) s:(\d+)x(\d+)")
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)")
_AHEAD = 10  # frames that ffmpeg's decoder may be ahead of what it gives
_COMPLAINT = re.compile(r"error|invalid|corrupt|missing|conceal|truncat|no such|not found|denied", re.IGNORECASE)


@dataclass(frozen=True)
class SourceOptions:
    """Which frames and which pixels of a source are wanted.

    Attributes:
        start_s: skip frames shown before this time, in seconds.
        duration_s: keep this many seconds; None keeps all.
        crop: (height, width) of a window cut from the middle, before scaling.
        scale: (width, height) in pixels, or a factor, or None.
        frame_rate: for a folder of frames only.
    """

    start_s: float = 0.0
    duration_s: float | None = None
    crop: tuple[int, int] | None = None
    scale: tuple[int, int] | float | None = None
    frame_rate: Fraction | None = None


@dataclass(frozen=True)
class VideoInfo:
    """A scanned source.

    Attributes:
        path: file or folder.
        width, height: of the frames that will be read, after rotation, crop and scale.
        frame_rate: nominal for a constant rate, one over the median gap for a variable one.
        times_s: ``(frame_count,)`` float64, when each frame is shown, the first at 0.
        duration_s: seconds from the first frame to the end of the last.
        sample_aspect_ratio: of the frames as read.
        variable_frame_rate: True where frames are not evenly spaced.
        file_bytes: size of the source, or of all images of a folder.
        source_size: (width, height) before crop and scale, after rotation.
        source_duration_s: of the whole source as its container states it; None where it does not.
        complaints: what ffmpeg said of damaged parts, at most a few lines, and which frames they are near.
        images: the files of a folder of frames, in order; empty for a video file.
        has_audio: there is an audio stream.
        first_frame_s: when the first frame shows, in the time that other streams of the source share.
    """

    path: Path
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
    images: tuple[Path, ...] = ()
    has_audio: bool = False
    first_frame_s: float = 0.0

    @property
    def frame_count(self) -> int:
        """Number of frames that will be read."""
        return len(self.times_s)


def input_arguments(path: Path, options: SourceOptions, images: tuple[Path, ...]) -> list[str]:
    """ffmpeg's arguments up to and including ``-i``."""
    if images:
        rate = options.frame_rate or folder.DEFAULT_RATE
        return ["-f", "image2pipe", "-framerate", str(rate), "-c:v", folder.decoder_of(images[0]), "-i", "pipe:0"]
    arguments = []
    if options.start_s:
        arguments += ["-ss", f"{options.start_s:.6f}"]
    if options.duration_s is not None:
        arguments += ["-t", f"{options.duration_s:.6f}"]
    return [*arguments, "-i", f"file:{path}"]


def scan(path: str | Path, options: SourceOptions | None = None) -> VideoInfo:
    """Decode a source once and say what is in it.

    Args:
        path: a video file, or a folder of numbered PNG or JPEG frames.
        options: range, crop, scale.

    Raises:
        VideoError: nothing there, not a video, no frame in the range asked for, or impossible crop or scale.
    """
    path, options = Path(path), options or SourceOptions()
    if not path.exists():
        raise VideoError(f"{path}: no such file or folder")
    if options.frame_rate is not None and not path.is_dir():
        raise VideoError(f"{path}: has a frame rate of its own; --fps is for folders of frames")
    images: tuple[Path, ...] = ()
    if path.is_dir():
        images = folder.numbered_images(path, options.start_s, options.duration_s, options.frame_rate)
    arguments = [*input_arguments(path, options, images), "-map", "0:v:0", "-vf", "showinfo"]
    arguments += ["-fps_mode", "passthrough", "-f", "null", "-"]
    with tempfile.TemporaryFile() as log:
        process = ffmpeg.spawn(
            ["-loglevel", "level+info", *arguments],
            stdin=subprocess.PIPE if images else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log.fileno(),
        )
        if images:
            folder.feed(process, images)
        process.wait()
        log.seek(0)
        text = log.read().decode("utf-8", "replace")
    return _interpret(path, options, images, text)


def _interpret(path: Path, options: SourceOptions, images: tuple[Path, ...], text: str) -> VideoInfo:
    frames = _FRAME.findall(text)
    config = _CONFIG.search(text)
    complaints = _complaints(text)
    if "matches no streams" in text:
        raise VideoError(f"{path}: has no video stream")
    if not frames or config is None:
        if options.start_s and not complaints:
            raise VideoError(f"{path}: no frame at or after {options.start_s:g} s")
        raise VideoError(f"{path}: no frame could be read ({complaints[-1] if complaints else 'it holds no frame'})")
    if len(frames) > MAX_FRAMES:
        raise VideoError(f"{path}: has more than {MAX_FRAMES:,} frames; encode it in parts (--start, --duration)")
    sizes = {(int(w), int(h)) for _, _, _, w, h in frames}
    if images and len(sizes) > 1:
        raise VideoError(f"{path}: the images differ in size: {sorted(sizes)[0]} and {sorted(sizes)[-1]}")
    if images and len(frames) != len(images):
        raise VideoError(f"{path}: only {len(frames)} of {len(images)} images could be read ({'; '.join(complaints)})")
    source_size = (int(frames[0][3]), int(frames[0][4]))
    width, height = output_size(path, source_size, options)
    aspect = Fraction(int(frames[0][1]) or 1, int(frames[0][2]) or 1)  # 0 means unknown: square
    # Scaling by different factors across and down changes the shape of a pixel, as in ffmpeg's scale filter.
    cropped = options.crop[::-1] if options.crop else source_size
    aspect *= Fraction(cropped[0], cropped[1]) / Fraction(width, height)
    numerator, denominator, rate_n, rate_d = map(int, config.groups())
    time_base = Fraction(numerator, denominator)
    nominal = Fraction(rate_n, rate_d) if rate_n and rate_d else Fraction(25)
    times, variable = _times([p for p, *_ in frames], time_base, nominal)
    rate = nominal
    if variable:
        gaps = np.diff(times)
        rate = Fraction(1 / float(np.median(gaps[gaps > 0]))).limit_denominator(1001)
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        frame_rate=rate,
        times_s=times,
        duration_s=float(times[-1] + 1 / rate),
        sample_aspect_ratio=aspect.limit_denominator(10_000),
        variable_frame_rate=variable,
        file_bytes=sum(i.stat().st_size for i in images) if images else path.stat().st_size,
        source_size=source_size,
        source_duration_s=_stated_duration(text),
        complaints=(*complaints[:3], *_damage(text, times, float(rate))),
        images=images,
        has_audio=not images and _AUDIO.search(text) is not None,
        first_frame_s=0.0 if frames[0][0] == "NOPTS" else float(int(frames[0][0]) * time_base),
    )


def _stated_duration(text: str) -> float | None:
    match = _DURATION.search(text)
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def _is_complaint(line: str) -> bool:
    return ("[error]" in line or "[fatal]" in line) and _COMPLAINT.search(line) is not None


def _complaints(text: str) -> list[str]:
    """Warnings and errors of ffmpeg that speak of damage, each once, in order."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        if _is_complaint(line):
            found[re.sub(r"^(\[[^\]]*\] )+", "", line.strip())] = None
    return list(found)


def _damage(text: str, times: np.ndarray, rate: float) -> list[str]:
    """Where ffmpeg complained, by the frames that it gave about then, and how many it lost: a line or none.

    Its decoder runs some frames ahead of what it gives, so the range may begin and end a little early.
    """
    frame, near = 0, []
    for line in text.splitlines():
        if number := _NUMBER.search(line):
            frame = int(number[1])
        elif _is_complaint(line):
            near.append(min(frame + 1, len(times) - 1))
    if not near:
        return []
    first, last = near[0], near[-1]
    gaps = np.diff(times[max(first - 1, 0) : last + _AHEAD]) * rate
    lost = int(np.maximum(gaps.round() - 1, 0).sum())
    where = f"near frames {first} to {last} ({times[first]:.2f} s to {times[last]:.2f} s)"
    return [f"damaged {where}: concealed as well as ffmpeg can, {lost} frames missing there"]


def _times(stamps: list[str], time_base: Fraction, nominal: Fraction) -> tuple[np.ndarray, bool]:
    """Frame times in seconds from 0, and whether they depart from an even spacing by more than rounding."""
    even = np.arange(len(stamps), dtype=np.float64) / float(nominal)
    if "NOPTS" in stamps:
        return even, False
    ticks = np.array([int(s) for s in stamps], dtype=np.int64)
    times = (ticks - ticks[0]) * float(time_base)
    if (np.diff(times) < 0).any():
        return even, False
    # A time stamp is rounded to the time base, so two ticks of it are no evidence of a varying rate.
    tolerance = max(2 * float(time_base), 0.02 / float(nominal))
    if np.abs(times - even).max() <= tolerance:
        return even, False
    return times, True


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


def filters(info: VideoInfo, options: SourceOptions) -> str:
    """The ffmpeg filter chain that brings every frame to ``info.width`` x ``info.height``."""
    chain = []
    if options.crop:
        height, width = options.crop
        chain.append(f"scale={info.source_size[0]}:{info.source_size[1]}")  # a size change in mid-stream is undone
        chain.append(f"crop={width}:{height}:exact=1")
    chain.append(f"scale={info.width}:{info.height}")
    return ",".join(chain)
