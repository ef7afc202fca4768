# SPDX-License-Identifier: MIT
"""Judging a ``.nerv`` file by what is on disk: it is opened afresh, decoded, and compared with the original."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nervcodec import metrics
from nervcodec.coordinates import PatchGrid
from nervcodec.decoding import NervVideo
from nervcodec.errors import ConfigError, VideoError
from nervcodec.evaluation import fidelity
from nervcodec.evaluation.classical import Original, Point, curves_at, measure_pairs, parse_codecs
from nervcodec.events import Observer
from nervcodec.formats.container import Container
from nervcodec.formats.text import count_noun, human_bytes
from nervcodec.media.ffmpeg import Vmaf
from nervcodec.media.source import SourceOptions, scan
from nervcodec.media.writer import write_pngs
from nervcodec.network.stored import StoredNetworks
from nervcodec.outputs import require_folder
from nervcodec.ranges import FITTED, HELD_OUT, FrameSplit
from nervcodec.semantic.encoder import load
from nervcodec.semantic.patches import embed_patches, sampled_frames

_MAX_FRAMES = 1_000  # compared by default
_IMAGES = 10  # written with dump_images
_DECODE_S = 2.0  # of decoding, to measure its speed


class FrameFigures(NamedTuple):
    """One frame against the original: its number, figures, and role in the fit (see ``nervcodec.ranges``).

    ``cosine`` is the mean over patches of predicted and reference embeddings; None where no reference was made.
    """

    frame: int
    psnr_db: float
    ssim: float
    ms_ssim: float | None
    role: str
    cosine: float | None = None


class PatchFigures(NamedTuple):
    """One patch of one frame against the original; ``cosine`` is None where no reference embedding was made."""

    frame: int
    row: int
    column: int
    psnr_db: float
    ssim: float
    ms_ssim: float | None
    role: str
    cosine: float | None = None


@dataclass(frozen=True)
class EvalReport:
    """Means over frames; None where something was not measured.

    Attributes:
        psnr_db, ssim, ms_ssim: of RGB frames, rounded to 8 bits, against the original.
        rate_bpp: bits per pixel, the whole file counted.
        size_bytes: of the file.
        source_bytes: of the original, or None where the container does not say.
        decode_fps: frames a second as uint8 arrays, over the first two seconds of decoding; opening the file apart.
        frame_count: of the video.
        fidelity: of embeddings, by the role of the frames, ``train`` or ``val``; empty where there are none.
        per_frame: role in the fit and figures of every compared frame.
        per_patch: the same of every patch of every compared frame, with ``per_patch=True``.
        base_bytes: of the base layer's streams; None without one.
        vmaf: 0 to 100, with ``against`` and where ffmpeg has libvmaf.
        against: for each codec, its point at no more bytes than the file, then one of fewer and one of more.
    """

    psnr_db: float
    ssim: float
    ms_ssim: float | None
    rate_bpp: float
    size_bytes: int
    source_bytes: int | None
    decode_fps: float
    frame_count: int
    fidelity: dict[str, fidelity.Fidelity]
    per_frame: list[FrameFigures]
    vmaf: float | None = None
    against: tuple[tuple[Point, ...], ...] = ()
    per_patch: tuple[PatchFigures, ...] = ()
    base_bytes: int | None = None

    def rows(self) -> list[tuple[str, str]]:
        """Names and figures as they are printed, without other codecs."""
        rows = [
            ("PSNR", f"{self.psnr_db:.2f} dB"),
            ("SSIM", f"{self.ssim:.4f}"),
            ("MS-SSIM", "too small for five scales" if self.ms_ssim is None else f"{self.ms_ssim:.4f}"),
            ("rate", f"{self.rate_bpp:.4f} bpp, {human_bytes(self.size_bytes)}"),
            ("decoding", f"{self.decode_fps:.1f} frames/s"),
        ]
        if self.held_out_frames:
            fitted, held_out = self.of_role(FITTED), self.of_role(HELD_OUT)
            rows.insert(1, ("held out", f"{held_out['psnr']:.2f} dB, fitted {fitted['psnr']:.2f} dB"))
        if len(self.per_frame) < self.frame_count:
            rows.insert(0, ("compared", f"{len(self.per_frame):,} of {self.frame_count:,} frames, from all shots"))
        if self.base_bytes is not None:
            rows.append(("base layer", human_bytes(self.base_bytes)))
        if self.source_bytes:
            rows.append(("source", f"{human_bytes(self.source_bytes)}, audio included"))
        for role, figures in self.fidelity.items():
            where = ", held out" if role == HELD_OUT else ""
            semantic, ranking = figures.semantic, figures.retrieval
            steady = f"{semantic['smoothness']:.3f} from frame to frame"
            steady += f", the reference {semantic['reference_smoothness']:.3f}"
            rows += [
                (f"cosine{where}", f"{semantic['cosine']:.4f}, centred {semantic['centred_cosine']:.4f}"),
                (f"diversity{where}", f"{semantic['diversity']:.3f} of the reference; cosine {steady}"),
                (f"recall@10{where}", f"{ranking['recall_at_10']:.3f}"),
                (f"nDCG@10{where}", f"{ranking['ndcg_at_10']:.3f}"),
                (f"rank correlation{where}", f"{ranking['rank_correlation']:.3f}"),
            ]
        if self.vmaf is not None:
            rows.append(("VMAF", f"{self.vmaf:.1f}"))
        return rows

    def of_role(self, role: str) -> dict[str, object]:
        """Means over the frames of one role, ``train`` or ``val``, under the names of ``eval --json``."""
        rows = [row for row in self.per_frame if row.role == role]
        figures = {"frames": len(rows), **_means(rows), "bpp": round(self.rate_bpp, 6), "bytes": self.size_bytes}
        return {**figures, **(self.fidelity[role].to_json() if role in self.fidelity else {})}

    @property
    def semantic(self) -> dict[str, float] | None:
        """Closeness of embeddings at the fitted frames."""
        return self.fidelity[FITTED].semantic if FITTED in self.fidelity else None

    @property
    def retrieval(self) -> dict[str, float] | None:
        """Agreement of rankings at the fitted frames."""
        return self.fidelity[FITTED].retrieval if FITTED in self.fidelity else None

    def to_json(self) -> dict:
        """As ``eval --json`` prints it."""
        return {
            **_means(self.per_frame),
            "bpp": round(self.rate_bpp, 6),
            "bytes": self.size_bytes,
            "source_bytes": self.source_bytes,
            "decode_fps": round(self.decode_fps, 2),
            "frames": self.frame_count,
            "sampled_frames": len(self.per_frame),
            "semantic": _rounded(self.semantic),
            "retrieval": _rounded(self.retrieval),
            "base": None if self.base_bytes is None else {"bytes": self.base_bytes},
            **{role: self.of_role(role) for role in (FITTED, HELD_OUT) if self.held_out_frames},
            **({"vmaf": self.vmaf, "against": [p.to_json() for c in self.against for p in c]} if self.against else {}),
        }

    @property
    def held_out_frames(self) -> int:
        """Frames that were held out from the fit."""
        return sum(row.role == HELD_OUT for row in self.per_frame)

    def per_frame_csv(self) -> str:
        """A table of all frames as CSV text."""
        return _csv(FrameFigures._fields, self.per_frame)

    def per_patch_csv(self) -> str:
        """A table of all patches of all frames as CSV text."""
        return _csv(PatchFigures._fields, self.per_patch)


def _csv(names: Sequence[str], rows: Sequence[FrameFigures | PatchFigures]) -> str:
    """Rows under their names; nothing stands for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in row])
    return text.getvalue()


