# SPDX-License-Identifier: MIT
"""A ``.nerv`` file as a sequence of frames. Never imports the fit or an encoder."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nervcodec.coordinates import PatchGrid
from nervcodec.device import Hardware, choose
from nervcodec.errors import ConfigError, ContainerError
from nervcodec.formats import container
from nervcodec.formats.header import Header, Segment, SemanticFacts
from nervcodec.network.build import SEMANTIC, check_shapes, from_arrays, head_from_arrays, parameter_count, stands_alone
from nervcodec.network.config import network_from_json
from nervcodec.network.field import Field
from nervcodec.network.heads import SemanticHead
from nervcodec.video.writer import Sound

if TYPE_CHECKING:
    from nervcodec.search.moments import Moment
    from nervcodec.semantic.encoder import SemanticEncoder

_FRAMES_IN_MEMORY = 4  # rendered at once, where they are small
_PIXELS_IN_MEMORY = 1 << 23  # of frames rendered at once
_BYTES_PER_PIXEL = 64  # that rendering takes at its peak, features included
_BYTES_AT_REST = 400 << 20  # Python, torch
_EMBED_BATCH = 32
_OPEN_SEGMENTS = 2  # networks kept ready


def open_video(path: str | Path, device: str = "auto", precision: str = "auto") -> NervVideo:
    """Open a container for decoding and search.

    Args:
        path: a ``.nerv`` file.
        device: ``auto``, ``cuda`` or ``cpu``.
        precision: ``auto``, ``fp32`` or ``bf16``.

    Raises:
        ContainerError: no such file, damaged, or not a container.
        ConfigError: the device is not there.
    """
    return NervVideo(container.read(Path(path)), choose(device, precision))


@dataclass(frozen=True)
class Needs:
    """What decoding takes.

    Attributes:
        memory_bytes: at its peak, about.
        pixel_bytes: all the frames as uint8 RGB.
    """

    memory_bytes: int
    pixel_bytes: int


class EmbeddingParts(NamedTuple):
    """Embeddings of a segment: coefficients x basis + mean, interpolated in time and then brought to length 1.

    Attributes:
        coefficients: ``(e, rows * columns, r)`` float32 of the entries that were stored.
        basis, mean: ``(r, D)`` and ``(D,)`` float32.
        before, after: ``(n,)`` int64, the entries on both sides of each frame.
        weight: ``(n,)`` float32, of the entry after it.
    """

    coefficients: np.ndarray
    basis: np.ndarray
    mean: np.ndarray
    before: np.ndarray
    after: np.ndarray
    weight: np.ndarray


class NervVideo(Sequence):
    """Frames of a container, decoded when asked for.

    >>> video = nervcodec.open("kitchen.nerv")   # doctest: +SKIP
    >>> len(video), video[0].shape               # doctest: +SKIP
    (250, (272, 640, 3))

    Args:
        opened: a container.
        hardware: device and precision.

    Raises:
        ContainerError: its tensors do not fit its networks.
    """

    def __init__(self, opened: container.Container, hardware: Hardware):
        self.path, self.header, self.hardware = opened.path, opened.header, hardware
        self._container = opened
        self._starts = [s.first_frame for s in self.header.segments]
        self._times = opened.frame_times()
        self._field = lru_cache(maxsize=_OPEN_SEGMENTS)(self._load)
        self._head = lru_cache(maxsize=_OPEN_SEGMENTS)(self._load_head)
        for segment in self.header.segments:
            self._check(segment)

    # ------------------------------------------------------------------ facts

    header: Header

    @property
    def grid(self) -> PatchGrid:
        """The patch grid with its pixel boxes."""
        return PatchGrid(self.header.video.height, self.header.video.width, *self.header.patch_grid)

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second."""
        return Fraction(*self.header.video.frame_rate)

    @property
    def frame_times_s(self) -> np.ndarray:
        """``(len,)`` float64, when each frame begins to show."""
        return self._times

    def __len__(self) -> int:
        return self.header.video.frame_count

    # ------------------------------------------------------------------ pixels

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> np.ndarray: ...
    def __getitem__(self, index: int | slice) -> np.ndarray:
        """One frame ``(H, W, 3)``, or those of a slice ``(n, H, W, 3)``, uint8 RGB.

        Raises:
            IndexError: no such frame.
        """
        if isinstance(index, slice):
            chosen = range(len(self))[index]
            frames = list(self.frames(chosen))
            video = self.header.video
            return np.stack(frames) if frames else np.empty((0, video.height, video.width, 3), np.uint8)
        return next(self.frames([self._checked(index)]))

    def frame_at(self, seconds: float) -> np.ndarray:
        """The frame on show at a time, ``(H, W, 3)`` uint8 RGB.

        Raises:
            IndexError: before the start or after the end.
        """
        if not 0 <= seconds < self.header.video.duration_s:
            raise IndexError(f"{seconds:g} s is outside the video, which ends at {self.header.video.duration_s:g} s")
        return self[bisect.bisect_right(self._times, seconds + 1e-6) - 1]

    def frames(self, numbers: Iterable[int] | None = None, scale: float = 1.0) -> Iterator[np.ndarray]:
        """Decode frames one after the other; nothing else is decoded.

        Args:
            numbers: frame numbers in any order; None for all.
            scale: factor on width and height, above 0 and at most 16.

        Yields:
            ``(H, W, 3)`` uint8 RGB.

        Raises:
            IndexError: no such frame.
            ConfigError: the scale is out of range.
        """
        if not 0 < scale <= 16:
            raise ConfigError(f"a scale of {scale:g} is out of range (above 0, at most 16)")
        for segment, local in self._runs(range(len(self)) if numbers is None else numbers):
            yield from self._render(self._field(segment).render, local, scale)

    def needs(self, count: int, scale: float = 1.0) -> Needs:
        """What decoding ``count`` frames takes, from the header alone."""
        facts = self.header.video
        pixels = facts.width * facts.height
        shown = max(1, round(facts.width * scale)) * max(1, round(facts.height * scale))
        weights = 4 * _OPEN_SEGMENTS * max(parameter_count(network_from_json(s.network)) for s in self.header.segments)
        frames = min(count, self._most_at_once) * _BYTES_PER_PIXEL * (pixels + (shown if scale != 1 else 0))
        return Needs(_BYTES_AT_REST + weights + frames, 3 * shown * count)

    @property
    def _most_at_once(self) -> int:
        """Frames rendered in one go."""
        return max(1, min(_FRAMES_IN_MEMORY, _PIXELS_IN_MEMORY // (self.header.video.width * self.header.video.height)))

    def at_constant_rate(self, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Repeat or drop frames of a variable rate so that they keep their times at :attr:`frame_rate`.

        Args:
            frames: all frames in order, as :meth:`frames` gives them.
        """
        if not self.header.video.variable_frame_rate:
            yield from frames
            return
        rate = float(self.frame_rate)
        ends = [*self._times[1:], self.header.video.duration_s]
        shown = 0
        for frame, end in zip(frames, ends, strict=True):
            while shown / rate < end - 0.5 / rate:
                yield frame
                shown += 1

    def patch(self, frame: int, row: int, column: int) -> np.ndarray:
        """One patch ``(h, w, 3)`` uint8 RGB; the rest of the frame is not computed.

        Raises:
            IndexError: no such frame or patch.
        """
        return next(self.patches([self._checked(frame)], row, column))

    def patches(self, numbers: Iterable[int], row: int, column: int, scale: float = 1.0) -> Iterator[np.ndarray]:
        """The same patch of several frames, see :meth:`patch` and :meth:`frames`."""
        self.grid.box(row, column)
        for segment, local in self._runs(numbers):
            field = self._field(segment)
            yield from self._render(lambda f, field=field: field.render_patch(f, row, column), local, scale)

    def window_between(self, frame: int, row: float, column: float) -> np.ndarray:
        """A window of a patch's size at a position between patches, ``(h, w, 3)`` uint8 RGB.

        Args:
            frame: its number.
            row, column: position in the patch grid, see ``PatchGrid.box_between``.

        Raises:
            IndexError: no such frame, or the window does not lie within it.
        """
        self.grid.box_between(row, column)
        segment, local = next(self._runs([self._checked(frame)]))
        field = self._field(segment)
        return next(self._render(lambda frames: field.render_between(frames, row, column), local, 1.0))

    # ------------------------------------------------------------------ sound

    def sound(self, start_s: float = 0.0, duration_s: float | None = None) -> Sound | None:
        """The source's audio packets, or those of a range; None where the container has none."""
        data = self._container.audio()
        return None if data is None else Sound(data, self.header.video.first_frame_s + start_s, duration_s)

    # ------------------------------------------------------------------ embeddings

    def require_embeddings(self) -> SemanticFacts:
        """What the header says of the embeddings.

        Raises:
            ContainerError: the container has none.
        """
        if self.header.semantic is None:
            raise ContainerError(f"{self.path}: has no embeddings (it was encoded with --encoder none)")
        return self.header.semantic

    def embeddings(self, numbers: Iterable[int] | None = None) -> np.ndarray:
        """Patch embeddings, without decoding a pixel.

        Args:
            numbers: frame numbers in any order; None for all.

        Returns:
            ``(n, rows * columns, D)`` float32 unit vectors.

        Raises:
            ContainerError: the container has none.
        """
        self.require_embeddings()
        rows = []
        with torch.inference_mode(), self.hardware.autocast():
            for segment, local in self._runs(range(len(self)) if numbers is None else numbers, _EMBED_BATCH):
                head = self._head(segment)
                centred = head.directions(self._coefficients(segment, torch.tensor(local)))
                rows.append(head.embeddings(centred).float().cpu().numpy())
        return np.concatenate(rows)

    def embedding_parts(self) -> Iterator[EmbeddingParts]:
        """Embeddings of all frames, segment by segment, before they are put together.

        Raises:
            ContainerError: the container has none.
        """
        self.require_embeddings()
        for index, segment in enumerate(self.header.segments):
            head = self._head(index)
            with torch.inference_mode(), self.hardware.autocast():
                if head.code_timeline is not None:
                    coefficients, places = head.entries(), head.code_timeline.places
                else:
                    frames = torch.arange(segment.frame_count)
                    batches = [self._coefficients(index, local).float() for local in frames.split(_EMBED_BATCH)]
                    coefficients, places = torch.cat(batches), (frames, frames, torch.zeros(len(frames)))
            tensors = (coefficients, head.directions.weight.T, head.mean)
            arrays = [tensor.float().cpu().numpy() for tensor in tensors]
            yield EmbeddingParts(*arrays, *(place.numpy() for place in places))

    def search(
        self, query: str, k: int = 10, encoder: SemanticEncoder | None = None, cut_off: bool = True
    ) -> list[Moment]:
        """Moments that match a text, best first; none where nothing does.

        Args:
            query: what to look for.
            k: at most so many.
            encoder: the one the container was made with, already loaded; None loads it.
            cut_off: leave out what is not really there (see ``nervcodec.search.ask``).

        Raises:
            ContainerError: the container has no embeddings.
            EncoderError: its encoder cannot be loaded here.
        """
        from nervcodec.search.ask import answer
        from nervcodec.search.index import EmbeddingIndex
        from nervcodec.search.moments import find_moments
        from nervcodec.search.query import Query, Term
        from nervcodec.semantic.encoder import load

        encoder = encoder or load(self.require_embeddings().encoder)
        asked = answer(Query((Term(query),)), encoder, cut_off)
        return find_moments([EmbeddingIndex.of(self)], lambda _: asked, k)

    # ------------------------------------------------------------------ inside

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} is out of range; there are {len(self)}")
        return index % len(self)

    def _runs(self, numbers: Iterable[int], longest: int | None = None) -> Iterator[tuple[int, list[int]]]:
        """Group frame numbers, in order, by segment: (segment, frames counted from its first)."""
        longest = longest or self._most_at_once
        segment, run = -1, []
        for number in numbers:
            if not 0 <= number < len(self):
                raise IndexError(f"frame {number} is out of range; there are {len(self)}")
            at = bisect.bisect_right(self._starts, number) - 1
            if run and (at != segment or len(run) == longest):
                yield segment, run
                run = []
            segment = at
            run.append(number - self._starts[at])
        if run:
            yield segment, run

    def _render(self, render, local: list[int], scale: float) -> Iterator[np.ndarray]:
        with torch.inference_mode(), self.hardware.autocast():
            images = render(torch.tensor(local))
            if scale != 1.0:
                images = _resized(images, scale)
            images = images.clamp_(0, 1).mul_(255).round_().to(torch.uint8).cpu().numpy()
        yield from images

    def _check(self, segment: Segment) -> None:
        video = self.header.video
        try:
            config = network_from_json(segment.network)
            geometry = config.geometry
            if (geometry.frames, geometry.height, geometry.width) != (segment.frame_count, video.height, video.width):
                raise ContainerError("the network's geometry is not the video's")
            if (geometry.patch_rows, geometry.patch_columns) != self.header.patch_grid:
                raise ContainerError("the network's patch grid is not the video's")
            if (config.semantic is None) != (self.header.semantic is None) or (
                config.semantic and config.semantic.dimension != self.header.semantic.dimension
            ):
                raise ContainerError("the network's semantic head is not what the header says")
            stored = self._container.stored(segment.prefix)
            check_shapes(config, {name: shape for name, (shape, _) in stored.items()})
        except ContainerError as error:
            raise ContainerError(f"{self.path}: {error}") from None

    def _load(self, index: int) -> Field:
        segment = self.header.segments[index]
        try:
            field = from_arrays(network_from_json(segment.network), self._container.weights(segment.prefix))
        except ContainerError as error:
            raise ContainerError(f"{self.path}: {error}") from None
        return field.to(self.hardware.device)

    def _load_head(self, index: int) -> SemanticHead:
        """The semantic head of a segment; the rest of the network is not decoded where it stands alone."""
        segment = self.header.segments[index]
        config = network_from_json(segment.network)
        if not stands_alone(config):
            head = self._field(index).semantic
            assert head is not None
            return head
        weights = self._container.weights(segment.prefix, SEMANTIC)
        return head_from_arrays(config, weights).to(self.hardware.device)

    def _coefficients(self, index: int, local: Tensor) -> Tensor:
        """Coordinates in the semantic head's basis of frames counted from a segment's first, ``(n, patches, rank)``."""
        head = self._head(index)
        if head.needs_features:
            return self._field(index).coefficients(local)
        return head.coefficients(None, local.to(self.hardware.device))


def _resized(images: Tensor, scale: float) -> Tensor:
    """``(B, H, W, 3)`` by a factor, bicubic with antialiasing; no side falls below one pixel."""
    size = [max(1, round(side * scale)) for side in images.shape[1:3]]
    resized = F.interpolate(images.permute(0, 3, 1, 2), size=size, mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1)
