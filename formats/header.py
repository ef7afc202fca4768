# SPDX-License-Identifier: MIT
"""The header of a ``.nerv`` file: frozen dataclasses that check themselves, and their JSON form.

Headers are untrusted input. Every count has a limit, so that nothing is allocated or looped over
before it is validated; numbers about tensors are checked against the tensors themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

AV1 = "av1"  # a stream of its own for each segment, which begins with a key frame
COPY = "copy"  # the source's own packets, in one stream for the whole video
HEAD_ONLY = "refiner"  # a segment without a pixel network; the name is of an earlier version
MAX_CRF = 70  # the worst quality that SVT-AV1 knows
STREAM = "stream"  # uint8, all weights of a network, entropy coded (:mod:`nervcodec.formats.bitstream`)
FORMAT = "nerv"
FORMAT_VERSION = 3

# Arrays outside segments: times of frames in seconds, and audio packets in a Matroska file.
FRAME_TIMES, AUDIO = "frame_times", "audio"
# Names after a prefix: the stream of weights of a segment or of the shared parameters; and the stream of a base layer
# of a segment, without a prefix if it spans the file.
WEIGHTS, BASE = "weights", "base"
MAX_PADDING = 64  # rows or columns that a coded frame may have beyond the video's

MAX_SIDE = 65_536
MAX_PIXELS = 1 << 28  # of one frame: sixteen times 8K
MAX_FRAMES = 10_000_000
MAX_SEGMENT_FRAMES = 1_000_000
MAX_SEGMENTS = 1_000_000
MAX_PATCHES = 4_096
MAX_DIMENSION = 65_536
MAX_TEXT = 1_024
SOURCE_DIGEST_BYTES = 16
MAX_PACE = 99  # largest time between consecutive frames in a time warp


@dataclass(frozen=True)
class TensorCode:
    """How a stored array is decoded.

    Attributes:
        codec: ``stream``.
    """

    codec: str

    def __post_init__(self) -> None:
        if self.codec != STREAM:
            raise ValueError(f"unknown tensor codec {self.codec[:40]!r}; this file needs a newer nervcodec")


def _check(ok: bool, message: str) -> None:
    if not ok:
        raise ValueError(message)


def _check_text(name: str, text: str) -> None:
    _check(len(text) <= MAX_TEXT, f"{name} is longer than {MAX_TEXT} characters")
    _check(text.isprintable(), f"{name} holds control characters")


def _check_prefix(prefix: str) -> None:
    _check_text("prefix", prefix)
    _check(prefix.endswith("/") and prefix.count("/") == 1, "a prefix ends with its only slash")


def _is_digest(text: str) -> bool:
    return len(text) == 2 * SOURCE_DIGEST_BYTES and not set(text) - set("0123456789abcdef")


@dataclass(frozen=True)
class VideoHeader:
    """The source video, after crop, scale and trimming.

    Attributes:
        width, height: of a frame, in pixels.
        frame_rate: frames a second as (numerator, denominator); one over the median gap where the rate varies.
        frame_count: frames in the container.
        duration_s: seconds.
        source_name: file name of the source, without folders.
        sample_aspect_ratio: width : height of one pixel.
        source_bytes: size of the whole source file, audio included; None if unknown.
        source_digest: 32 hexadecimal digits that tell one source from another of the same name and size (see
            ``docs/container.md``); None in files written before it was recorded.
        source_start_s: where in the source this container begins, in seconds.
        source_duration_s: requested duration of the source, in seconds; None for all of it.
        crop: (height, width) of the window cut from the middle of the source's frames, before any scaling.
        variable_frame_rate: frame times are stored in the tensor ``frame_times``.
        first_frame_s: when the first frame shows in the time of the packets in the tensor ``audio``, in seconds.
        source_stream: requested video stream of the source; None for the default.
        source_frame_rate: requested frame rate for the source; None for its own.
    """

    width: int
    height: int
    frame_rate: tuple[int, int]
    frame_count: int
    duration_s: float
    source_name: str
    sample_aspect_ratio: tuple[int, int] = (1, 1)
    source_bytes: int | None = None
    source_start_s: float = 0.0
    source_duration_s: float | None = None
    crop: tuple[int, int] | None = None
    variable_frame_rate: bool = False
    first_frame_s: float = 0.0
    source_stream: int | None = None
    source_frame_rate: tuple[int, int] | None = None
    source_digest: str | None = None

    def __post_init__(self) -> None:
        _check(math.isfinite(self.first_frame_s) and abs(self.first_frame_s) < 1e6, "first frame is out of range")
        _check(1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE, "frame size is out of range")
        _check(self.width * self.height <= MAX_PIXELS, "a frame has too many pixels")
        _check(1 <= self.frame_count <= MAX_FRAMES, "frame count is out of range")
        source_rate = self.source_frame_rate or (1, 1)
        rates = ("frame rate", self.frame_rate), ("source frame rate", source_rate)
        for name, pair in (*rates, ("sample aspect ratio", self.sample_aspect_ratio)):
            _check(all(1 <= n <= 1 << 31 for n in pair), f"{name} is out of range")
        _check(Fraction(*self.frame_rate) <= 100_000, "frame rate is out of range")
        _check(math.isfinite(self.duration_s) and 0 <= self.duration_s <= 1e9, "duration is out of range")
        _check(math.isfinite(self.source_start_s) and self.source_start_s >= 0, "source start is out of range")
        _check(self.source_duration_s is None or 0 < self.source_duration_s <= 1e9, "source duration is out of range")
        _check(self.source_stream is None or 0 <= self.source_stream < 1 << 16, "source stream is out of range")
        _check(self.crop is None or all(1 <= side <= MAX_SIDE for side in self.crop), "crop is out of range")
        _check(self.source_digest is None or _is_digest(self.source_digest), "source digest has not 32 hex digits")
        _check_text("source name", self.source_name)
        _check(not set(self.source_name) & set("/\\"), "source name must not contain folders")

    @property
    def fps(self) -> float:
        """Frames a second as a float."""
        return self.frame_rate[0] / self.frame_rate[1]


PQ, HLG = 16, 18  # TransferCharacteristics of H.273 that are HDR
HDR = {PQ: "PQ", HLG: "HLG"}
_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}  # of red and blue, by H.273's matrix; BT.601 for all others
_BT601 = (0.299, 0.114)


@dataclass(frozen=True)
class PlaneFormat:
    """Sample format of a base layer: one plane of luma and two of chroma.

    Attributes:
        depth: bits of a sample, 8 or 10.
        chroma: ``420``, ``422`` or ``444``, how many samples the chroma planes have.
        matrix: code point MatrixCoefficients of ITU-T H.273: 1 BT.709, 5 and 6 BT.601, 9 BT.2020; 0 where the planes
            are G, B and R themselves; 2 where it is unspecified, which is decoded as BT.601, as ffmpeg does.
        full_range: black and white are the least and greatest value; else 16 and 235 (luma), times 4 for 10 bits.
        chroma_place: chroma siting: ``left``, ``center`` or ``topleft``.
        primaries, transfer: ColourPrimaries and TransferCharacteristics of H.273, 2 where unspecified. They do not
            change RGB, only its tone mapping; an exported stream carries them.
    """

    depth: int = 8
    chroma: str = "420"
    matrix: int = 2
    full_range: bool = False
    chroma_place: str = "left"
    primaries: int = 2
    transfer: int = 2

    def __post_init__(self) -> None:
        _check(self.depth in (8, 10), "depth of samples is out of range")
        _check(self.chroma in ("420", "422", "444"), "chroma format is unknown")
        _check(self.matrix in (0, 1, 2, 5, 6, 9), "matrix of colours is unknown")
        _check(self.matrix != 0 or self.chroma == "444", "planes of RGB are all of one size")
        _check(self.chroma_place in ("left", "center", "topleft"), "place of chroma is unknown")
        _check(0 <= self.primaries < 256 and 0 <= self.transfer < 256, "code point of colours is out of range")

    @property
    def is_hdr(self) -> bool:
        """Whether its transfer function is PQ or HLG."""
        return self.transfer in HDR

    @property
    def luma_weights(self) -> tuple[float, float]:
        """Luma weights of red and blue, by the matrix; the rest is green's."""
        return _LUMA_WEIGHTS.get(self.matrix, _BT601)

    @property
    def chroma_step(self) -> tuple[int, int]:
        """Luma samples for one of chroma, (down, across)."""
        return (2 if self.chroma == "420" else 1), (1 if self.chroma == "444" else 2)