def _means(rows: list[FrameFigures]) -> dict[str, float | None]:
    """Means over frames, rounded, under the names of ``eval --json``."""
    ms_values = [row.ms_ssim for row in rows if row.ms_ssim is not None]
    return {
        "psnr": round(float(np.mean([row.psnr_db for row in rows])), 4),
        "ssim": round(float(np.mean([row.ssim for row in rows])), 6),
        "ms_ssim": round(float(np.mean(ms_values)), 6) if ms_values else None,
    }


def _rounded(values: dict[str, float] | None) -> dict[str, float] | None:
    return None if values is None else {name: round(value, 6) for name, value in values.items()}


def open_original(video: NervVideo, original: Path) -> Original:
    """Scan the original with the crop, range and scale the container was made with.

    Raises:
        VideoError: it cannot be read, or has fewer frames than the container.
    """
    facts = video.header.video
    imposed_rate = facts.source_frame_rate
    options = SourceOptions(
        start_s=facts.source_start_s,
        duration_s=facts.source_duration_s,
        crop=facts.crop,
        scale=(facts.width, facts.height),
        frame_rate=video.frame_rate if os.path.isdir(original) else imposed_rate and Fraction(*imposed_rate),
        stream=facts.source_stream,
    )
    info = scan(original, options)
    if info.frame_count < len(video):
        raise VideoError(
            f"{original}: gives {count_noun(info.frame_count, 'frame')}, but {video.path.name} holds {len(video)}; "
            "is it the video that was encoded?"
        )
    return Original(info, options, video.header.base is not None)


