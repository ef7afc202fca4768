# SPDX-License-Identifier: MIT
"""From encoded segments to a container and the report of its encode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from nervcodec import __version__, metrics
from nervcodec.base.codec import base_format
from nervcodec.base.obu import coded_size
from nervcodec.encoding.base_segment import DEPTH, vmaf_score
from nervcodec.encoding.embeddings import Tensors
from nervcodec.encoding.plan import Plan
from nervcodec.encoding.segment import CodedBase, EncodedSegment
from nervcodec.encoding.shared import NO_SHARED_PARAMETERS, SharedParameters
from nervcodec.encoding.stream_copy import CopyResult
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.formats.container import Writer
from nervcodec.formats.header import (
    AUDIO,
    AV1,
    BASE,
    FRAME_TIMES,
    STREAM,
    WEIGHTS,
    BaseHeader,
    FitRecord,
    Header,
    SemanticHeader,
    TensorCode,
    VideoHeader,
)
from nervcodec.formats.text import count_noun, sanitize_name
from nervcodec.media.audio import LEAD_S
from nervcodec.ranges import FITTED, HELD_OUT

SHARED = "shared/"  # prefix of what all segments have in common
POOR_DB = 30.0  # below which a hint recommends a base layer

_NEAR_DB, _NEAR_SHARE = 0.3, 0.95  # how near a base layer comes to a PSNR from above, and to a size from below
_NEAR_VMAF = 1.0


@dataclass(frozen=True)
class BaseReport:
    """The base layer of a file.

    Attributes:
        psnr_db: mean over the fitted frames.
        size_bytes: of its streams.
        copied: codec of the source's own packets, where the base is those; else None.
    """

    psnr_db: float
    size_bytes: int
    copied: str | None = None

    def in_words(self) -> str:
        """What a person reads of it."""
        stream = "an AV1 stream" if self.copied is None else f"the source's own {self.copied} packets"
        return f"{stream}, {self.size_bytes:,} bytes"

    def to_json(self) -> dict[str, object]:
        """As ``encode --json`` prints it."""
        return {"psnr": round(self.psnr_db, 4), "bytes": self.size_bytes, "copied": self.copied}


@dataclass(frozen=True)
class VmafReport:
    """VMAF of a file with a target.

    Attributes:
        score: the mean over the measured frames, or their percentile.
        percentile: which one; None for the mean.
        frames: how many were measured.
    """

    score: float
    percentile: float | None
    frames: int

    def in_words(self) -> str:
        """What a person reads of it."""
        which = "mean" if self.percentile is None else f"percentile {self.percentile:g}"
        return f"{self.score:.2f} ({which} of {count_noun(self.frames, 'measured frame')})"

    def to_json(self) -> dict[str, object]:
        """As ``encode --json`` prints it."""
        return {"score": round(self.score, 3), "percentile": self.percentile, "frames": self.frames}


@dataclass(frozen=True)
class EncodeReport:
    """What an encode gave.

    Attributes:
        path: the container.
        size_bytes: of the container.
        source_bytes: of the source file.
        rate_bpp: bits per pixel, the whole container counted.
        psnr_db: mean over the fitted frames after quantisation, decoded from the stored integers.
        held_out_psnr_db: the same over the frames that were held out from the fit; None where none were.
        parameters: of all networks.
        frames: in the container.
        steps: optimiser steps.
        embed_s, fit_s: seconds; with a base layer the latter is the time of its coding or copy.
        complete: False where the fit was stopped early.
        embeddings: number of stored embeddings, one for each patch of an embedded frame.
        encoder: of the embeddings, or None.
        base: its base layer, or None.
        vmaf: measured in the encode, or None without a target VMAF.
    """

    path: Path
    size_bytes: int
    source_bytes: int
    rate_bpp: float
    psnr_db: float
    held_out_psnr_db: float | None
    parameters: int
    frames: int
    steps: int
    embed_s: float
    fit_s: float
    complete: bool
    embeddings: int = 0
    encoder: str | None = None
    base: BaseReport | None = None
    vmaf: VmafReport | None = None

    def to_json(self) -> dict[str, object]:
        """As ``encode --json`` prints it."""
        return {
            "file": str(self.path),
            "bytes": self.size_bytes,
            "source_bytes": self.source_bytes,
            "bpp": round(self.rate_bpp, 6),
            "psnr": round(self.psnr_db, 4),
            "held_out_psnr": None if self.held_out_psnr_db is None else round(self.held_out_psnr_db, 4),
            "parameters": self.parameters,
            "frames": self.frames,
            "steps": self.steps,
            "embed_s": round(self.embed_s, 2),
            "fit_s": round(self.fit_s, 2),
            "complete": self.complete,
            "embeddings": self.embeddings,
            "encoder": self.encoder,
            "base": None if self.base is None else self.base.to_json(),
            "vmaf": None if self.vmaf is None else self.vmaf.to_json(),
        }


def assemble(
    plan: Plan,
    target: Path,
    done: Sequence[EncodedSegment],
    embed_s: float,
    observer: Observer,
    copied: CopyResult | None = None,
    shared: SharedParameters = NO_SHARED_PARAMETERS,
) -> EncodeReport:
    """Write the container of some segments, the first ones of a plan.

    Args:
        plan: of the encode.
        target: the container.
        done: at least one segment, in order.
        embed_s: seconds that reference embeddings took.
        observer: told of goals that were not met.
        copied: the source's own packets, where they are the base layer of the whole.
        shared: what all segments have in common.

    Raises:
        ContainerError: the file cannot be written.
        ChangedError: the source was changed since it was scanned.
    """
    info, options = plan.info, plan.options
    if not info.snapshot.is_there():
        observer.note(f"{plan.source}: was removed once it was read; {target.name} is whole")
    frames = sum(d.segment.frame_count for d in done)
    complete = frames == info.frame_count and done[-1].complete and (shared.fit is None or shared.fit.complete)
    per_frame = np.concatenate([d.psnr_db for d in done])
    roles = np.array(options.split.roles(0, frames) if options.split else [FITTED] * frames)
    psnr_db = float(per_frame[roles == FITTED].mean())
    held_out = per_frame[roles == HELD_OUT]
    fit_s, steps = sum(d.elapsed_s for d in done), sum(d.steps for d in done)
    if shared.fit is not None:
        fit_s, steps = fit_s + shared.fit.elapsed_s, steps + shared.fit.steps
    entropy = sum(d.entropy_bytes for d in done) + bitstream.entropy_bytes(shared.tensors)
    missing = info.frame_count - frames
    # Without a fit no time is recorded: the same input gives the same bytes.
    recorded_s = round(fit_s, 2) if steps else 0.0
    fit = FitRecord(round(psnr_db, 4), recorded_s, steps, complete, round(entropy), missing or None)
    size = _written(plan, target, done, fit, (copied, shared.tensors))
    if missing:
        observer.note(
            f"{target.name} holds the first {frames:,} of {count_noun(info.frame_count, 'frame')}: "
            "the encode was stopped"
        )
    vmaf = _vmaf_report(plan, done)
    if complete and (missed := _missed(plan, psnr_db, size, vmaf)):
        observer.note(missed)
    if plan.planes is None and complete and psnr_db < POOR_DB:
        observer.hint(f"{psnr_db:.2f} dB: on footage --base {AV1} gives far more in the same bytes")
    if size > info.file_bytes and copied is None:  # which holds the source and more
        observer.note(f"{target.name} is larger than its source ({size:,} bytes, {info.file_bytes:,})")
    return EncodeReport(
        path=target,
        size_bytes=size,
        source_bytes=info.file_bytes,
        rate_bpp=metrics.rate_bpp(size, frames, info.height, info.width),
        psnr_db=psnr_db,
        held_out_psnr_db=float(held_out.mean()) if len(held_out) else None,
        parameters=sum(d.parameters for d in done) + bitstream.value_count(shared.tensors),
        frames=frames,
        steps=steps,
        embed_s=embed_s,
        fit_s=fit_s,
        complete=complete,
        embeddings=plan.grid.rows * plan.grid.columns * sum(len(d.embedded_frames) for d in done),
        encoder=None if plan.encoder is None else plan.encoder.name,
        base=_base_report(done, psnr_db, copied),
        vmaf=vmaf,
    )


def _missed(plan: Plan, psnr_db: float, size_bytes: int, vmaf: VmafReport | None) -> str:
    """A note on a goal that was not met; empty if all were."""
    if vmaf is not None and plan.options.vmaf is not None and abs(vmaf.score - plan.options.vmaf) > _NEAR_VMAF:
        return f"VMAF {vmaf.score:.2f} is as near to {plan.options.vmaf:g} as the base layer comes"
    target_db, target_bytes = plan.options.fit.psnr_db, plan.target_bytes
    if plan.planes is None and target_bytes is not None and size_bytes > target_bytes:
        return f"{size_bytes:,} bytes are more than the target of {target_bytes:,.0f}; some segments need that much"
    if plan.planes is None:
        short = target_db is not None and psnr_db < target_db
        return f"the fit ended at {psnr_db:.2f} dB of the {target_db:g} asked for; give it more --time" if short else ""
    if target_db is not None and not target_db <= psnr_db <= target_db + _NEAR_DB:
        return f"{psnr_db:.2f} dB is as near to the {target_db:g} asked for as the base layer comes"
    if target_bytes is not None and size_bytes < _NEAR_SHARE * target_bytes:
        return f"{size_bytes:,} bytes are as near to the {target_bytes:,.0f} asked for as the base layer comes"
    return ""


def _layers(done: Sequence[EncodedSegment]) -> list[CodedBase]:
    return [d.base for d in done if d.base is not None]


def _base_report(done: Sequence[EncodedSegment], psnr_db: float, copied: CopyResult | None) -> BaseReport | None:
    """Report of the base layer of a file, whose PSNR is the file's."""
    if copied is not None:
        return BaseReport(psnr_db, copied.stream.size, copied.header.codec)
    layers = _layers(done)
    return BaseReport(psnr_db, sum(layer.stream.size for layer in layers)) if layers else None


