# SPDX-License-Identifier: MIT
"""What an encode knows before its first frame is encoded: source, sound, segments, their bytes and time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nervcodec import sizing
from nervcodec.base.copy import require_packets
from nervcodec.coordinates import PatchGrid
from nervcodec.device import Hardware, available_memory, choose
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.formats.header import AV1, COPY, HDR, PlaneFormat
from nervcodec.formats.text import count_noun, human_bytes
from nervcodec.media.audio import packets
from nervcodec.media.ffmpeg import LEAST_VMAF_SIDE, require_vmaf
from nervcodec.media.probe import source_digest
from nervcodec.media.reader import plane_format
from nervcodec.media.shots import DEFAULT_SEGMENT, cuts_from_changes, segment_lengths
from nervcodec.media.source import VideoInfo, scan
from nervcodec.network.config import Geometry
from nervcodec.options import NONE, EncodeOptions
from nervcodec.semantic.encoder import SemanticEncoder, resolve
from nervcodec.training.config import DEFAULT_TIME_S, FURTHER_TIME_S, FitConfig
from nervcodec.training.rate_control import SizeGoal

# What a file with a base layer takes beside its streams and heads, at most: once, for each segment, and for the
# table of an array that it has once; then the least that is left for a segment to be worth a try.
_BASE_HEADER_BYTES, _BASE_SEGMENT_BYTES, _ARRAY_BYTES, _LEAST_BASE_BYTES = 790, 265, 110, 200
_BASE_SEMANTIC_BYTES = 270  # the same for a segment with embeddings
_ENCODER_BYTES = 70  # of the header, where anything is embedded
_CUT_BYTES = 7  # of the header, for each
_CELL = 16  # pixels that a grid network renders at once, across and down: other frames are padded, as a copy
_USABLE = 0.8  # of the memory that is available
_SHARED_BYTES = 185  # of the header, where segments share anything


@dataclass(frozen=True)
class Runtime:
    """What an encode runs on and with, whatever its source.

    Attributes:
        hardware: device and precision.
        encoder: of reference embeddings, or None.
    """

    hardware: Hardware
    encoder: SemanticEncoder | None


@dataclass(frozen=True)
class EncoderInfo:
    """A semantic encoder of another process."""

    name: str
    dimension: int


def setup_runtime(options: EncodeOptions, observer: Observer) -> Runtime:
    """Choose the hardware and load the encoder, once for any number of sources.

    Raises:
        ConfigError: the device is not available.
        EncoderError: the encoder cannot be loaded.
    """
    hardware = _hardware(options)
    return Runtime(hardware, resolve(options.encoder, hardware.device, observer.note))


def _hardware(options: EncodeOptions) -> Hardware:
    # Frames that stream through several threads would leave megabytes each in the memory pool of every one.
    return choose(options.device, options.precision, None if options.layer.base == NONE else 2)


@dataclass(frozen=True)
class Plan:
    """An encode.

    Attributes:
        source: file or folder.
        options: all settings.
        info: what the scan found.
        audio: packets to keep, a Matroska file; empty for none, and in what :meth:`without_audio` gives.
        audio_bytes: their size.
        grid: the patch grid.
        hardware: device and precision.
        encoder: of reference embeddings, or None.
        lengths: frames of each segment.
        source_digest: see :func:`nervcodec.media.probe.source_digest`.
        planes: the source's own samples, where they are read for a base layer; else None.
        shared_bytes: of what all segments share.
    """

    source: Path
    options: EncodeOptions
    info: VideoInfo
    audio: bytes
    audio_bytes: int
    grid: PatchGrid
    hardware: Hardware
    encoder: SemanticEncoder | None
    lengths: list[int]
    source_digest: str
    planes: PlaneFormat | None = None
    shared_bytes: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Each process loads its own encoder: what another one needs to know of it is plain data."""
        encoder = None if self.encoder is None else EncoderInfo(self.encoder.name, self.encoder.dimension)
        return {**vars(self), "encoder": encoder}

    def without_audio(self) -> Plan:
        """The same for tasks, which need the size of the packets only."""
        return replace(self, audio=b"")

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.grid.rows, self.grid.columns

    def geometry(self, frames: int) -> Geometry:
        """Of a segment."""
        return Geometry(frames, self.info.height, self.info.width, *self.patch_grid)

    def first_frame(self, index: int) -> int:
        """The number of a segment's first frame."""
        return sum(self.lengths[:index])

    def cuts(self, index: int) -> tuple[int, ...]:
        """First frames of a segment's shots after the first, counted from its own first frame."""
        first = self.first_frame(index)
        return cuts_from_changes(self.info.changes[first : first + self.lengths[index] - 1])

    @property
    def shares_network(self) -> bool:
        """Whether its segments have a network in common."""
        return len(self.lengths) > 1 and self.planes is None and self.options.network.embed == "grid"

    @property
    def sample_frames(self) -> int:
        """How many frames a network that segments share may be fitted to."""
        return _sample_frames(self.info)

    @property
    def ten_seconds(self) -> int:
        """How many stretches of ten seconds it has, the last of which may be shorter."""
        return len(segment_lengths(self.info.frame_count, float(self.info.frame_rate), DEFAULT_SEGMENT))

    @property
    def target_bytes(self) -> float | None:
        """Target size of the whole file; None if there is none."""
        if self.options.bpp is None:
            return self.options.size_bytes
        return self.options.bpp * self.info.frame_count * self.info.height * self.info.width / 8

    def size_goal(self, frames: int, embedded: int, cuts: int, share: float | None = None) -> SizeGoal | None:
        """What a segment's weights may take: its part of the target size, or else of the source's size.

        Args:
            frames: of the segment.
            embedded: how many of them have embeddings.
            cuts: how many of them begin a shot after the first.
            share: of all bytes; None for that of its frames.

        Raises:
            ConfigError: the target size is too small.
        """
        info, options, share = self.info, self.options, share or frames / self.info.frame_count
        size = self.target_bytes
        if size is None and self.planes is not None:
            return None
        if size is None:
            # Weights that were not rounded in the fit do not stand being squeezed: their quality comes first.
            if info.images or not options.fit.rounding_share:
                return None
            part = info.file_bytes * self._share_of_source(share)
            common = share * (self.audio_bytes + self.shared_bytes)
            return SizeGoal(max(sizing.SHARE_OF_SOURCE * part - common, sizing.MINIMUM_BYTES))
        beside, once, least = self._beside(frames, embedded, cuts)
        weights = share * (size - once) - beside
        if self.shares_network and self.shared_bytes:  # that is fitted: it is too late to refuse
            return SizeGoal(max(weights, least), reach=True)
        enough = (least + beside) / share + once
        if self.shares_network:
            enough = max(enough + sizing.MINIMUM_BYTES, enough / (1 - sizing.SHARED_SIZE))
        if size < enough:
            enough = math.ceil(enough / 1000) * 1000
            sound = f", {self.audio_bytes:,} of them for its sound" if self.audio_bytes else ""
            raise ConfigError(f"{size:,.0f} bytes are too few for this video; ask for {enough:,.0f} or more{sound}")
        return SizeGoal(weights, reach=True)

    def least_share(self, frames: int, embedded: int, cuts: int) -> float:
        """The part of all bytes that a segment needs whatever it shows; 0 without a target size."""
        if self.target_bytes is None:
            return 0.0
        beside, once, least = self._beside(frames, embedded, cuts)
        return (beside + least) / max(self.target_bytes - once, 1.0)

    def _beside(self, frames: int, embedded: int, cuts: int) -> tuple[float, float, float]:
        """Bytes beside a segment's weights, those that a file has once, and the fewest weights worth a try."""
        info, times = self.info, sizing.TIME_BYTES if self.info.variable_frame_rate else 0
        if self.planes is None:
            fixed = sizing.SEGMENT_BYTES + (sizing.SEMANTIC_BYTES if embedded else 0)
            beside = fixed + (sizing.FRAME_BYTES + times) * frames + sizing.EMBEDDED_BYTES * embedded
            once = sizing.HEADER_BYTES + self.audio_bytes
            if not self.shares_network:
                return beside, once, sizing.MINIMUM_BYTES
            return beside, once + self.shared_bytes + _SHARED_BYTES, sizing.MINIMUM_SEGMENT_BYTES
        named = len(self.source.name.encode()) + (
            _ENCODER_BYTES + len(self.encoder.name) if self.encoder is not None else 0
        )
        arrays = _ARRAY_BYTES * (bool(self.audio_bytes) + info.variable_frame_rate)
        beside = (
            _BASE_SEGMENT_BYTES
            + _CUT_BYTES * cuts
            + times * frames
            + (_BASE_SEMANTIC_BYTES + embedded if embedded else 0)
        )
        shared = self.shared_bytes + _SHARED_BYTES if self.shared_bytes else 0
        return beside, _BASE_HEADER_BYTES + named + arrays + shared + self.audio_bytes, _LEAST_BASE_BYTES

    def _share_of_source(self, share: float) -> float:
        """The part of the source file's bytes that a share of the video stands for."""
        options, info = self.options.source, self.info
        trimmed = options.start_s or options.duration_s is not None
        if trimmed and info.source_duration_s:
            share *= min(1.0, info.duration_s / info.source_duration_s)
        return share