@dataclass(frozen=True)
class BaseHeader:
    """A base layer: the stream of a classical codec and its sample format.

    Attributes:
        kind: ``av1``, a stream for each segment that begins with a key frame, or ``copy``, the source's own packets in
            one Matroska file for the whole video.
        codec: its name as ffmpeg has it, e.g. ``av1`` or ``h264``.
        planes: sample format.
        width, height: of the coded frames, in pixels of luma; with ``av1`` the video is their top left part.
        crf: quality, 0 (best) to 70; None if unknown.
        psnr_db: of the base alone, as measured at encode; None where it was not.
        skipped: with ``copy``, preroll: frames at the beginning of its stream that are decoded but not presented.
        entries: with ``copy``, random access points: (frame number, byte offset) from which that frame and later ones
            decode exactly, after the bytes before the first entry; empty: decoding starts at the beginning only.
        flawed: with ``copy``, decoding tolerates errors in the stream; else an error means damage.
    """

    kind: str
    codec: str
    planes: PlaneFormat
    width: int
    height: int
    crf: float | None = None
    psnr_db: float | None = None
    skipped: int = 0
    entries: tuple[tuple[int, int], ...] = ()
    flawed: bool = False

    def __post_init__(self) -> None:
        _check(
            self.kind in (AV1, COPY), f"kind of base layer {self.kind[:40]!r} is unknown; it needs a newer nervcodec"
        )
        _check_text("codec", self.codec)
        _check(self.codec != "", "codec of the base layer is missing")
        _check(1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE, "size of coded frames is out of range")
        _check(self.width * self.height <= MAX_PIXELS, "a coded frame has too many pixels")
        down, across = self.planes.chroma_step
        even = self.kind == COPY or not (self.height % down or self.width % across)
        _check(even, "a coded frame does not hold its chroma samples")
        _check(self.crf is None or 0 <= self.crf <= MAX_CRF, "crf of the base layer is out of range")
        _check(self.psnr_db is None or math.isfinite(self.psnr_db), "quality of the base layer is not finite")
        is_plain = not (self.skipped or self.entries or self.flawed)
        _check(self.kind == COPY or is_plain, "only a copied stream has frames to skip, entries or flaws")
        _check(0 <= self.skipped < MAX_FRAMES, "frames to skip are out of range")
        _check(not (self.skipped and self.entries), "a stream with frames to skip has no entries")
        _check(len(self.entries) <= MAX_SEGMENTS, "number of entries is out of range")
        frames, offsets = [entry[0] for entry in self.entries], [entry[1] for entry in self.entries]
        _check(not frames or (frames[0] == 0 and offsets[0] > 0), "the first entry is the first frame")
        _check(all(a < b for n in (frames, offsets) for a, b in zip(n, n[1:], strict=False)), "entries must ascend")


