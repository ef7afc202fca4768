# SPDX-License-Identifier: MIT
"""Embeddings of a container in a form that is small and quick to ask, and a cache of them on disk.

An embedding is a mean plus a few coefficients times a basis, brought to length 1. So the scores of all patches for a
query are one product of the coefficients with the query's coordinates in that basis; no embedding is written out.
"""

from __future__ import annotations

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
from nervcodec.device import choose_later
from nervcodec.errors import ContainerError, EncoderError, NervError
from nervcodec.formats import container
from nervcodec.formats.container import Container
from nervcodec.formats.header import Header
from nervcodec.network.stored import EmbeddingParts, StoredNetworks, all_have_codes, code_parts, require_embeddings
from nervcodec.semantic import cache

if TYPE_CHECKING:
    from nervcodec.decoding import NervVideo
    from nervcodec.search.ask import Answer

_KIND, _FORM = "index", "embedding index 2"
_LEVELS = 127


@dataclass(frozen=True)
class SegmentIndex:
    """Embeddings of one segment, as :class:`nervcodec.network.stored.EmbeddingParts` has them, in fewer bytes.

    Attributes:
        coefficients: ``(e, P, r)`` int8, in units of ``scale``.
        scale: ``(r,)`` float32.
        basis: ``(r, D)`` float16.
        mean: ``(D,)`` float16.
        before, after: ``(n,)`` int32, entries of ``coefficients``.
        weight: ``(n,)`` float32, of the entry after.
        lengths: ``(n, P)`` float32, of the embeddings before they are brought to length 1.
    """

    coefficients: np.ndarray
    scale: np.ndarray
    basis: np.ndarray
    mean: np.ndarray
    before: np.ndarray
    after: np.ndarray
    weight: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, parts: EmbeddingParts) -> SegmentIndex:
        """Round coefficients to 8 bits."""
        scale = np.maximum(np.abs(parts.coefficients).max(axis=(0, 1)) / _LEVELS, 1e-12).astype(np.float32)
        rounded = np.rint(parts.coefficients / scale).astype(np.int8)
        basis, mean = np.ascontiguousarray(parts.basis, np.float16), parts.mean.astype(np.float16)
        places = parts.before.astype(np.int32), parts.after.astype(np.int32), parts.weight.astype(np.float32)
        vectors = _between(rounded * scale, *places) @ basis.astype(np.float32) + mean.astype(np.float32)
        lengths = np.maximum(np.linalg.norm(vectors, axis=-1), 1e-12).astype(np.float32)
        return cls(rounded, scale, basis, mean, *places, lengths)

    @property
    def frame_count(self) -> int:
        """Frames of the segment."""
        return len(self.lengths)

    def is_consistent(self) -> bool:
        """Whether shapes fit each other and every frame lies among the entries."""
        entries, patches, rank = self.coefficients.shape
        frames = (self.frame_count,)
        shapes = [
            (self.scale, (rank,)), (self.basis, (rank, len(self.mean))), (self.lengths, (*frames, patches)),
            (self.before, frames), (self.after, frames), (self.weight, frames),
        ]  # fmt: skip
        inside = ((place >= 0).all() and (place < entries).all() for place in (self.before, self.after))
        return all(array.shape == shape for array, shape in shapes) and all(inside)

    def first_of_shots(self) -> np.ndarray:
        """``(n,)`` bool, which frames begin a shot, as far as it can be told: nothing is interpolated across a cut.

        Where more than every other frame has an entry of its own, it cannot, and none does.
        """
        if 2 * len(self.coefficients) > self.frame_count:
            return np.zeros(self.frame_count, bool)
        return np.concatenate([[False], self.before[1:] > self.after[:-1]])

    def scores(self, query: np.ndarray) -> np.ndarray:
        """Dot products with a ``(D,)`` query: ``(n, P)`` float32."""
        query = query.astype(np.float32)
        direction = self.scale * (self.basis.astype(np.float32) @ query)
        offset = self.mean.astype(np.float32) @ query
        entries = self.coefficients.astype(np.float32) @ direction
        return (_between(entries, self.before, self.after, self.weight) + offset) / self.lengths

    def embedding(self, frame: int, patch: int) -> np.ndarray:
        """One embedding, ``(D,)`` of length 1."""
        places = (place[frame : frame + 1] for place in (self.before, self.after, self.weight))
        (coefficients,) = _between(self.coefficients[:, patch] * self.scale, *places)
        vector = coefficients @ self.basis.astype(np.float32) + self.mean.astype(np.float32)
        return vector / self.lengths[frame, patch]


