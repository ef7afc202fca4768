# SPDX-License-Identifier: MIT
"""Video in, ``.nerv`` out: read a segment, embed its patches, fit a network, quantise it, measure it, write."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nervcodec import __version__, metrics, options, sizing
from nervcodec.coordinates import PatchGrid
from nervcodec.device import choose
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.fitting.checkpoint import Checkpoint, CheckpointFile, identity
from nervcodec.fitting.config import FitConfig
from nervcodec.fitting.data import SegmentData
from nervcodec.fitting.hooks import CheckpointHook, Hook, Hooks, ProgressHook
from nervcodec.fitting.look import evenly
from nervcodec.fitting.loop import FitResult, Loop
from nervcodec.fitting.rate_control import SizeGoal, coded_to
from nervcodec.fitting.state import FitState
from nervcodec.fitting.tensorboard import HELD_OUT_EMBEDDED, TensorBoardLog, require_tensorboard
from nervcodec.formats import bitstream, container
from nervcodec.formats.fields import from_json, to_json
from nervcodec.formats.header import (
    AUDIO,
    FRAME_TIMES,
    FitRecord,
    Header,
    Segment,
    SemanticFacts,
    StoredTensor,
    VideoFacts,
)
from nervcodec.formats.names import recorded, within
from nervcodec.formats.quantization import STREAM, TensorCode
from nervcodec.network.build import build, from_arrays, parameter_count
from nervcodec.network.config import Geometry, NetworkConfig, network_to_json
from nervcodec.network.field import Field
from nervcodec.outputs import require_folder, require_free
from nervcodec.segments import segment_lengths
from nervcodec.semantic.encoder import resolve
from nervcodec.semantic.patches import embed_patches, sampled_frames
from nervcodec.split import FITTED, HELD_OUT
from nervcodec.video.probe import require_file
from nervcodec.video.reader import read_frames, read_segment
from nervcodec.video.shots import find_cuts, find_pace, persistence
from nervcodec.video.sound import packets
from nervcodec.video.source import scan

DEFAULT_SUFFIX = ".nerv"


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
        embed_s, fit_s: seconds.
        complete: False where the fit was stopped early.
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


def encode(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    observer: Observer | None = None,
    force: bool = False,
    **settings: object,
) -> EncodeReport:
    """Fit a network to a video and write it to a container.

    Args:
        path: a video file, or a folder of numbered PNG or JPEG frames.
        out: the container; by default the source's name with ``.nerv``.
        observer: told of progress; may ask to stop early, which keeps the best state so far.
        force: overwrite an existing output.
        **settings: fields of :class:`nervcodec.options.EncodeOptions` and its parts by name, such as ``time_s=180``,
            ``encoder="none"``, ``crop=(640, 1280)``, and ``preset``.

    Raises:
        ConfigError: a setting is out of range, or the output exists.
        VideoError: the source cannot be read.
        EncoderError: the semantic encoder cannot be loaded.
        DivergedError: the fit produced values that are not finite.
        ContainerError: the output cannot be written.
    """
    wanted = options.from_flat(**settings)
    source = Path(path)
    require_file(source)
    target = Path(out) if out is not None else _default_target(source)
    check_output(source, target, force)
    if wanted.log_dir is not None:
        require_folder(Path(wanted.log_dir))
    return _Encoder(source, target, wanted, observer or Observer()).run()


def _default_target(source: Path) -> Path:
    """Beside the source, with its name and ``.nerv``."""
    place = source if source.name not in ("", "..") else source.resolve()
    return place.with_name(within(place.name if os.path.isdir(place) else place.stem, DEFAULT_SUFFIX))


def check_output(source: Path, target: Path, force: bool) -> None:
    """Refuse, before any work, an output that cannot or must not be written.

    Raises:
        ConfigError: it exists, is the source itself, or its folder is not there.
    """
    if os.path.exists(target) and os.path.exists(source) and target.samefile(source):
        raise ConfigError(f"{target}: input and output are the same file")
    require_free(target, force)


def _modified(source: Path) -> float:
    """When the source was last changed, in seconds; of a folder of frames, the latest of its files."""
    files = list(source.iterdir()) if source.is_dir() else [source]
    return max(file.stat().st_mtime for file in files)


@dataclass(frozen=True)
class _EncodedSegment:
    """One segment, fitted and quantised."""

    segment: Segment
    stream: np.ndarray
    entropy_bytes: float
    psnr_db: np.ndarray
    parameters: int
    result: FitResult

    def to_facts(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        return {
            "segment": json.dumps(to_json(self.segment)),
            "stream": torch.from_numpy(self.stream.copy()),
            "entropy_bytes": self.entropy_bytes,
            "psnr_db": torch.from_numpy(self.psnr_db),
            "parameters": self.parameters,
            "steps": self.result.steps,
            "elapsed_s": self.result.elapsed_s,
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> _EncodedSegment:
        """The inverse of :meth:`to_facts`."""
        result = FitResult(facts["steps"], facts["elapsed_s"], True, {})
        return cls(
            from_json(Segment, json.loads(facts["segment"]), "segment"),
            facts["stream"].numpy(),
            facts["entropy_bytes"],
            facts["psnr_db"].numpy(),
            facts["parameters"],
            result,
        )


class _Encoder:
    """One encode, from source to file."""

    def __init__(self, source: Path, target: Path, wanted: options.EncodeOptions, observer: Observer):
        self.source, self.target, self.wanted, self.observer = source, target, wanted, observer
        if wanted.log_dir is not None:
            require_tensorboard()
        observer.stage("Reading")
        self.hardware = choose(wanted.device, wanted.precision)
        self.info = scan(source, wanted.source)
        for note in self.info.notes:
            observer.note(note)
        for complaint in self.info.complaints:
            observer.note(f"{source.name}: ffmpeg says: {complaint}")
        self.audio = packets(self.info, wanted.source) if self.info.has_audio and wanted.audio == "copy" else b""
        self.encoder = resolve(wanted.encoder, self.hardware.device, observer.note)
        self.grid = PatchGrid.fitting(self.info.height, self.info.width, *wanted.patches)
        self.embed_s = 0.0
        stamp = (source.resolve(), self.info.file_bytes, self.info.frame_count, _modified(source))
        own = Checkpoint(identity(replace(wanted, resume=False, log_dir=None), *stamp))
        self.checkpoint = CheckpointFile(target, own, observer.note)
        if wanted.resume:
            self.checkpoint.load()

    def run(self) -> EncodeReport:
        info, wanted = self.info, self.wanted
        lengths = segment_lengths(info.frame_count, float(info.frame_rate), wanted.segment)
        frames = read_frames(info, wanted.source)
        done = [_EncodedSegment.from_facts(facts) for facts in self.checkpoint.current.finished]
        first = sum(segment.segment.frame_count for segment in done)
        for _ in range(first):
            next(frames)
        for index, length in list(enumerate(lengths))[len(done) :]:
            fit = wanted.fit.limited(length / info.frame_count, len(lengths))
            segment = self._segment(read_segment(frames, length), first, index, len(lengths), fit)
            if segment is None:
                break  # stopped before this segment was begun; those before it are whole
            done.append(segment)
            self.checkpoint.finish_segment(segment.to_facts())
            first += length
            if not segment.result.complete:
                break
        frames.close()
        complete = first == info.frame_count and done[-1].result.complete
        report = self._write(done, complete)
        self.checkpoint.remove()
        return report

    def _segment(
        self, pixels: np.ndarray, first: int, index: int, count: int, fit: FitConfig
    ) -> _EncodedSegment | None:
        """Fit, round and measure one segment; None where it was stopped before its first step and is not the first.

        Args:
            pixels: ``(N, H, W, 3)`` uint8.
            first: number of its first frame.
            index, count: which segment of how many.
            fit: settings, with the segment's share of the time.
        """
        split, encoder = self.wanted.split, self.encoder
        fitted = np.array(split.roles(first, len(pixels))) == FITTED if split else np.ones(len(pixels), bool)
        if not fitted.any():
            raise ConfigError(f"the split leaves no frame to fit in the segment that starts at frame {first}")
        embedded = np.empty(0, np.int64)
        if encoder is not None:
            rate = float(self.info.frame_rate) * fitted.mean()
            embedded = np.flatnonzero(fitted)[sampled_frames(fitted.sum(), rate, self.wanted.semantic_fps)]
        geometry = Geometry(len(pixels), self.info.height, self.info.width, self.grid.rows, self.grid.columns)
        goal = self._size_goal(geometry, len(embedded))  # refuses a size that is too small before any work
        shown = self._held_out_to_show(fitted)
        similar = self._embed(pixels[shown]) if len(shown) else None
        data = SegmentData(pixels, self._embed(pixels[embedded]), embedded, fitted, similar, shown)
        cuts = find_cuts(pixels)
        config = sizing.network_config(
            self.wanted.network,
            geometry,
            goal,
            None if encoder is None else encoder.dimension,
            embedded.tolist(),
            int(fitted.sum()),
            cuts,
            sizing.expected_passes(geometry, fit, int(fitted.sum()), self.hardware.device),
            find_pace(pixels),
            persistence(pixels, cuts),
        )

        parameters = parameter_count(config)
        if goal is not None and parameters > bitstream.most_values(int(goal.limit_bytes)):
            raise ConfigError(f"{parameters:,} parameters are too many for {goal.limit_bytes:,.0f} bytes")
        field, result = self._fitted(config, data, fit, goal, index, count)
        if index and not result.steps:
            return None
        stream = coded_to(field, result.rounding, goal)
        tensors = bitstream.read(stream)
        self.observer.stage("Measuring")
        psnr_db = self._measure(config, bitstream.values(tensors), pixels, np.arange(len(pixels)))
        segment = Segment(first, len(pixels), network_to_json(config), f"{index}/", tuple(embedded.tolist()))
        return _EncodedSegment(segment, stream, bitstream.entropy_bytes(tensors), psnr_db, parameters, result)

    def _fitted(
        self, config: NetworkConfig, data: SegmentData, fit: FitConfig, goal: SizeGoal | None, index: int, count: int
    ) -> tuple[Field, FitResult]:
        """A network fitted to a segment; on the CPU where the GPU's memory does not hold it.

        Args:
            config: of the network.
            data, fit: what it is fitted to, and how.
            goal: what its stored form should take, or None.
            index, count: which segment of how many.
        """
        pixels = data.frames
        fitted = np.flatnonzero(data.is_fitted)

        def quantised_psnr_db(field: Field, steps: dict[str, np.ndarray]) -> float:
            weights = bitstream.decode(coded_to(field, steps, goal))
            return float(self._measure(config, weights, pixels[fitted], fitted).mean())

        self.observer.stage("Fitting")
        expected_bytes = parameter_count(config) * sizing.BITS_PER_PARAMETER / 8
        rate_bpp = metrics.rate_bpp(expected_bytes, *pixels.shape[:3])
        hooks: list[Hook] = [ProgressHook(self.observer, index, count, rate_bpp), *self._log(index, count)]
        hooks.append(CheckpointHook(self.checkpoint))
        while True:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(fit.seed + index)
                field = build(config)
            try:
                state = FitState(field, data, fit, self.hardware, goal)
                if self.checkpoint.current.trainer is not None:
                    state.restore(self.checkpoint.current.trainer)
                return field, Loop(state, Hooks(hooks), quantised_psnr_db).run()
            except torch.cuda.OutOfMemoryError:
                self.observer.note("the GPU's memory does not hold this fit at any batch size; it goes on on the CPU")
            self.hardware = choose("cpu", self.wanted.precision)

    def _held_out_to_show(self, fitted: np.ndarray) -> np.ndarray:
        """Held-out frames whose similarity the log shows, by number."""
        if self.wanted.log_dir is None or self.encoder is None or fitted.all():
            return np.empty(0, np.int64)
        return np.array(evenly(np.flatnonzero(~fitted), HELD_OUT_EMBEDDED), np.int64)

    def _embed(self, frames: np.ndarray) -> np.ndarray | None:
        """Reference embeddings of every patch of some frames, where an encoder was chosen."""
        if self.encoder is None:
            return None
        start = time.perf_counter()
        embeddings = embed_patches(frames, self.grid, self.encoder, self.observer)
        self.embed_s += time.perf_counter() - start
        return embeddings

    def _log(self, index: int, count: int) -> list[TensorBoardLog]:
        if self.wanted.log_dir is None:
            return []
        folder = Path(self.wanted.log_dir)
        return [TensorBoardLog(folder if count == 1 else folder / f"segment_{index}")]

    def _size_goal(self, geometry: Geometry, embedded: int) -> SizeGoal | None:
        """What a segment's weights may take: its part of the size asked for, or else of the source's."""
        info, wanted, share = self.info, self.wanted, geometry.frames / self.info.frame_count
        size = wanted.size_bytes
        if wanted.bpp is not None:
            size = wanted.bpp * info.frame_count * info.height * info.width / 8
        if size is None:
            # Weights that were not rounded in the fit do not stand being squeezed: their quality comes first.
            if info.images or not wanted.fit.rounding_share:
                return None
            part = info.file_bytes * self._share_of_source(geometry)
            return SizeGoal(max(sizing.SHARE_OF_SOURCE * part - share * len(self.audio), sizing.MINIMUM_BYTES))
        per_frame = sizing.FRAME_BYTES + (sizing.TIME_BYTES if info.variable_frame_rate else 0)
        beside = sizing.SEGMENT_BYTES + per_frame * geometry.frames + sizing.EMBEDDED_BYTES * embedded
        once = sizing.HEADER_BYTES + len(self.audio)
        weights = share * (size - once) - beside
        if weights < sizing.MINIMUM_BYTES:
            least = math.ceil(((sizing.MINIMUM_BYTES + beside) / share + once) / 1000) * 1000
            sound = f", {len(self.audio):,} of them for its sound" if self.audio else ""
            raise ConfigError(f"{size:,.0f} bytes are too few for this video; ask for {least:,.0f} or more{sound}")
        return SizeGoal(weights, reach=True)

    def _share_of_source(self, geometry: Geometry) -> float:
        """The part of the source file's bytes that a segment stands for, by frames."""
        wanted, info = self.wanted.source, self.info
        share = geometry.frames / info.frame_count
        trimmed = wanted.start_s or wanted.duration_s is not None
        if trimmed and info.source_duration_s:
            share *= min(1.0, info.duration_s / info.source_duration_s)
        return share

    def _measure(
        self,
        config: NetworkConfig,
        weights: dict[str, np.ndarray],
        pixels: np.ndarray,
        numbers: np.ndarray,
    ) -> np.ndarray:
        """PSNR of some frames, rendered by a fresh network from the weights as they will be read: ``(n,)`` dB."""
        field = from_arrays(config, weights).to(self.hardware.device)
        result = np.empty(len(pixels))
        with torch.inference_mode(), self.hardware.autocast():
            for index, (number, source) in enumerate(zip(numbers, pixels, strict=True)):
                image = field.render(torch.tensor([number]))[0].clamp_(0, 1).mul_(255).round_()
                result[index] = metrics.psnr_db(image.to(torch.uint8).cpu().numpy(), source)
        return result

    def _write(self, done: list[_EncodedSegment], complete: bool) -> EncodeReport:
        info, encoder = self.info, self.encoder
        frames = sum(d.segment.frame_count for d in done)
        arrays = {d.segment.prefix + "weights": d.stream for d in done}
        tensors = {name: StoredTensor(container.checksum(a), TensorCode(STREAM)) for name, a in arrays.items()}
        if info.variable_frame_rate:
            times = info.times_s[:frames].astype("<f8")
            arrays[FRAME_TIMES] = times
            tensors[FRAME_TIMES] = StoredTensor(container.checksum(times))
        if self.audio:
            arrays[AUDIO] = np.frombuffer(self.audio, np.uint8)
            tensors[AUDIO] = StoredTensor(container.checksum(arrays[AUDIO]))
        per_frame = np.concatenate([d.psnr_db for d in done])
        split = self.wanted.split
        roles = np.array(split.roles(0, frames) if split else [FITTED] * frames)
        psnr_db = float(per_frame[roles == FITTED].mean())
        held_out = per_frame[roles == HELD_OUT]
        fit_s = sum(d.result.elapsed_s for d in done)
        steps = sum(d.result.steps for d in done)
        entropy = round(sum(d.entropy_bytes for d in done))
        fit = FitRecord(round(psnr_db, 4), round(fit_s, 2), steps, complete, entropy)
        aim = self.wanted.fit.psnr_db
        if aim is not None and complete and psnr_db < aim:
            self.observer.note(f"the fit ended at {psnr_db:.2f} dB of the {aim:g} asked for; give it more --time")
        semantic = None
        if encoder is not None:
            sampled = sum(len(d.segment.embedded_frames) for d in done) / frames * float(info.frame_rate)
            semantic = SemanticFacts(encoder.name, encoder.dimension, round(sampled, 4))
        header = Header(
            video=self._facts(frames),
            patch_grid=(self.grid.rows, self.grid.columns),
            segments=tuple(d.segment for d in done),
            tensors=tensors,
            fit=fit,
            tool=f"nervcodec {__version__}",
            semantic=semantic,
            split=(split.fitted, split.train, split.total) if split else None,
        )
        size = container.write(self.target, header, arrays)
        if size > info.file_bytes:
            self.observer.note(f"{self.target.name} is larger than its source ({size:,} bytes, {info.file_bytes:,})")
        return EncodeReport(
            path=self.target,
            size_bytes=size,
            source_bytes=info.file_bytes,
            rate_bpp=metrics.rate_bpp(size, frames, info.height, info.width),
            psnr_db=psnr_db,
            held_out_psnr_db=float(held_out.mean()) if len(held_out) else None,
            parameters=sum(d.parameters for d in done),
            frames=frames,
            steps=steps,
            embed_s=self.embed_s,
            fit_s=fit_s,
            complete=complete,
        )

    def _facts(self, frames: int) -> VideoFacts:
        info, wanted = self.info, self.wanted.source
        imposed = info.input.frame_rate
        duration = info.duration_s if frames == info.frame_count else float(info.times_s[frames])
        aspect = Fraction(info.sample_aspect_ratio)
        return VideoFacts(
            width=info.width,
            height=info.height,
            frame_rate=(info.frame_rate.numerator, info.frame_rate.denominator),
            frame_count=frames,
            duration_s=round(duration, 6),
            source_name=recorded(self.source.resolve().name),
            sample_aspect_ratio=(aspect.numerator, aspect.denominator),
            source_bytes=info.file_bytes,
            source_start_s=wanted.start_s,
            source_duration_s=wanted.duration_s,
            crop=wanted.crop,
            variable_frame_rate=info.variable_frame_rate,
            first_frame_s=round(info.first_frame_s, 6) if self.audio else 0.0,
            source_stream=wanted.stream,
            source_frame_rate=imposed.as_integer_ratio() if imposed and not info.images else None,
        )
