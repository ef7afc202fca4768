# SPDX-License-Identifier: MIT
"""Judging a ``.nerv`` file by what is on disk: it is opened afresh, decoded, and compared with the original."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nervcodec import metrics
from nervcodec.decoding import NervVideo, open_video
from nervcodec.errors import VideoError
from nervcodec.events import Observer
from nervcodec.semantic import fidelity
from nervcodec.semantic.encoder import load
from nervcodec.semantic.patches import embed_patches
from nervcodec.video.reader import read_frames
from nervcodec.video.source import SourceOptions, VideoInfo, scan
from nervcodec.video.writer import write_png


@dataclass(frozen=True)
class EvalReport:
    """Means over frames; None where something was not measured.

    Attributes:
        psnr_db, ssim, ms_ssim: of RGB frames, rounded to 8 bits, against the original.
        rate_bpp: bits per pixel, the whole file counted.
        size_bytes: of the file.
        source_bytes: of the original, or None where the container does not say.
        decode_fps: frames a second as uint8 arrays, opening the file apart.
        semantic: ``cosine`` and ``centred_cosine`` against the reference embeddings.
        retrieval: ``recall_at_10``, ``ndcg_at_10``, ``rank_correlation``.
        per_frame: frame number, psnr_db, ssim, ms_ssim.
    """

    psnr_db: float
    ssim: float
    ms_ssim: float | None
    rate_bpp: float
    size_bytes: int
    source_bytes: int | None
    decode_fps: float
    semantic: dict[str, float] | None
    retrieval: dict[str, float] | None
    per_frame: list[tuple[int, float, float, float | None]]

    def to_json(self) -> dict:
        """As ``eval --json`` prints it."""
        return {
            "psnr": round(self.psnr_db, 4),
            "ssim": round(self.ssim, 6),
            "ms_ssim": None if self.ms_ssim is None else round(self.ms_ssim, 6),
            "bpp": round(self.rate_bpp, 6),
            "bytes": self.size_bytes,
            "source_bytes": self.source_bytes,
            "decode_fps": round(self.decode_fps, 2),
            "frames": len(self.per_frame),
            "semantic": _rounded(self.semantic),
            "retrieval": _rounded(self.retrieval),
        }

    def per_frame_csv(self) -> str:
        """A table of all frames as CSV text."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["frame", "psnr_db", "ssim", "ms_ssim"])
        for frame, psnr, ssim, ms in self.per_frame:
            writer.writerow([frame, f"{psnr:.4f}", f"{ssim:.6f}", "" if ms is None else f"{ms:.6f}"])
        return text.getvalue()


def _rounded(values: dict[str, float] | None) -> dict[str, float] | None:
    return None if values is None else {name: round(value, 6) for name, value in values.items()}


def open_original(video: NervVideo, original: Path) -> tuple[VideoInfo, SourceOptions]:
    """Scan the original with the crop, range and scale the container was made with.

    Raises:
        VideoError: it cannot be read, or has fewer frames than the container.
    """
    facts = video.header.video
    options = SourceOptions(
        start_s=facts.source_start_s,
        duration_s=facts.source_duration_s,
        crop=facts.crop,
        scale=(facts.width, facts.height),
        frame_rate=video.frame_rate if original.is_dir() else None,
    )
    info = scan(original, options)
    if info.frame_count < len(video):
        raise VideoError(
            f"{original}: gives {info.frame_count} frames, but {video.path.name} holds {len(video)}; "
            "is it the video that was encoded?"
        )
    return info, options


def evaluate(
    path: str | Path,
    original: str | Path,
    device: str = "auto",
    precision: str = "auto",
    observer: Observer | None = None,
    dump_images: Path | None = None,
    retrieval: bool = True,
) -> EvalReport:
    """Compare a container with the video it was made from.

    Args:
        path: the ``.nerv`` file.
        original: the source, file or folder.
        device, precision: as :func:`nervcodec.open`.
        observer: told of progress.
        dump_images: a folder for PNG images of original and decoded frames side by side, about ten of them.
        retrieval: also compute reference embeddings and compare rankings, where the container has embeddings.

    Raises:
        ContainerError, VideoError, EncoderError: as opening either file or loading the encoder does.
    """
    observer = observer or Observer()
    path, original = Path(path), Path(original)
    video = open_video(path, device, precision)
    info, options = open_original(video, original)
    facts = video.header.video
    embedded = _embedded_frames(video) if retrieval and video.header.semantic else np.empty(0, np.int64)
    wanted, kept = set(embedded.tolist()), []
    observer.stage("Comparing frames", len(video))
    rows: list[tuple[int, float, float, float | None]] = []
    decode_s = 0.0
    next(video.frames([0]))  # builds the first network, which is not decoding
    decoded = video.frames()
    for number, source in zip(range(len(video)), read_frames(info, options), strict=False):
        start = time.perf_counter()
        frame = next(decoded)
        decode_s += time.perf_counter() - start
        rows.append(
            (number, metrics.psnr_db(frame, source), metrics.ssim(frame, source), metrics.ms_ssim(frame, source))
        )
        if dump_images is not None and number % max(1, len(video) // 10) == 0:
            dump_images.mkdir(parents=True, exist_ok=True)
            write_png(dump_images / f"frame_{number:05d}.png", np.concatenate([source, frame], axis=1))
        if number in wanted:
            kept.append(np.array(source))
        observer.advance()
    semantic = retrieved = None
    if len(embedded):
        semantic, retrieved = _semantics(video, np.stack(kept), embedded, observer)
    ms_values = [ms for *_, ms in rows if ms is not None]
    size = path.stat().st_size
    return EvalReport(
        psnr_db=float(np.mean([row[1] for row in rows])),
        ssim=float(np.mean([row[2] for row in rows])),
        ms_ssim=float(np.mean(ms_values)) if ms_values else None,
        rate_bpp=metrics.rate_bpp(size, len(video), facts.height, facts.width),
        size_bytes=size,
        source_bytes=facts.source_bytes,
        decode_fps=len(video) / decode_s,
        semantic=semantic,
        retrieval=retrieved,
        per_frame=rows,
    )


def _embedded_frames(video: NervVideo) -> np.ndarray:
    numbers = [s.first_frame + i for s in video.header.segments for i in s.embedded_frames]
    return np.array(numbers, dtype=np.int64)


def _semantics(
    video: NervVideo, frames: np.ndarray, numbers: np.ndarray, observer: Observer
) -> tuple[dict[str, float], dict[str, float]]:
    """Fidelity of the semantic head at the frames whose embeddings were fitted."""
    assert video.header.semantic is not None
    encoder = load(video.header.semantic.encoder, video.hardware.device)
    bounds = [s.first_frame for s in video.header.segments[1:]]
    # Segment by segment, as they were embedded, so that the cache of the encode is found.
    parts = np.split(frames, np.searchsorted(numbers, bounds))
    reference = np.concatenate([embed_patches(p, video.grid, encoder, observer) for p in parts if len(p)])
    predicted = video.embeddings(numbers.tolist())
    raw, centred = fidelity.closeness(predicted, reference)
    queries = encoder.embed_text(fidelity.shipped_queries())
    agreement = fidelity.ranking_agreement(predicted, reference, queries, video.frame_times_s[numbers])
    return {"cosine": raw, "centred_cosine": centred}, agreement