def _vmaf_report(plan: Plan, done: Sequence[EncodedSegment]) -> VmafReport | None:
    if plan.options.vmaf is None:
        return None
    scores = np.concatenate([layer.vmaf for layer in _layers(done)])
    percentile = plan.options.percentile
    return VmafReport(vmaf_score(scores, percentile), percentile, len(scores))


def _base_facts(plan: Plan, done: Sequence[EncodedSegment]) -> BaseHeader | None:
    layers = _layers(done)
    if not layers or plan.planes is None:
        return None
    qualities = {layer.crf for layer in layers}
    psnr_db = float(np.concatenate([layer.psnr_db for layer in layers]).mean())
    return BaseHeader(
        AV1,
        "av1",
        base_format(plan.planes, DEPTH),
        *coded_size(plan.info.width, plan.info.height),
        crf=qualities.pop() if len(qualities) == 1 else None,
        psnr_db=round(psnr_db, 4),
    )


def _written(
    plan: Plan,
    target: Path,
    done: Sequence[EncodedSegment],
    fit: FitRecord,
    common: tuple[CopyResult | None, Tensors],
) -> int:
    """Write header and arrays, those that all segments have in common among them; returns the bytes of the file."""
    copied, shared = common
    info, encoder, split = plan.info, plan.encoder, plan.options.split
    frames = sum(d.segment.frame_count for d in done)
    semantic = None
    if encoder is not None:
        sampled = sum(len(d.embedded_frames) for d in done) / frames * float(info.frame_rate)
        semantic = SemanticHeader(encoder.name, encoder.dimension, round(sampled, 4))
    with Writer(target) as writer:
        for d in done:
            if d.stream.size:
                writer.add(d.segment.prefix + WEIGHTS, d.stream, TensorCode(STREAM))
            if d.base is not None:
                writer.add(d.segment.prefix + BASE, d.base.stream)
        if copied is not None:
            writer.add(BASE, copied.stream)
        if shared:
            writer.add(SHARED + WEIGHTS, bitstream.encode(shared), TensorCode(STREAM))
        if info.variable_frame_rate:
            writer.add(FRAME_TIMES, info.times_s[:frames].astype("<f8"))
        if plan.audio:
            writer.add(AUDIO, np.frombuffer(plan.audio, np.uint8))
        header = Header(
            video=_facts(plan, frames),
            patch_grid=(plan.grid.rows, plan.grid.columns),
            segments=tuple(d.segment for d in done),
            tensors=writer.tensors,
            fit=fit,
            tool=f"nervcodec {__version__}",
            semantic=semantic,
            base=_base_facts(plan, done) if copied is None else copied.header,
            shared=SHARED if shared else None,
            split=(split.fitted, split.train, split.total) if split else None,
        )
        return writer.finish(header)


def _facts(plan: Plan, frames: int) -> VideoHeader:
    info, options = plan.info, plan.options.source
    imposed = info.input.frame_rate
    duration = info.duration_s if frames == info.frame_count else float(info.times_s[frames])
    aspect = Fraction(info.sample_aspect_ratio)
    return VideoHeader(
        width=info.width,
        height=info.height,
        frame_rate=(info.frame_rate.numerator, info.frame_rate.denominator),
        frame_count=frames,
        duration_s=round(duration, 6),
        source_name=sanitize_name(plan.source.resolve().name),
        sample_aspect_ratio=(aspect.numerator, aspect.denominator),
        source_bytes=info.file_bytes,
        source_start_s=options.start_s,
        source_duration_s=options.duration_s,
        crop=options.crop,
        variable_frame_rate=info.variable_frame_rate,
        first_frame_s=round(info.first_frame_s + LEAD_S, 6) if plan.audio else 0.0,
        source_stream=options.stream,
        source_frame_rate=imposed.as_integer_ratio() if imposed and not info.images else None,
        source_digest=plan.source_digest,
    )
