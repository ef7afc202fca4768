# SPDX-License-Identifier: MIT
"""The original of an evaluation, and classical codecs through ffmpeg: the same frames, the same measures."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from nervcodec import metrics
from nervcodec.colour import to_rgb8
from nervcodec.errors import ConfigError, VideoError
from nervcodec.events import Observer
from nervcodec.media import decoder, ffmpeg
from nervcodec.media.ffmpeg import Vmaf
from nervcodec.media.reader import Samples, plane_format, read_filtered, read_frames, read_planes
from nervcodec.media.source import SourceOptions, VideoInfo, scan
from nervcodec.threads import core_count
from nervcodec.tone_mapping import peak_of, to_screen8

_CURVE_STEP = 4  # between the qualities of a curve around a size
_THREADS = min(4, core_count())  # that measure frames

_Pair = TypeVar("_Pair")
_Figures = TypeVar("_Figures")


@dataclass(frozen=True)
class Original:
    """A scanned video and how its frames become RGB.

    Attributes:
        info, options: of the scan.
        from_samples: by this package's own arithmetic from the video's own samples, as files with a base layer are
            made and decoded; else by ffmpeg's scaler.
        sample: numbers of the frames to compare; None for all.
    """

    info: VideoInfo
    options: SourceOptions
    from_samples: bool = False
    sample: frozenset[int] | None = None

    def frames(self, tone_map: bool = False) -> Iterator[np.ndarray]:
        """The frames to compare, ``(H, W, 3)`` uint8 RGB.

        Args:
            tone_map: make BT.709 of HDR, as embeddings are made from, where ``from_samples`` is set.

        Raises:
            VideoError: they cannot be read.
        """
        if not self.from_samples:
            yield from read_frames(self.info, self.options, self.sample)
            return
        form, peak = plane_format(self.info, self.options), peak_of(self.info.light)
        for planes in read_planes(self.info, self.options, form, self.sample):
            yield (to_screen8(planes, form, peak=peak) if tone_map else to_rgb8(planes, form))[0]

    def decoded(self, path: Path) -> Iterator[np.ndarray]:
        """Frames of another video, such as a coded copy, converted as these are."""
        return replace(self, info=scan(path), options=SourceOptions()).frames()


@dataclass(frozen=True)
class ClassicalCodec:
    """An encoder of ffmpeg at one preset.

    Attributes:
        label: with its preset, for tables.
        arguments: of ffmpeg, without the quality.
        option: the one that sets a constant quality; the larger, the smaller the file.
        best, worst: ends of its range.
        pixels: ffmpeg's name of the samples that are coded.
    """

    label: str
    arguments: tuple[str, ...]
    option: str
    best: int
    worst: int
    pixels: str = "yuv420p"


CODECS = {
    "x264": ClassicalCodec("x264 veryslow", ("-c:v", "libx264", "-preset", "veryslow"), "crf", 0, 51),
    "x265": ClassicalCodec(
        "x265 veryslow", ("-c:v", "libx265", "-preset", "veryslow", "-x265-params", "log-level=error"), "crf", 0, 51
    ),
    "svtav1": ClassicalCodec("SVT-AV1 preset 4", ("-c:v", "libsvtav1", "-preset", "4"), "crf", 1, 63),
    "svtav1-10bit": ClassicalCodec(
        "SVT-AV1 preset 4, 10 bit", ("-c:v", "libsvtav1", "-preset", "4"), "crf", 1, 63, "yuv420p10le"
    ),
    "vvenc": ClassicalCodec("VVenC medium", ("-c:v", "libvvenc", "-preset", "medium"), "qp", 1, 63),
}


@dataclass(frozen=True)
class Quality:
    """Means over frames against the decoded source.

    Attributes:
        psnr_db: of 8-bit RGB.
        ycbcr_psnr_db: of luma, Cb and Cr made from it, as many samples of each as pixels.
        ms_ssim: of 8-bit RGB, None where a frame is too small for five scales.
        vmaf: 0 to 100, of 4:2:0 made from the RGB of both; None where ffmpeg has no libvmaf.
    """

    psnr_db: float
    ms_ssim: float | None
    vmaf: float | None
    ycbcr_psnr_db: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Point:
    """One file of one codec.

    Attributes:
        codec: with its preset.
        setting: such as ``crf 34``.
        size_bytes: of the video stream's packets, the file around them not counted.
        rate_bpp: bits per pixel.
        quality: measured.
        encode_s, decode_s: seconds; decoding to RGB arrays.
    """

    codec: str
    setting: str
    size_bytes: int
    rate_bpp: float
    quality: Quality
    encode_s: float
    decode_s: float

    def to_json(self) -> dict[str, object]:
        """As ``eval --json`` lists it under ``against``."""
        quality = self.quality
        return {
            "codec": self.codec,
            "setting": self.setting,
            "bytes": self.size_bytes,
            "bpp": round(self.rate_bpp, 6),
            "psnr": round(quality.psnr_db, 4),
            "psnr_ycbcr": None if quality.ycbcr_psnr_db is None else [round(p, 3) for p in quality.ycbcr_psnr_db],
            "ms_ssim": None if quality.ms_ssim is None else round(quality.ms_ssim, 6),
            "vmaf": None if quality.vmaf is None else round(quality.vmaf, 3),
            "encode_s": round(self.encode_s, 2),
            "decode_s": round(self.decode_s, 2),
        }


def parse_codecs(text: str) -> list[str]:
    """Names of :data:`CODECS` from ``x264,x265``.

    Raises:
        ConfigError: an unknown name.
    """
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in CODECS:
            raise ConfigError(f"unknown codec {name!r}; there are {', '.join(CODECS)}")
    return list(dict.fromkeys(names))


def run(codec: ClassicalCodec, quality: int, original: Original) -> Point:
    """Encode a source at a quality, decode it and compare.

    Raises:
        VideoError: ffmpeg refused.
    """
    info = original.info
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "a.mp4"
        start = time.perf_counter()
        size = _encode(codec, quality, original, out)
        encode_s = time.perf_counter() - start
        start = time.perf_counter()
        for _ in replace(original, sample=None).decoded(out):  # on its own, so that comparing does not count
            pass
        decode_s = time.perf_counter() - start
        judged = judge(original.decoded(out), original)
    rate = metrics.rate_bpp(size, info.frame_count, info.height, info.width)
    return Point(codec.label, f"{codec.option} {quality}", size, rate, judged, encode_s, decode_s)


def at_size(codec: ClassicalCodec, size_bytes: int, original: Original) -> int:
    """The best quality whose stream fits the byte limit, else the worst quality; by bisection."""
    fits, too_large = codec.worst, codec.best - 1
    with tempfile.TemporaryDirectory() as name:
        while fits - too_large > 1:
            middle = (fits + too_large) // 2
            if _encode(codec, middle, original, Path(name) / f"{middle}.mp4") <= size_bytes:
                fits = middle
            else:
                too_large = middle
    return fits


def curves_at(names: Sequence[str], size_bytes: int, original: Original, observer: Observer) -> list[list[Point]]:
    """For each codec three points: the target size, then one smaller and one larger file."""
    curves = []
    for name in names:
        codec = CODECS[name]
        observer.stage(f"Encoding with {codec.label}")
        chosen = at_size(codec, size_bytes, original)
        others = {chosen + _CURVE_STEP, chosen - _CURVE_STEP} & set(range(codec.best, codec.worst + 1))
        curves.append([run(codec, quality, original) for quality in (chosen, *sorted(others, reverse=True))])
    return curves


def judge(decoded: Iterable[np.ndarray], original: Original) -> Quality:
    """Compare decoded frames with their source.

    Args:
        decoded: ``(height, width, 3)`` uint8 RGB, as many as the source has.
        original: the source.

    Raises:
        VideoError: too few or too many frames, or ffmpeg refused.
    """
    info = original.info
    with Vmaf(info.width, info.height) as vmaf:

        def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for frame, source in zip(decoded, original.frames(), strict=True):
                vmaf.add(frame, source)
                yield frame, source

        try:
            psnr, planes, ms_ssim = zip(*measure_pairs(_quality, pairs()), strict=True)
        except ValueError:
            raise VideoError(f"{info.path}: the decoded video has another number of frames") from None
        score = vmaf.mean()
    y, cb, cr = np.mean(planes, axis=0)
    structure = None if None in ms_ssim else float(np.mean(ms_ssim))
    return Quality(float(np.mean(psnr)), structure, score, (float(y), float(cb), float(cr)))


def _quality(pair: tuple[np.ndarray, np.ndarray]) -> tuple[float, tuple[float, float, float], float | None]:
    """PSNR of RGB, PSNR of YCbCr, and MS-SSIM of one frame."""
    return metrics.psnr_db(*pair), metrics.ycbcr_psnr_db(*pair), metrics.similarity(*pair).ms_ssim


def measure_pairs(measure: Callable[[_Pair], _Figures], pairs: Iterator[_Pair]) -> Iterator[_Figures]:
    """A function of each item, in order, in several threads: numpy releases the interpreter's lock.

    Items are read in the calling thread, a few at a time.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        while batch := list(itertools.islice(pairs, 2 * _THREADS)):
            yield from pool.map(measure, batch)


def _encode(codec: ClassicalCodec, quality: int, original: Original, out: Path) -> int:
    """Write ``out``; returns the bytes of its packets."""
    info, samples = original.info, Samples()
    with contextlib.closing(read_filtered(info, original.options, f"format={codec.pixels}")) as frames:
        first = next(frames)
        raw = ["-f", "rawvideo", "-pix_fmt", codec.pixels, "-s", f"{info.width}x{info.height}"]
        raw += ["-framerate", str(info.frame_rate), "-colorspace", str(int(first.colorspace))]
        raw += ["-color_range", str(int(first.color_range)), "-i", "pipe:0"]
        arguments = [*raw, *codec.arguments, f"-{codec.option}", str(quality), str(out)]
        with ffmpeg.Process(arguments) as process:
            with contextlib.suppress(BrokenPipeError):  # ffmpeg ended; its log says why
                for frame in itertools.chain((first,), frames):
                    process.write(samples.of(frame).data)
            if process.finish():
                raise VideoError(
                    f"{info.path} with {codec.label}: cannot be encoded ({ffmpeg.complaint(process.log())})"
                )
    with decoder.opened(out) as container:
        return sum(packet.size for packet in decoder.packets(container, decoder.videos(container)[0]))