def make_plan(source: Path, options: EncodeOptions, observer: Observer, runtime: Runtime | None = None) -> Plan:
    """Look at a source and load what its encode takes.

    Args:
        source: file or folder.
        options: all settings.
        observer: told of progress, and of unusual properties of the source.
        runtime: that is there already; None chooses and loads it, once the source is seen to be readable.

    Raises:
        ConfigError, VideoError, EncoderError: see :func:`nervcodec.encoding.encode`.
    """
    observer.stage("Reading")
    if options.vmaf is not None:
        require_vmaf()
    hardware = _hardware(options) if runtime is None else runtime.hardware
    info = scan(source, options.source)
    if options.vmaf is not None and min(info.width, info.height) < LEAST_VMAF_SIDE:
        least = f"{LEAST_VMAF_SIDE}x{LEAST_VMAF_SIDE}"
        raise ConfigError(f"{source}: frames of {info.width}x{info.height} have no VMAF, which needs {least} or more")
    if options.layer.base == COPY:
        require_packets(info)
    elif info.has_alpha:
        remedy = "" if info.images else f" (--base {COPY} keeps it)"
        observer.note(f"{source.name}: is transparent in places, which is left out{remedy}")
    if options.layer.base == NONE and (hdr := HDR.get(info.transfer)):
        observer.note(
            f"{source.name}: is HDR ({hdr}); a network alone is fitted to its {hdr} values in 8 bits "
            f"and decodes to them (--base {AV1} keeps HDR)"
        )
    for note in info.notes:
        observer.note(note)
    for complaint in info.complaints:
        observer.note(f"{source.name}: {complaint}")
    with info.snapshot.watched():
        audio = packets(info, options.source, observer) if info.has_audio and options.audio == "copy" else b""
        planes = None if options.layer.base == NONE else plane_format(info, options.source)
        digest = source_digest(source)
    encoder = resolve(options.encoder, hardware.device, observer.note) if runtime is None else runtime.encoder
    grid = PatchGrid.fitting(info.height, info.width, *options.patches)
    lengths = _lengths(info, options)
    plan = Plan(source, options, info, audio, len(audio), grid, hardware, encoder, lengths, digest, planes)
    if planes is None:
        _require_memory(plan)
    return plan


