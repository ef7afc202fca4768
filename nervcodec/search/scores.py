# SPDX-License-Identifier: MIT
"""Scores of the patches of a container for a query, and a cache on disk of the embeddings that give them.

An embedding is a mean plus a few coefficients times a basis, scaled to length 1. So the scores of all patches are one
product of the coefficients with the coordinates of the query in that basis; embeddings are not computed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from nervcodec.coordinates import PatchGrid
from nervcodec.errors import ContainerError, EncoderError, NervError
from nervcodec.semantic import cache

if TYPE_CHECKING:
    from nervcodec.decoding import NervVideo
    from nervcodec.formats.header import Header, VideoHeader
    from nervcodec.network.stored import EmbeddingParts
    from nervcodec.search.query import EncodedQuery

_CACHE_KIND, _CACHE_FORMAT = "index", "embedding index 3"
_LEVELS = 127


@dataclass(frozen=True)
class QuantizedSegment:
    """Embeddings of one segment, the quantised form of :class:`nervcodec.network.stored.EmbeddingParts`.

    Attributes:
        coefficients: ``(e, P, r)`` int8, in units of ``scale``, of the ``e`` stored frames.
        scale: ``(r,)`` float32.
        basis: ``(r, D)`` float16.
        mean: ``(D,)`` float16.
        before, after: ``(n,)`` int32, the stored frames between which each frame is interpolated.
        weight: ``(n,)`` float32, of the stored frame after it.
        lengths: ``(n, P)`` float32, of the embeddings before they are scaled to length 1.
        cuts: int32, first frames of the shots after the first.
    """

    coefficients: np.ndarray
    scale: np.ndarray
    basis: np.ndarray
    mean: np.ndarray
    before: np.ndarray
    after: np.ndarray
    weight: np.ndarray
    lengths: np.ndarray
    cuts: np.ndarray

    @classmethod
    def quantize(cls, parts: EmbeddingParts) -> QuantizedSegment:
        """Round coefficients to 8 bits."""
        scale = np.maximum(np.abs(parts.coefficients).max(axis=(0, 1)) / _LEVELS, 1e-12).astype(np.float32)
        rounded = np.rint(parts.coefficients / scale).astype(np.int8)
        basis, mean = np.ascontiguousarray(parts.basis, np.float16), parts.mean.astype(np.float16)
        position = parts.before.astype(np.int32), parts.after.astype(np.int32), parts.weight.astype(np.float32)
        vectors = _interpolate(rounded * scale, *position) @ basis.astype(np.float32) + mean.astype(np.float32)
        lengths = np.maximum(np.linalg.norm(vectors, axis=-1), 1e-12).astype(np.float32)
        return cls(rounded, scale, basis, mean, *position, lengths, np.array(parts.cuts, np.int32))

    @property
    def frame_count(self) -> int:
        """Frames of the segment."""
        return len(self.lengths)

    def is_consistent(self) -> bool:
        """Whether shapes fit each other and every frame lies between stored ones."""
        stored, patches, rank = self.coefficients.shape
        frames = (self.frame_count,)
        shapes = [
            (self.scale, (rank,)), (self.basis, (rank, len(self.mean))), (self.lengths, (*frames, patches)),
            (self.before, frames), (self.after, frames), (self.weight, frames),
        ]  # fmt: skip
        limits = (self.before, stored), (self.after, stored), (self.cuts, self.frame_count)
        inside = ((index >= 0).all() and (index < limit).all() for index, limit in limits)
        return all(array.shape == shape for array, shape in shapes) and all(inside)

    def scores(self, query: np.ndarray) -> np.ndarray:
        """Dot products with a ``(D,)`` query: ``(n, P)`` float32."""
        query = query.astype(np.float32)
        direction = self.scale * (self.basis.astype(np.float32) @ query)
        offset = self.mean.astype(np.float32) @ query
        stored = self.coefficients.astype(np.float32) @ direction
        return (_interpolate(stored, self.before, self.after, self.weight) + offset) / self.lengths

    def embeddings(self, frames: np.ndarray, patch: int) -> np.ndarray:
        """Embeddings of a patch in ``(m,)`` frames, ``(m, D)`` of length 1."""
        position = (array[frames] for array in (self.before, self.after, self.weight))
        coefficients = _interpolate(self.coefficients[:, patch] * self.scale, *position)
        vectors = coefficients @ self.basis.astype(np.float32) + self.mean.astype(np.float32)
        return vectors / self.lengths[frames, patch, None]


def _interpolate(stored: np.ndarray, before: np.ndarray, after: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Interpolate stored frames ``(e, ...)`` to all frames ``(n, ...)``."""
    weight = weight.reshape(-1, *([1] * (stored.ndim - 1)))
    return stored[before] * (1 - weight) + stored[after] * weight


_ARRAY_TYPES = {
    "coefficients": np.int8,
    "scale": np.float32,
    "basis": np.float16,
    "mean": np.float16,
    "before": np.int32,
    "after": np.int32,
    "weight": np.float32,
    "lengths": np.float32,
    "cuts": np.int32,
}


