# SPDX-License-Identifier: MIT
"""The first pass over a source: the number, times and checksums of its frames.

``scan`` decodes the source once and keeps no pixel. Containers misstate the number of frames and their times, so only
decoding gives both.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.errors import VideoError, wrap_os_error
from nervcodec.formats.header import MAX_FRAMES, MAX_PIXELS, MAX_SIDE
from nervcodec.formats.text import count_noun
from nervcodec.media.options import DEFAULT_RATE, SourceOptions
from nervcodec.media.planes import Light, light_of
from nervcodec.media.probe import Input, Probed, Snapshot, numbered_images, probe, require_file, require_one_size
from nervcodec.media.shots import STRIDE

if TYPE_CHECKING:
    from nervcodec.media.decoder import ClockPart, Damage

_MISSING_S = 1.0  # seconds missing at the end, of the stated duration
_CONCEALED_FRAMES = 15  # frames after the last damaged one that the damage may have changed
_MAX_DENOMINATOR = 1001  # largest denominator of a rate or of a gap in seconds
_JITTER_S = 0.1  # tolerated step back of time stamps, as in soft telecine
_HELD_GAPS = 1.5  # shortest duration of a held last frame, in gaps


@dataclass(frozen=True)
class VideoInfo:
    """A scanned source.

    Attributes:
        input: how it is opened, and which stream is read.
        snapshot: its files as they were before the scan.
        width, height: of the frames that will be read, after rotation, crop and scale.
        frame_rate: nominal for a constant rate, one over the median gap for a variable one.
        times_s: ``(frame_count,)`` float64, when each frame is shown, the first at 0.
        duration_s: seconds from the first frame to the end of the last.
        sample_aspect_ratio: of the frames as read.
        variable_frame_rate: True where frames are not evenly spaced, or the last is held.
        source_size: (width, height) before crop and scale, after rotation.
        source_duration_s: of the whole source as its container states it, where a part is read; None without that.
        complaints: what is damaged, and which frames that is near, a sentence each.
        notes: assumptions where the source states nothing, one line each.
        has_audio: there is an audio stream.
        first_frame_s: when the first frame shows, in the time that other streams of the source share.
        checksums: ``(frame_count,)`` uint32 of the frames as they are decoded, before any crop or scale.
        changes: ``(frame_count - 1,)`` float32, mean absolute difference of luma between neighbouring frames, 0 to 255.
        light: of a source in HDR, as its first frame states it; None where that states nothing.
        transfer: TransferCharacteristics of H.273 of its first frame, 2 where unspecified.
        has_alpha: its first frame is transparent in places, or its container states a picture of transparency.
        clock: parts of a transport stream's clock; empty for formats whose clock does not jump.
    """

    input: Input
    snapshot: Snapshot
    width: int
    height: int
    frame_rate: Fraction
    times_s: np.ndarray
    duration_s: float
    sample_aspect_ratio: Fraction
    variable_frame_rate: bool
    source_size: tuple[int, int]
    source_duration_s: float | None = None
    complaints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    has_audio: bool = False
    first_frame_s: float = 0.0
    checksums: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint32), repr=False)
    changes: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), repr=False)
    light: Light | None = None
    transfer: int = 2
    has_alpha: bool = False
    clock: tuple[ClockPart, ...] = ()

    @property
    def path(self) -> Path:
        """File or folder."""
        return self.input.path

    @property
    def images(self) -> tuple[Path, ...]:
        """The files of a folder of frames, in order; empty for a video file."""
        return self.input.images

    @property
    def file_bytes(self) -> int:
        """Size of the source, or of all images of a folder."""
        return sum(self.snapshot.sizes)

    @property
    def frame_count(self) -> int:
        """Number of frames that will be read."""
        return len(self.times_s)


def scan(path: str | Path, options: SourceOptions | None = None) -> VideoInfo:
    """Decode a source once; returns its streams, frame count, times and checksums.

    Args:
        path: a video file, or a folder of numbered PNG or JPEG frames.
        options: range, crop, scale, stream.

    Raises:
        VideoError: no such file, not a video, no frame in the range, or impossible crop or scale.
    """
    from nervcodec.media import decoder

    path, options = Path(path), options or SourceOptions()
    require_file(path)
    images = _images(path, options) if path.is_dir() else ()
    with wrap_os_error(f"{path}: cannot be read", VideoError):
        snapshot = Snapshot.of(path, images or [path])
    with snapshot.watched():
        probed = _probed_folder(path, images, options) if images else probe(path, options.stream, options.frame_rate)
        if options.start_s and probed.input.seeks and decoder.jumps_before(probed.input, options.start_s):
            probed = replace(probed, input=replace(probed.input, seeks=False))
        frames = _decode(probed, options)
        if options.start_s and probed.input.seeks and not _begins_at_start(frames, probed):
            # The index led nowhere, or past frames that belong to the range: read from the beginning.
            probed = replace(probed, input=replace(probed.input, seeks=False))
            frames = _decode(probed, options)
        if probed.input.threads and (frames.damage.near or frames.damage.unknown):
            probed = replace(probed, input=replace(probed.input, threads=False))
            frames = _decode(probed, options)
        return _interpret(probed, options, frames, snapshot)


def _images(path: Path, options: SourceOptions) -> tuple[Path, ...]:
    if options.stream is not None:
        raise VideoError(f"{path}: is a folder of frames; --stream is for files of several video streams")
    return numbered_images(path, options.start_s, options.duration_s, options.frame_rate)


def _probed_folder(path: Path, images: tuple[Path, ...], options: SourceOptions) -> Probed:
    require_one_size(images)
    rate = options.frame_rate or DEFAULT_RATE
    return Probed(Input(path, images, frame_rate=rate), (), 1 / rate, rate)


@dataclass
class _Frames:
    """The decoded frames of a range.

    Attributes:
        damage: errors while they were decoded.
        clock: as of :class:`VideoInfo`.
        size: (width, height) of the first.
        aspect: of a pixel, 1 where it is unknown.
        stamps: ticks of the stream's time base at which they show.
        last: ticks that the last is shown, as stated; 0 for not.
        checksums: of the decoded frames, as they are in the source.
        changes: of luma between neighbouring frames.
        interlaced: number of frames that are stored as two fields.
        light, transfer: as the first states them.
        has_alpha: the first is transparent in places.
    """

    damage: Damage
    clock: list[ClockPart] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    aspect: Fraction = Fraction(1)
    stamps: list[int] = field(default_factory=list)
    last: int = 0
    checksums: list[int] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    interlaced: int = 0
    light: Light | None = None
    transfer: int = 2
    has_alpha: bool = False


def _decode(probed: Probed, options: SourceOptions) -> _Frames:
    """Decode a range once."""
    from nervcodec.media import reader
    from nervcodec.media.decoder import Decoder

    path, decoder = probed.input.path, Decoder(probed.input, options.start_s, options.duration_s)
    frames = _Frames(decoder.damage)
    upright, samples, previous = reader.Filters(path), reader.Samples(), np.empty(0, np.int16)
    for frame, stamp in decoder.frames():
        if not frames.stamps:
            frames.transfer = int(frame.color_trc)  # filters change it
        turned, frames.last = upright.frame(frame), frame.duration
        if not frames.stamps:
            frames.size, frames.light = (turned.width, turned.height), light_of(frame)
            frames.has_alpha = reader.is_transparent(frame)
            frames.aspect = 1 / decoder.aspect if reader.is_transposed(frame) else decoder.aspect
            across, down = (max(1, side // STRIDE) for side in frames.size)
            smaller = reader.Filters(path, f"scale={across}:{down}:flags=neighbor,format=gray")
        frames.interlaced += frame.interlaced_frame
        frames.checksums.append(reader.checksum(samples.of(turned)))
        small = samples.of(smaller.frame(frame)).astype(np.int16)
        if frames.stamps:
            frames.changes.append(np.abs(small - previous).mean())
        frames.stamps.append(stamp)
        previous = small
    frames.clock = decoder.clock
    return frames


def _begins_at_start(frames: _Frames, probed: Probed) -> bool:
    """Whether a range begins at most one and a half frame intervals after its start."""
    if not frames.stamps or probed.frame_rate is None:
        return False
    return -0.5 <= frames.stamps[0] * probed.time_base * probed.frame_rate <= 1.5


def _interpret(probed: Probed, options: SourceOptions, frames: _Frames, snapshot: Snapshot) -> VideoInfo:
    path, images = probed.input.path, probed.input.images
    count, damage = len(frames.stamps), frames.damage
    if not count:
        if options.start_s and not damage.reasons:
            raise VideoError(f"{path}: no frame at or after {options.start_s:g} s")
        raise VideoError(f"{path}: no frame could be read ({'; '.join(damage.reasons) or 'it holds no frame'})")
    if count > MAX_FRAMES:
        raise VideoError(f"{path}: has more than {MAX_FRAMES:,} frames; encode it in parts (--start, --duration)")
    if images and count != len(images):
        reasons = "; ".join(damage.reasons)
        raise VideoError(f"{path}: only {count} of {count_noun(len(images), 'image')} could be read ({reasons})")
    width, height = output_size(path, frames.size, options)
    # Scaling by different factors across and down changes the shape of a pixel, as in ffmpeg's scale filter.
    cropped = options.crop[::-1] if options.crop else frames.size
    aspect = frames.aspect * Fraction(cropped[0], cropped[1]) / Fraction(width, height)
    timing = _read_timing(np.array(frames.stamps, np.int64), probed.time_base, probed.frame_rate)
    trimmed = options.start_s > 0 or options.duration_s is not None
    last_s = float(frames.last * probed.time_base)
    if timing.is_variable and not images and not trimmed and not damage.is_cut_off:
        last_s = max(last_s, _held_until(probed) - float(timing.times_s[-1]))
    timing = timing.with_last_frame(last_s, options.duration_s)
    notes = [f"{path.name}: {note}" for note in probed.notes]
    if probed.is_guess and count > 1:
        notes.append(f"{path.name}: states no frame rate; {float(timing.rate):g} frames a second are assumed (--fps)")
    if frames.interlaced:
        notes.append(
            f"{path.name}: {frames.interlaced:,} of {count_noun(count, 'frame')} are interlaced; their two fields stay "
            "woven as they are stored, so that moving edges show combs (deinterlace it before to avoid that)"
        )
    if len(frames.clock) > 1:
        notes.append(f"{path.name}: its clock jumps ({len(frames.clock) - 1} x); times are made to go on there")
    if timing.is_synthetic:
        rate = f"{float(timing.rate):g} frames a second"
        notes.append(f"{path.name}: times of its frames step back; even ones are taken, {rate}")
    return VideoInfo(
        input=probed.input,
        snapshot=snapshot,
        width=width,
        height=height,
        frame_rate=timing.rate,
        times_s=timing.times_s,
        duration_s=timing.end_s,
        sample_aspect_ratio=aspect.limit_denominator(10_000),
        variable_frame_rate=timing.is_variable,
        source_size=frames.size,
        source_duration_s=probed.duration_s if trimmed else None,
        complaints=tuple(_complaints(damage, timing, 0.0 if trimmed else probed.stream_s or 0.0)),
        notes=tuple(notes),
        has_audio=probed.has_audio,
        first_frame_s=float(frames.stamps[0] * probed.time_base),
        checksums=np.array(frames.checksums, np.uint32),
        changes=np.array(frames.changes, np.float32),
        light=frames.light,
        transfer=frames.transfer,
        has_alpha=frames.has_alpha or probed.has_alpha,
        clock=tuple(frames.clock),
    )


def _held_until(probed: Probed) -> float:
    """Seconds at which the stream ends, as stated: by itself, or by a container that holds nothing else; 0 for not."""
    alone = len(probed.streams) == 1 and not probed.has_audio
    return probed.stream_s or (probed.duration_s if alone else None) or 0.0


def _complaints(damage: Damage, timing: Timing, ends_s: float) -> list[str]:
    """Sentences about damage: where it is, and whether the file breaks off.

    Args:
        damage: of its frames.
        when: they show.
        ends_s: when the last should end; 0 where nothing is stated.
    """
    complaints, times = [], timing.times_s
    end_s = float(times[-1] + 1 / timing.rate)
    is_short = ends_s > max(end_s, damage.read_s) + _MISSING_S and bool(
        damage.near or not timing.is_variable
    )  # else the last is held
    if damage.is_cut_off or is_short:
        complaints.append(f"it is a partial file, which breaks off after {end_s:.2f} s")
    if damage.near:
        first, last = (min(near, len(times) - 1) for near in (damage.near[0], damage.near[-1] + _CONCEALED_FRAMES))
        where = f"near frame {first} ({times[first]:.2f} s)"
        if last > first:
            where = f"near frames {first} to {last} ({times[first]:.2f} s to {times[last]:.2f} s)"
        missing = f", {count_noun(damage.lost, 'frame')} missing there" if damage.lost else ""
        complaints.append(f"damaged {where}: concealed as well as ffmpeg can{missing}")
    return complaints


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


@dataclass(frozen=True)
class Timing:
    """When frames show.

    Attributes:
        times_s: ``(n,)`` float64, the first at 0.
        rate: frames a second: nominal for even spacing, one over the median gap otherwise.
        is_variable: they are not evenly spaced, or the last is held.
        end_s: when the last frame ends.
        is_synthetic: the stated times step back and are replaced by even ones.
    """

    times_s: np.ndarray
    rate: Fraction
    is_variable: bool
    end_s: float
    is_synthetic: bool = False

    def with_last_frame(self, last_s: float, limit_s: float | None = None) -> Timing:
        """The same with a held last frame, where its stated duration ``last_s`` is long enough.

        Args:
            last_s: seconds; 0 where nothing is stated.
            limit_s: end of the range that is read, which limits the stated duration.
        """
        if last_s * self.rate < _HELD_GAPS:
            return self
        end_s = float(self.times_s[-1]) + last_s
        if limit_s is not None:
            end_s = max(min(end_s, limit_s), self.end_s)
        return replace(self, end_s=end_s, is_variable=self.is_variable or end_s > self.end_s)


def _read_timing(stamps: np.ndarray, time_base: Fraction, nominal: Fraction | None) -> Timing:
    """Frame rate, spacing and end of frames, from their time stamps.

    Args:
        stamps: ``(count,)`` int64 ticks, at least one.
        time_base: seconds a tick.
        nominal: frames a second as stated; None where nothing is.
    """
    count = len(stamps)
    if (np.diff(stamps) * float(time_base) < -_JITTER_S).any():
        return replace(_even_timing(count, nominal or DEFAULT_RATE), is_synthetic=True)
    stamps = np.maximum.accumulate(stamps)
    times = (stamps - stamps[0]) * float(time_base)
    for rate in (nominal, _mean_rate(times)):
        if rate is not None and _is_even(times, rate, float(time_base)):
            return _even_timing(count, rate)
    gaps = np.diff(times)
    gaps = gaps[gaps > 0]
    rate = _rate_of_gap(float(np.median(gaps))) if len(gaps) else nominal or DEFAULT_RATE
    return Timing(times, rate, True, float(times[-1] + 1 / rate))


def _even_timing(count: int, rate: Fraction) -> Timing:
    times = np.arange(count, dtype=np.float64) / float(rate)
    return Timing(times, rate, False, float(times[-1] + 1 / rate))


def _is_even(times: np.ndarray, rate: Fraction, tick_s: float) -> bool:
    # Time stamps are rounded to the time base: deviations of up to two ticks do not mean a variable rate.
    tolerance = max(2 * tick_s, 0.02 / float(rate))
    return bool(np.abs(times - np.arange(len(times)) / float(rate)).max() <= tolerance)


def _mean_rate(times: np.ndarray) -> Fraction | None:
    return _rate_of_gap(float(times[-1]) / (len(times) - 1)) if len(times) > 1 and times[-1] > 0 else None


def _rate_of_gap(gap_s: float) -> Fraction:
    """One over a gap: a simple fraction, never 0."""
    if gap_s >= 1:
        return 1 / Fraction(gap_s).limit_denominator(_MAX_DENOMINATOR)
    return Fraction(1 / gap_s).limit_denominator(_MAX_DENOMINATOR)