def _require_memory(plan: Plan) -> None:
    """Refuse an encode whose frames do not fit into memory: a network alone is fitted to all frames of a segment.

    Raises:
        ConfigError: they do not.
    """
    frames, info = max(plan.lengths), plan.info
    copies = 2 if info.height % _CELL or info.width % _CELL or plan.options.network.embed != "grid" else 1
    size_bytes = copies * frames * info.height * info.width * 3
    for device in dict.fromkeys(("cpu", plan.hardware.device)):
        available = available_memory(device)
        if available is None or size_bytes <= available:
            continue
        share = _USABLE * max(available, 0) / size_bytes
        width, height = (int(side * math.sqrt(share)) // _CELL * _CELL for side in (info.width, info.height))
        seconds = math.floor(share * frames / float(info.frame_rate))
        ways = []
        if width and height:
            ways.append(f"--scale {width}x{height} makes it {human_bytes(frames * width * height * 3)}")
        if seconds:
            of_seconds = copies * round(seconds * float(info.frame_rate)) * info.height * info.width * 3
            ways.append(f"--duration {seconds}s makes it {human_bytes(of_seconds)}")
        ways.append(f"--base {AV1} needs no such memory")
        raise ConfigError(
            f"{plan.source}: a network alone keeps its frames in memory: {count_noun(frames, 'frame')} of {info.width}x"
            f"{info.height} take {human_bytes(size_bytes)}, and {human_bytes(max(available, 0))} of "
            f"{'the GPU' if device == 'cuda' else 'memory'} are free; {'; '.join(ways)}"
        )


def _lengths(info: VideoInfo, options: EncodeOptions) -> list[int]:
    """Frames of each segment. By default a ``grid`` network alone takes as many frames as a sample may have."""
    rate = float(info.frame_rate)
    lengths = segment_lengths(info.frame_count, rate, options.segment or DEFAULT_SEGMENT)
    if options.segment is not None or options.layer.base != NONE or options.network.embed != "grid":
        return lengths
    return min(lengths, segment_lengths(info.frame_count, rate, f"{_sample_frames(info)}f"), key=len)


def _sample_frames(info: VideoInfo) -> int:
    return max(1, int(sizing.SAMPLE_BYTES // (info.height * info.width * 3)))


def shared_fit(plan: Plan) -> FitConfig:
    """The fit of the network that segments share: a part of their passes or time, with a limit on the time."""
    fit = _fit_of_all(plan)
    if fit.epochs is not None:
        fit = replace(fit, epochs=max(1, round(sizing.SHARED_FIT * fit.epochs)))
    return fit.scaled(_shared_part(fit))


def segment_fit(plan: Plan, frames: int) -> FitConfig:
    """The fit of a segment of ``frames`` frames."""
    fit = _fit_of_all(plan)
    own = 1 - _shared_part(fit) if plan.shares_network else 1.0
    if plan.shares_network and fit.epochs is not None:
        fit = replace(fit, epochs=max(1, fit.epochs - round(sizing.SHARED_FIT * fit.epochs)))
    return fit.scaled(own * frames / plan.info.frame_count)


def _fit_of_all(plan: Plan) -> FitConfig:
    """The fit of a whole video. Segments of a ``pe`` network share nothing, so that further ones take as long."""
    is_grid = plan.options.network.embed == "grid"
    return plan.options.fit.with_default_time(plan.ten_seconds, FURTHER_TIME_S if is_grid else DEFAULT_TIME_S)


def _shared_part(fit: FitConfig) -> float:
    most = math.inf if fit.time_s is None else sizing.MAX_SHARED_S / fit.time_s
    return min(sizing.SHARED_FIT, most)