@dataclass(frozen=True)
class SemanticHeader:
    """Encoder of the embeddings.

    Attributes:
        encoder: its name as ``--encoder`` takes it, e.g. ``openclip:ViT-B-32/laion2b_s34b_b79k``.
        dimension: numbers in one embedding.
        sampled_fps: frames a second that were embedded.
    """

    encoder: str
    dimension: int
    sampled_fps: float

    def __post_init__(self) -> None:
        _check_text("encoder", self.encoder)
        _check(1 <= self.dimension <= MAX_DIMENSION, "embedding dimension is out of range")
        _check(0 < self.sampled_fps <= 100_000, "sampled frame rate is out of range")


@dataclass(frozen=True)
class Segment:
    """Consecutive frames with their own network.

    Attributes:
        first_frame, frame_count: the run.
        network: the network's configuration, as ``nervcodec.network.config`` reads it.
        prefix: of the names of its arrays.
    """

    first_frame: int
    frame_count: int
    network: dict[str, Any]
    prefix: str

    def __post_init__(self) -> None:
        _check(
            0 <= self.first_frame < MAX_FRAMES and 1 <= self.frame_count <= MAX_SEGMENT_FRAMES,
            "frames are out of range",
        )
        _check_prefix(self.prefix)

    @property
    def changes_base(self) -> bool:
        """Whether its network refines a base layer, as in files of earlier versions."""
        return self.network.get("kind") == HEAD_ONLY and bool(self.network.get("width"))


IDENTICAL_DB = 100.0  # recorded for frames without any error


@dataclass(frozen=True)
class FitRecord:
    """Measurements of the encoder, after quantization.

    Attributes:
        psnr_db: mean over the fitted frames of the RGB PSNR in dB (:data:`IDENTICAL_DB` for identical frames).
        fit_s: seconds spent fitting, embeddings and video input apart.
        steps: optimiser steps.
        complete: False where the fit was interrupted.
        entropy_bytes: empirical entropy of the quantized weights, tensor by tensor, to compare with their coded size;
            None if not recorded.
        missing_frames: frames not encoded because the fit was stopped; None for none.
    """

    psnr_db: float
    fit_s: float
    steps: int
    complete: bool = True
    entropy_bytes: int | None = None
    missing_frames: int | None = None

    def __post_init__(self) -> None:
        _check(math.isfinite(self.psnr_db) and math.isfinite(self.fit_s), "recorded quality is not finite")
        _check(
            self.missing_frames is None or 0 < self.missing_frames <= MAX_FRAMES,
            "number of missing frames is out of range",
        )