@dataclass(frozen=True)
class VideoEmbeddings:
    """Embeddings of a container, with the times of its frames and the boxes of its patches.

    Attributes:
        path: the container.
        source: equal for containers of one video, whatever their quality, size and encoder.
        encoder: name of the reference encoder.
        grid: the patch grid.
        frame_count: frames.
        frame_rate: frames per second.
        duration_s: seconds.
        variable_times_s: ``(frame_count,)`` where the rate varies, else None.
        segments: in order.
    """

    path: Path
    source: str
    encoder: str
    grid: PatchGrid
    frame_count: int
    frame_rate: Fraction
    duration_s: float
    variable_times_s: np.ndarray | None
    segments: tuple[QuantizedSegment, ...]

    @classmethod
    def from_video(cls, video: NervVideo) -> VideoEmbeddings:
        """The embeddings of every frame of an open container; no pixel is decoded.

        Raises:
            ContainerError: it has none.
        """
        video.require_embeddings()
        times = video.frame_times_s if video.header.video.variable_frame_rate else None
        return cls._create(video.path, video.header, times, video.embedding_parts())

    @classmethod
    def read(cls, path: Path, device: str = "auto", precision: str = "auto") -> VideoEmbeddings:
        """The embeddings of every frame of a file, without torch where they are stored as codes.

        Raises:
            ContainerError: no such file, damaged, not a container, or one without embeddings.
        """
        # A search with an index opens no container, and needs none of these modules.
        from nervcodec.formats.container import Container
        from nervcodec.network.stored import StoredNetworks, all_have_codes, code_parts, require_embeddings

        with Container.open(path) as opened:
            require_embeddings(path, opened.header)
            times = opened.frame_times() if opened.header.video.variable_frame_rate else None
            networks = StoredNetworks(opened)
            if all_have_codes(networks):
                return cls._create(path, opened.header, times, code_parts(networks))
            from nervcodec.decoding.networks import Networks
            from nervcodec.decoding.rendering import embedding_parts
            from nervcodec.device import choose_later

            parts = embedding_parts(Networks(opened, choose_later(device, precision)))
            return cls._create(path, opened.header, times, parts)

    @classmethod
    def _create(
        cls, path: Path, header: Header, times: np.ndarray | None, parts: Iterable[EmbeddingParts]
    ) -> VideoEmbeddings:
        assert header.semantic is not None
        video, segments = header.video, tuple(map(QuantizedSegment.quantize, parts))
        grid, rate = PatchGrid(video.height, video.width, *header.patch_grid), Fraction(*video.frame_rate)
        return cls(
            path, _source(path, video), header.semantic.encoder, grid, video.frame_count, rate, video.duration_s,
            times, segments,
        )  # fmt: skip

    @property
    def dimension(self) -> int:
        """Numbers in an embedding."""
        return len(self.segments[0].mean)

    @cached_property
    def frame_times_s(self) -> np.ndarray:
        """``(frame_count,)`` float64, start of each frame."""
        if self.variable_times_s is not None:
            return self.variable_times_s
        return np.arange(self.frame_count, dtype=np.float64) / float(self.frame_rate)

    def scores(self, query: np.ndarray) -> np.ndarray:
        """Dot products of all patches with a ``(D,)`` query: ``(frames, patches)`` float32."""
        return np.concatenate([segment.scores(query) for segment in self.segments])

    def embedding(self, frame: int, patch: int) -> np.ndarray:
        """One embedding, ``(D,)`` of length 1."""
        segment, index = self.locate(frame)
        return segment.embeddings(np.array([index]), patch)[0]

    def locate(self, frame: int) -> tuple[QuantizedSegment, int]:
        """The segment that a frame is in, and its index within."""
        for segment in self.segments:
            if frame < segment.frame_count:
                return segment, frame
            frame -= segment.frame_count
        raise IndexError(f"there is no frame {frame} beyond the last")

    @cached_property
    def shots(self) -> np.ndarray:
        """``(frame_count,)`` int, the number of the shot that each frame belongs to."""
        starts = np.zeros(self.frame_count, bool)
        first = 0
        for segment in self.segments:
            starts[first + segment.cuts] = True
            first += segment.frame_count
        return np.cumsum(starts)

    def mean_embedding(self, frame: int, patch: int, radius_s: float) -> np.ndarray:
        """The mean of a patch's embeddings within ``radius_s`` of a frame and within its shot, ``(D,)``."""
        times, now = self.frame_times_s, self.frame_times_s[frame]
        first, last = np.searchsorted(times, (now - radius_s - 1e-6, now + radius_s + 1e-6))
        frames = first + np.flatnonzero(self.shots[first:last] == self.shots[frame])
        total, start = np.zeros(self.dimension, np.float32), 0
        for segment in self.segments:
            local = frames[(frames >= start) & (frames < start + segment.frame_count)] - start
            if len(local):
                total += segment.embeddings(local, patch).sum(axis=0)
            start += segment.frame_count
        return total / len(frames)

    # ------------------------------------------------------------------ on disk

    def to_bytes(self) -> bytes:
        """A safetensors file, without the path."""
        arrays = {f"{i}/{part}": getattr(s, part) for i, s in enumerate(self.segments) for part in _ARRAY_TYPES}
        if self.variable_times_s is not None:
            arrays["times"] = self.variable_times_s
        info = {
            "source": self.source,
            "encoder": self.encoder,
            "grid": [self.grid.height, self.grid.width, self.grid.rows, self.grid.columns],
            "frame_count": self.frame_count,
            "frame_rate": [self.frame_rate.numerator, self.frame_rate.denominator],
            "duration_s": self.duration_s,
            "segments": len(self.segments),
        }
        # An array, since safetensors does not return its own metadata from bytes.
        arrays["facts"] = np.frombuffer(json.dumps(info).encode(), np.uint8)
        return safetensors_save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> VideoEmbeddings:
        """The inverse of :meth:`to_bytes`.

        Raises:
            ValueError: the bytes are not from :meth:`to_bytes`.
        """
        try:
            arrays = safetensors_load(data)
            info = json.loads(arrays["facts"].tobytes())
            segments = []
            for number in range(info["segments"]):
                parts = {part: arrays[f"{number}/{part}"] for part in _ARRAY_TYPES}
                if any(parts[part].dtype != kind for part, kind in _ARRAY_TYPES.items()):
                    raise ValueError("an array is of another type")
                if parts["coefficients"].ndim != 3 or parts["mean"].ndim != 1 or parts["lengths"].ndim != 2:
                    raise ValueError("an array is of another shape")
                segments.append(QuantizedSegment(**parts))
            embeddings = cls(
                path,
                info["source"],
                info["encoder"],
                PatchGrid(*info["grid"]),
                info["frame_count"],
                Fraction(*info["frame_rate"]),
                info["duration_s"],
                arrays.get("times"),
                tuple(segments),
            )
        except (SafetensorError, KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"not stored embeddings ({error})") from None
        frames = sum(segment.frame_count for segment in segments)
        if frames != embeddings.frame_count or not all(segment.is_consistent() for segment in segments):
            raise ValueError("arrays do not fit together")
        return embeddings