def _between(entries: np.ndarray, before: np.ndarray, after: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Interpolate entries ``(e, ...)`` to frames ``(n, ...)``."""
    weight = weight.reshape(-1, *([1] * (entries.ndim - 1)))
    return entries[before] * (1 - weight) + entries[after] * weight


_PARTS = {
    "coefficients": np.int8,
    "scale": np.float32,
    "basis": np.float16,
    "mean": np.float16,
    "before": np.int32,
    "after": np.int32,
    "weight": np.float32,
    "lengths": np.float32,
}


@dataclass(frozen=True)
class EmbeddingIndex:
    """Embeddings of a whole container, with what it takes to say when and where a patch is.

    Attributes:
        path: the container.
        encoder: name of the reference encoder.
        grid: the patch grid.
        frame_count: frames.
        frame_rate: frames a second.
        duration_s: seconds.
        variable_times_s: ``(frame_count,)`` where the rate varies, else None.
        segments: in order.
    """

    path: Path
    encoder: str
    grid: PatchGrid
    frame_count: int
    frame_rate: Fraction
    duration_s: float
    variable_times_s: np.ndarray | None
    segments: tuple[SegmentIndex, ...]

    @classmethod
    def of(cls, video: NervVideo) -> EmbeddingIndex:
        """Compute the embeddings of every frame of an open container; no pixel is decoded.

        Raises:
            ContainerError: it has none.
        """
        video.require_embeddings()
        times = video.frame_times_s if video.header.video.variable_frame_rate else None
        return cls._of_file(video.path, video.header, times, video.embedding_parts())

    @classmethod
    def at(cls, path: Path, device: str = "auto", precision: str = "auto") -> EmbeddingIndex:
        """The same of a file, and without torch where its embeddings are codes.

        Raises:
            ContainerError: no such file, damaged, not a container, or one without embeddings.
        """
        with Container.at(path) as opened:
            require_embeddings(path, opened.header)
            times = opened.frame_times() if opened.header.video.variable_frame_rate else None
            networks = StoredNetworks(opened)
            if all_have_codes(networks):
                return cls._of_file(path, opened.header, times, code_parts(networks))
            from nervcodec.decoding.networks import Networks
            from nervcodec.decoding.rendering import embedding_parts

            parts = embedding_parts(Networks(opened, choose_later(device, precision)))
            return cls._of_file(path, opened.header, times, parts)

    @classmethod
    def _of_file(
        cls, path: Path, header: Header, times: np.ndarray | None, parts: Iterable[EmbeddingParts]
    ) -> EmbeddingIndex:
        assert header.semantic is not None
        video, segments = header.video, tuple(map(SegmentIndex.of, parts))
        grid, rate = PatchGrid(video.height, video.width, *header.patch_grid), Fraction(*video.frame_rate)
        return cls(path, header.semantic.encoder, grid, video.frame_count, rate, video.duration_s, times, segments)

    @cached_property
    def frame_times_s(self) -> np.ndarray:
        """``(frame_count,)`` float64, when each frame begins to show."""
        if self.variable_times_s is not None:
            return self.variable_times_s
        return np.arange(self.frame_count, dtype=np.float64) / float(self.frame_rate)

    def scores(self, query: np.ndarray) -> np.ndarray:
        """Dot products of all patches with a ``(D,)`` query: ``(frames, patches)`` float32."""
        return np.concatenate([segment.scores(query) for segment in self.segments])

    def embedding(self, frame: int, patch: int) -> np.ndarray:
        """One embedding, ``(D,)`` of length 1."""
        segment, place = self.segment_of(frame)
        return segment.embedding(place, patch)

    def segment_of(self, frame: int) -> tuple[SegmentIndex, int]:
        """The segment that a frame is in, and its number within."""
        for segment in self.segments:
            if frame < segment.frame_count:
                return segment, frame
            frame -= segment.frame_count
        raise IndexError(f"there is no frame {frame} beyond the last")

    @cached_property
    def shots(self) -> np.ndarray:
        """``(frame_count,)`` int, the number of the shot that each frame belongs to."""
        return np.cumsum(np.concatenate([segment.first_of_shots() for segment in self.segments]))

    def around(self, frame: int, patch: int, reach_s: float) -> np.ndarray:
        """The mean of a patch's embeddings within ``reach_s`` of a frame and within its shot, ``(D,)``."""
        times, now = self.frame_times_s, self.frame_times_s[frame]
        first, last = np.searchsorted(times, (now - reach_s - 1e-6, now + reach_s + 1e-6))
        frames = (n for n in range(first, last) if self.shots[n] == self.shots[frame])
        return np.mean([self.embedding(number, patch) for number in frames], axis=0)

    # ------------------------------------------------------------------ on disk

    def to_bytes(self) -> bytes:
        """As a safetensors file, without the path."""
        arrays = {f"{i}/{part}": getattr(s, part) for i, s in enumerate(self.segments) for part in _PARTS}
        if self.variable_times_s is not None:
            arrays["times"] = self.variable_times_s
        facts = {
            "encoder": self.encoder,
            "grid": [self.grid.height, self.grid.width, self.grid.rows, self.grid.columns],
            "frame_count": self.frame_count,
            "frame_rate": [self.frame_rate.numerator, self.frame_rate.denominator],
            "duration_s": self.duration_s,
            "segments": len(self.segments),
        }
        # As an array: safetensors' own metadata cannot be had from bytes.
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        return safetensors_save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> EmbeddingIndex:
        """The inverse of :meth:`to_bytes`.

        Raises:
            ValueError: the bytes are not what :meth:`to_bytes` gave.
        """
        try:
            arrays = safetensors_load(data)
            facts = json.loads(arrays["facts"].tobytes())
            segments = []
            for number in range(facts["segments"]):
                parts = {part: arrays[f"{number}/{part}"] for part in _PARTS}
                if any(parts[part].dtype != kind for part, kind in _PARTS.items()):
                    raise ValueError("an array is of another type")
                if parts["coefficients"].ndim != 3 or parts["mean"].ndim != 1 or parts["lengths"].ndim != 2:
                    raise ValueError("an array is of another shape")
                segments.append(SegmentIndex(**parts))
            index = cls(
                path,
                facts["encoder"],
                PatchGrid(*facts["grid"]),
                facts["frame_count"],
                Fraction(*facts["frame_rate"]),
                facts["duration_s"],
                arrays.get("times"),
                tuple(segments),
            )
        except (SafetensorError, KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"no embedding index ({error})") from None
        frames = sum(segment.frame_count for segment in segments)
        if frames != index.frame_count or not all(segment.is_consistent() for segment in segments):
            raise ValueError("arrays do not fit together")
        return index


def open_index(path: Path, device: str = "auto", precision: str = "auto") -> EmbeddingIndex:
    """Embeddings of a container: from the cache, else computed and put there.

    The cache is keyed by the container's checksum and time of change: one that was moved is still found, one that was
    touched is read, and checked, again. Deleting the cache costs time and nothing else.

    Raises:
        ContainerError: no such file, damaged, not a container, or one without embeddings.
    """
    name = cache.key(_FORM, container.fingerprint(path), str(path.stat().st_mtime_ns))
    stored = cache.load_bytes(_KIND, name)
    if stored is not None:
        try:
            return EmbeddingIndex.from_bytes(stored, path)
        except ValueError:
            stored = None  # a damaged entry is replaced below
    index = EmbeddingIndex.at(path, device, precision)
    cache.store_bytes(_KIND, name, index.to_bytes())
    return index


def require_length(index: EmbeddingIndex, vector: np.ndarray) -> None:
    """Raise :func:`dimension_error` unless embeddings and a query's ``(D,)`` vector have the same dimension."""
    dimension = index.segments[0].basis.shape[1]
    if dimension != len(vector):
        raise dimension_error(index.path, index.encoder, dimension, vector)


def dimension_error(path: Path, encoder: str, dimension: int, vector: np.ndarray) -> ContainerError:
    """The error of a container whose embeddings are not of the dimension of the encoder that its header names."""
    theirs = f"those of the {encoder} encoder {len(vector)}"
    return ContainerError(f"{path}: its embeddings have {dimension} numbers, {theirs}")


def open_indexes(
    files: Iterable[Path],
    ask: Callable[[str], Answer],
    problems: list[NervError],
    device: str = "auto",
    precision: str = "auto",
    known: Mapping[Path, EmbeddingIndex | NervError | None] = MappingProxyType({}),
) -> Iterator[EmbeddingIndex]:
    """The embeddings of each file, one after the other.

    Args:
        files: containers.
        ask: from an encoder's name to what the query asks of its embeddings; what it raises is that file's problem.
        problems: gets the error of each file that cannot be searched.
        device, precision: as :func:`nervcodec.open`.
        known: what a library says of some of them: their embeddings, what is wrong with them, or None for those that
            need not be looked into.
    """
    for file in files:
        try:
            index = known[file] if file in known else open_index(file, device, precision)
            if isinstance(index, NervError):
                raise index
            if index is None:
                continue
            require_length(index, ask(index.encoder).vector)
        except (ContainerError, EncoderError) as error:
            problems.append(error)
            continue
        yield index
