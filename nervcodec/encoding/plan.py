# SPDX-License-Identifier: MIT
"""What an encode knows before its first frame is fitted: the source, its sound, the segments, what each may take."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from nervcodec import sizing
from nervcodec.base.options import NONE
from nervcodec.base.packets import require_packets
from nervcodec.coordinates import PatchGrid
from nervcodec.device import Hardware, choose
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.fitting.rate_control import SizeGoal
from nervcodec.formats.header import PlaneFormat
from nervcodec.formats.kinds import COPY
from nervcodec.network.config import Geometry
from nervcodec.options import EncodeOptions
from nervcodec.semantic.encoder import SemanticEncoder, resolve
from nervcodec.video.planes import plane_format
from nervcodec.video.segments import segment_lengths
from nervcodec.video.sound import packets
from nervcodec.video.source import VideoInfo, scan


@dataclass(frozen=True)
class Plan:
    """An encode.

    Attributes:
        source: file or folder.
        wanted: all settings.
        info: what the scan found.
        audio: packets to keep, a Matroska file; empty for none.
        grid: the patch grid.
        hardware: device and precision.
        encoder: of reference embeddings, or None.
        lengths: frames of each segment.
        planes: the source's own samples, where they are read for a base layer; else None.
    """

    source: Path
    wanted: EncodeOptions
    info: VideoInfo
    audio: bytes
    grid: PatchGrid
    hardware: Hardware
    encoder: SemanticEncoder | None
    lengths: list[int]
    planes: PlaneFormat | None = None

    def on_cpu(self) -> Plan:
        """The same without the GPU."""
        return replace(self, hardware=choose("cpu", self.wanted.precision))

    def geometry(self, frames: int) -> Geometry:
        """Of a segment."""
        return Geometry(frames, self.info.height, self.info.width, self.grid.rows, self.grid.columns)

    def size_goal(self, frames: int, embedded: int) -> SizeGoal | None:
        """What a segment's weights may take: its part of the size asked for, or else of the source's.

        Args:
            frames: of the segment.
            embedded: how many of them have embeddings.

        Raises:
            ConfigError: the size asked for is too small.
        """
        info, wanted, share = self.info, self.wanted, frames / self.info.frame_count
        size = wanted.size_bytes
        if wanted.bpp is not None:
            size = wanted.bpp * info.frame_count * info.height * info.width / 8
        if size is None and self.planes is not None:
            return None
        if size is None:
            # Weights that were not rounded in the fit do not stand being squeezed: their quality comes first.
            if info.images or not wanted.fit.rounding_share:
                return None
            part = info.file_bytes * self._share_of_source(frames)
            return SizeGoal(max(sizing.SHARE_OF_SOURCE * part - share * len(self.audio), sizing.MINIMUM_BYTES))
        per_frame = sizing.FRAME_BYTES + (sizing.TIME_BYTES if info.variable_frame_rate else 0)
        fixed = sizing.SEGMENT_BYTES + (sizing.SEMANTIC_BYTES if embedded else 0)
        beside = fixed + per_frame * frames + sizing.EMBEDDED_BYTES * embedded
        once = sizing.HEADER_BYTES + len(self.audio)
        weights = share * (size - once) - beside
        if weights < sizing.MINIMUM_BYTES:
            least = math.ceil(((sizing.MINIMUM_BYTES + beside) / share + once) / 1000) * 1000
            sound = f", {len(self.audio):,} of them for its sound" if self.audio else ""
            raise ConfigError(f"{size:,.0f} bytes are too few for this video; ask for {least:,.0f} or more{sound}")
        return SizeGoal(weights, reach=True)

    def _share_of_source(self, frames: int) -> float:
        """The part of the source file's bytes that a segment stands for, by frames."""
        wanted, info = self.wanted.source, self.info
        share = frames / info.frame_count
        trimmed = wanted.start_s or wanted.duration_s is not None
        if trimmed and info.source_duration_s:
            share *= min(1.0, info.duration_s / info.source_duration_s)
        return share


def make_plan(source: Path, wanted: EncodeOptions, observer: Observer) -> Plan:
    """Look at a source and load what its encode takes.

    Raises:
        ConfigError, VideoError, EncoderError: see :func:`nervcodec.encoding.encode`.
    """
    observer.stage("Reading")
    hardware = choose(wanted.device, wanted.precision)
    info = scan(source, wanted.source)
    if wanted.layer.base == COPY:
        require_packets(info)
    for note in info.notes:
        observer.note(note)
    for complaint in info.complaints:
        observer.note(f"{source.name}: ffmpeg says: {complaint}")
    audio = packets(info, wanted.source) if info.has_audio and wanted.audio == "copy" else b""
    encoder = resolve(wanted.encoder, hardware.device, observer.note)
    grid = PatchGrid.fitting(info.height, info.width, *wanted.patches)
    lengths = segment_lengths(info.frame_count, float(info.frame_rate), wanted.segment)
    planes = None if wanted.layer.base == NONE else plane_format(info, wanted.source)
    return Plan(source, wanted, info, audio, grid, hardware, encoder, lengths, planes)