def evaluate(
    path: str | os.PathLike[str],
    original: str | os.PathLike[str],
    device: str = "auto",
    precision: str = "auto",
    observer: Observer | None = None,
    *,
    dump_images: str | os.PathLike[str] | None = None,
    retrieval: bool = True,
    against: str | Sequence[str] = (),
    queries: str | Sequence[str] | None = None,
    per_patch: bool = False,
    every: int | None = None,
) -> EvalReport:
    """Compare a container with the video it was made from.

    Args:
        path: the ``.nerv`` file.
        original: the source, file or folder.
        device, precision: as :func:`nervcodec.open`.
        observer: told of progress.
        dump_images: a folder for PNG images, about ten: original, decoded and amplified difference side by side.
        retrieval: also compute reference embeddings and compare rankings, where the container has embeddings.
        against: names of :data:`nervcodec.evaluation.classical.CODECS` to encode the same frames with at the same
            bytes, in a list or a text with commas.
        queries: texts, or one, whose rankings are compared; None: those shipped with the package.
        per_patch: also measure every patch of every frame by itself.
        every: one frame in ``every`` of each shot; None: all frames up to 1,000, then a sample of about 1,000.

    Raises:
        ConfigError: an unknown codec, a folder for images that cannot be one, or ``every`` below 1.
        ContainerError, VideoError, EncoderError: as opening either file or loading the encoder does.
    """
    if every is not None and every < 1:
        raise ConfigError(f"every must be at least 1, not {every}")
    codecs = parse_codecs(against if isinstance(against, str) else ",".join(against)) if against else []
    texts = fidelity.shipped_queries() if queries is None else [queries] if isinstance(queries, str) else queries
    images = None if dump_images is None else Path(dump_images)
    if images is not None:
        require_folder(images)
    with NervVideo.open(Path(path), device, precision) as video:
        return _compared(
            video, Path(original), observer or Observer(), images, retrieval, codecs, texts, per_patch, every
        )