@dataclass(frozen=True)
class StoredTensor:
    """One array of the file: its checksum and encoding.

    Attributes:
        code: how it is decoded; None for plain arrays.
        checksum: BLAKE2b with an 8 byte digest over the stored little-endian bytes, in hex.
    """

    checksum: str
    code: TensorCode | None = None

    def __post_init__(self) -> None:
        _check(len(self.checksum) == 16, "a checksum has 16 hexadecimal digits")


@dataclass(frozen=True)
class Header:
    """Header of a ``.nerv`` file.

    Attributes:
        video: the source.
        patch_grid: rows and columns of patches in a frame.
        segments: in order, covering every frame exactly once.
        tensors: by name; exactly the arrays in the file.
        semantic: None where the container has no embeddings.
        fit: measurements of the encoder.
        tool: name and version of the writer.
        split: (fitted, train, total) of the repeating pattern by which frames were held out from the fit, as
            ``nervcodec.ranges`` reads it; None where all were fitted.
        base: the base layer, or None.
        shared: prefix of the parameters that all segments share; None where there are none.
    """

    video: VideoHeader
    patch_grid: tuple[int, int]
    segments: tuple[Segment, ...]
    tensors: dict[str, StoredTensor]
    fit: FitRecord
    tool: str
    semantic: SemanticHeader | None = None
    split: tuple[int, int, int] | None = None
    base: BaseHeader | None = None
    shared: str | None = None

    def __post_init__(self) -> None:
        if self.split is not None:
            fitted, train, total = self.split
            _check(1 <= fitted <= train <= total <= 1000, "split is out of range")
        rows, columns = self.patch_grid
        _check(rows >= 1 and columns >= 1 and rows * columns <= MAX_PATCHES, "patch grid is out of range")
        _check(rows <= self.video.height and columns <= self.video.width, "patch grid is finer than the pixels")
        _check(1 <= len(self.segments) <= MAX_SEGMENTS, "number of segments is out of range")
        _check_text("tool", self.tool)
        position = 0
        for segment in self.segments:
            _check(segment.first_frame == position, "segments must follow each other without a gap")
            position += segment.frame_count
        _check(position == self.video.frame_count, "segments do not add up to the frame count")
        prefixes = {segment.prefix for segment in self.segments}
        _check(len(prefixes) == len(self.segments), "two segments share their tensors")
        if self.shared is not None:
            _check_prefix(self.shared)
            _check(self.shared not in prefixes, "shared parameters and a segment have the same prefix")
            stored = [name for name in self.tensors if name.startswith(self.shared)]
            _check(stored == [self.shared + WEIGHTS], f"shared parameters are one array, {self.shared + WEIGHTS!r}")
            prefixes.add(self.shared)
        for name in self.tensors:
            _check_text("tensor name", name)
            owner, slash, _ = name.partition("/")
            _check(owner + slash in prefixes or name in (FRAME_TIMES, AUDIO, BASE), "a tensor belongs to no segment")
        self._check_base()

    def base_arrays(self) -> list[str]:
        """Names of the arrays of the base layer's streams: one for each segment, one for all, or none."""
        if self.base is None:
            return []
        return [segment.prefix + BASE for segment in self.segments] if self.base.kind == AV1 else [BASE]

    def _check_base(self) -> None:
        expected = set(self.base_arrays())
        stored = {name for name in self.tensors if name.rpartition("/")[2] == BASE}
        _check(all(self.tensors[name].code is None for name in stored), "the stream of a base layer holds no weights")
        if self.base is not None:
            missing = min(expected - stored, default="")
            _check(not missing, f"a base layer of kind {self.base.kind} has no array {missing!r}")
            padding = self.base.width - self.video.width, self.base.height - self.video.height
            fits = self.base.kind == COPY or all(0 <= more <= MAX_PADDING for more in padding)
            _check(fits, "the base layer's frames are not of the video's size")
            last = self.base.entries[-1][0] if self.base.entries else 0
            _check(last < self.video.frame_count, "an entry of the base layer lies behind the last frame")
        kind = "without a base layer" if self.base is None else f"whose base layer is of kind {self.base.kind}"
        _check(stored <= expected, f"a file {kind} has no array {min(stored - expected, default='')!r}")