def _source(path: Path, video: VideoHeader) -> str:
    """See :class:`VideoEmbeddings`."""
    if video.source_digest is None:
        from nervcodec.formats.container import fingerprint

        return fingerprint(path)
    part = video.source_start_s, video.duration_s, video.frame_count, video.crop, video.source_stream
    return " ".join(map(str, (video.source_digest, *part)))


def open_embeddings(path: Path, device: str = "auto", precision: str = "auto") -> VideoEmbeddings:
    """Embeddings of a container: from the cache, else read from the container and stored there.

    The cache is keyed by checksum and modification time: a moved container is still found, a touched one is read, and
    checked, again. Deleting the cache is safe.

    Raises:
        ContainerError: no such file, damaged, not a container, or one without embeddings.
    """
    from nervcodec.formats.container import fingerprint

    name = cache.key(_CACHE_FORMAT, fingerprint(path), str(path.stat().st_mtime_ns))
    data = cache.load_bytes(_CACHE_KIND, name)
    if data is not None:
        with contextlib.suppress(ValueError):  # a damaged entry is replaced below
            return VideoEmbeddings.from_bytes(data, path)
    embeddings = VideoEmbeddings.read(path, device, precision)
    cache.store_bytes(_CACHE_KIND, name, embeddings.to_bytes())
    return embeddings


def encode_for(video: VideoEmbeddings, encode: Callable[[str], EncodedQuery]) -> EncodedQuery:
    """The query for the encoder of a container.

    Raises:
        ContainerError: the embeddings have another dimension than the encoder that the header names.
        EncoderError, ConfigError: as ``encode``.
    """
    encoded = encode(video.encoder)
    if video.dimension != len(encoded.vector):
        raise dimension_error(video.path, video.encoder, video.dimension, encoded)
    return encoded


def dimension_error(path: Path, encoder: str, dimension: int, encoded: EncodedQuery) -> ContainerError:
    """The error of a container whose embeddings have another dimension than the encoder that its header names."""
    theirs = f"those of the {encoder} encoder {len(encoded.vector)}"
    return ContainerError(f"{path}: its embeddings have {dimension} numbers, {theirs}")


def open_videos(
    files: Iterable[Path],
    encode: Callable[[str], EncodedQuery],
    problems: list[NervError],
    device: str = "auto",
    precision: str = "auto",
    known: Mapping[Path, VideoEmbeddings | NervError | None] = MappingProxyType({}),
) -> Iterator[VideoEmbeddings]:
    """The embeddings of each file that a query can be compared with.

    Args:
        files: containers.
        encode: gives the query for the encoder of a name; an error that it raises is a problem of the file.
        problems: receives the error of each file that cannot be searched.
        device, precision: as :func:`nervcodec.open`.
        known: from an index: embeddings of some files, their error, or None if other files score better.
    """
    for file in files:
        try:
            video = known[file] if file in known else open_embeddings(file, device, precision)
            if isinstance(video, NervError):
                raise video
            if video is None:
                continue
            encode_for(video, encode)
        except (ContainerError, EncoderError) as error:
            problems.append(error)
            continue
        yield video