def _compared(
    video: NervVideo,
    original: Path,
    observer: Observer,
    images: Path | None,
    retrieval: bool,
    against: Sequence[str],
    queries: Sequence[str],
    per_patch: bool,
    every: int | None,
) -> EvalReport:
    """See :func:`evaluate`."""
    source_video = open_original(video, original)
    info = source_video.info
    if against and info.frame_count != len(video):
        raise VideoError(
            f"{video.path.name} holds {len(video)} of {count_noun(info.frame_count, 'frame')}, "
            "which other codecs would encode"
        )
    facts = video.header.video
    roles = FrameSplit(*video.header.split).roles(0, len(video)) if video.header.split else [FITTED] * len(video)
    thinned = -(-len(video) // _MAX_FRAMES)
    sample = _sample(_shots(video), roles, every or thinned)
    judged = _judged_frames(video, roles, min(every or thinned, thinned)) if retrieval and video.header.semantic else {}
    embedded = {int(number) for parts in judged.values() for part in parts for number in part}
    source_video = replace(source_video, sample=frozenset(sample) | embedded)
    dumped = {sample[number] for number in np.linspace(0, len(sample) - 1, _IMAGES).astype(int)}
    kept: dict[int, np.ndarray] = {}
    decode_fps = _decode_fps(video)
    observer.stage("Comparing frames", len(sample))
    rows: list[FrameFigures] = []
    patches: list[PatchFigures] = []
    score = None
    with Vmaf(facts.width, facts.height) if against else nullcontext() as vmaf:

        def pairs() -> Iterator[_Pair]:
            compared, decoded = set(sample), video.frames(sample)
            for number, source in zip(sorted(compared | embedded), source_video.frames(), strict=True):
                if number in embedded:
                    kept[number] = np.array(source)
                if number not in compared:
                    continue
                frame = next(decoded)
                if vmaf is not None:
                    vmaf.add(frame, source)
                if images is not None and number in dumped:
                    side_by_side = (source, frame, metrics.amplified_difference(frame, source))
                    write_pngs(images, [(number, np.concatenate(side_by_side, axis=1))], 5)
                yield _Pair(number, frame, source, roles[number], video.grid if per_patch else None)

        for row, of_patches in measure_pairs(_figures, pairs()):
            rows.append(row)
            patches += of_patches
            observer.advance()
        if vmaf is not None:
            score = vmaf.mean()
    if embedded and video.hdr is not None:  # embeddings are made from tone-mapped frames
        only = replace(source_video, sample=frozenset(embedded))
        kept = dict(zip(sorted(embedded), only.frames(tone_map=True), strict=True))
    found, cosines = _fidelity(video, kept, judged, queries, observer) if embedded else ({}, {})
    rows = [r._replace(cosine=float(cosines[r.frame].mean())) if r.frame in cosines else r for r in rows]
    patches = [
        p._replace(cosine=float(cosines[p.frame][p.row * video.grid.columns + p.column])) if p.frame in cosines else p
        for p in patches
    ]
    means = _means(rows)
    size = video.path.stat().st_size
    return EvalReport(
        psnr_db=float(np.mean([row.psnr_db for row in rows])),
        ssim=float(np.mean([row.ssim for row in rows])),
        ms_ssim=means["ms_ssim"],
        rate_bpp=metrics.rate_bpp(size, len(video), facts.height, facts.width),
        size_bytes=size,
        source_bytes=facts.source_bytes,
        decode_fps=decode_fps,
        frame_count=len(video),
        fidelity=found,
        per_frame=rows,
        vmaf=score,
        per_patch=tuple(patches),
        base_bytes=None if video.header.base is None else _base_bytes(video),
        against=tuple(
            tuple(c) for c in curves_at(against, size, replace(source_video, sample=frozenset(sample)), observer)
        ),
    )


def _base_bytes(video: NervVideo) -> int:
    with Container.open(video.path) as opened:
        return sum(opened.nbytes(name) for name in opened.header.base_arrays())


def _shots(video: NervVideo) -> list[range]:
    """Frames of each shot; a segment begins a new one."""
    with Container.open(video.path) as opened:
        configs = StoredNetworks(opened).configs
    firsts = [
        segment.first_frame + cut
        for segment, config in zip(video.header.segments, configs, strict=True)
        for cut in (0, *config.cuts)
    ]
    return [range(first, last) for first, last in zip(firsts, [*firsts[1:], len(video)], strict=True)]


def _sample(shots: Sequence[range], roles: Sequence[str], step: int) -> list[int]:
    """Every ``step``-th frame of each role in each shot, at least one, ascending."""
    sample: list[int] = []
    for shot in shots:
        for role in {roles[number] for number in shot}:
            numbers = [number for number in shot if roles[number] == role]
            sample += numbers[min(step, len(numbers)) // 2 :: step]
    return sorted(sample)


def _decode_fps(video: NervVideo) -> float:
    """Frames decoded in a second, from the first frames, until two seconds have passed."""
    next(video.frames([0]))  # builds the first network, which is not decoding
    start, count = time.perf_counter(), 0
    for _ in video.frames():
        count += 1
        if time.perf_counter() - start > _DECODE_S:
            break
    return count / (time.perf_counter() - start)


class _Pair(NamedTuple):
    """A decoded frame and its source; ``grid`` is that of the patches to measure, or None."""

    number: int
    frame: np.ndarray
    source: np.ndarray
    role: str
    grid: PatchGrid | None


def _figures(pair: _Pair) -> tuple[FrameFigures, list[PatchFigures]]:
    number, frame, source, role, grid = pair
    patches = []
    for window in grid.patches() if grid is not None else ():
        rows, columns = slice(window.y, window.y + window.height), slice(window.x, window.x + window.width)
        a, b = frame[rows, columns], source[rows, columns]
        position = window.row, window.column
        patches.append(PatchFigures(number, *position, metrics.psnr_db(a, b), *metrics.similarity(a, b), role))
    return FrameFigures(number, metrics.psnr_db(frame, source), *metrics.similarity(frame, source), role), patches


def _judged_frames(video: NervVideo, roles: list[str], step: int) -> dict[str, list[np.ndarray]]:
    """Frames whose embeddings are judged, by role, and among them by segment.

    Fitted ones are those whose embeddings were fitted, or every ``step``-th of them; held-out ones as many a second.
    """
    assert video.header.semantic is not None
    judged: dict[str, list[np.ndarray]] = {FITTED: [], HELD_OUT: []}
    for index, segment in enumerate(video.header.segments):
        first, last = segment.first_frame, segment.first_frame + segment.frame_count
        judged[FITTED].append(first + np.array(video.embedded_frames(index), np.int64))
        held_out = first + np.flatnonzero([role == HELD_OUT for role in roles[first:last]])
        rate = float(video.frame_rate) * len(held_out) / segment.frame_count
        if len(held_out):
            judged[HELD_OUT].append(held_out[sampled_frames(len(held_out), rate, video.header.semantic.sampled_fps)])
    return {
        role: [part[min(step, len(part)) // 2 :: step] for part in parts if len(part)] for role, parts in judged.items()
    }


def _fidelity(
    video: NervVideo,
    kept: dict[int, np.ndarray],
    judged: dict[str, list[np.ndarray]],
    queries: Sequence[str],
    observer: Observer,
) -> tuple[dict[str, fidelity.Fidelity], dict[int, np.ndarray]]:
    """Fidelity of the semantic head by role, from source frames by number; and ``(P,)`` cosines of each frame."""
    assert video.header.semantic is not None
    encoder = load(video.header.semantic.encoder, video.hardware.device)
    vectors = encoder.embed_text(queries)
    result: dict[str, fidelity.Fidelity] = {}
    cosines: dict[int, np.ndarray] = {}
    for role, parts in judged.items():
        if not parts:
            continue
        # Segment by segment, as they were embedded, so that the cache of the encode is found.
        observer.stage("Embedding patches", sum(map(len, parts)))
        reference = []
        for part in parts:
            reference.append(embed_patches((kept[n] for n in part.tolist()), video.grid, encoder))
            observer.advance(len(part))
        numbers = np.concatenate(parts)
        predicted = video.embeddings(numbers.tolist())
        times = video.frame_times_s[numbers]
        result[role] = fidelity.compare(predicted, np.concatenate(reference), vectors, times)
        cosines.update(zip(numbers.tolist(), (predicted * np.concatenate(reference)).sum(axis=-1), strict=True))
    return result, cosines
