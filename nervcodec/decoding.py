# SPDX-License-Identifier: MIT
"""A ``.nerv`` file as a sequence of frames. Never imports the fit or an encoder."""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nervcodec.coordinates import PatchGrid
from nervcodec.device import Hardware, choose
from nervcodec.errors import ConfigError, ContainerError, NervError
from nervcodec.formats.container import Container
from nervcodec.formats.header import Header, SemanticFacts
from nervcodec.indexing import position, positions
from nervcodec.network.build import parameter_count
from nervcodec.network.config import network_from_json
from nervcodec.networks import OPEN_SEGMENTS, EmbeddingParts, Networks
from nervcodec.video.sound import Sound

_FRAMES_IN_MEMORY = 4  # rendered at once, where they are small
_PIXELS_IN_MEMORY = 1 << 23  # of frames rendered at once
_BYTES_PER_PIXEL = 64  # that rendering takes at its peak, features included
_BYTES_AT_REST = 400 << 20  # Python, torch
_EMBED_BATCH = 32
Video = TypeVar("Video", bound="OpenVideo")


@dataclass(frozen=True)
class Needs:
    """What decoding takes.

    Attributes:
        memory_bytes: at its peak, about.
        pixel_bytes: all the frames as uint8 RGB.
    """

    memory_bytes: int
    pixel_bytes: int


class OpenVideo(Sequence[np.ndarray]):
    """Frames of a container, decoded when asked for.

    >>> video = OpenVideo.at("kitchen.nerv")   # doctest: +SKIP
    >>> len(video), video[0].shape             # doctest: +SKIP
    (250, (272, 640, 3))

    Frames are named by whole numbers, negative ones from the end; several by a list, an array, or an array of as many
    booleans as there are frames. It can be pickled: what is unpickled opens the file again.

    Args:
        opened: a container.
        hardware: device and precision.

    Raises:
        ContainerError: its networks do not fit its video. Whatever decodes raises it too, where what it needs of the
            file is damaged or does not fit.
    """

    def __init__(self, opened: Container, hardware: Hardware):
        self.path, self.header, self.hardware = opened.path, opened.header, hardware
        self._absolute = os.path.abspath(opened.path)
        self._networks = Networks(opened, hardware)
        self._field, self._head = self._networks.field, self._networks.head
        self._starts = [s.first_frame for s in self.header.segments]
        self._times = opened.frame_times()

    @classmethod
    def at(cls: type[Video], path: str | os.PathLike[str], device: str = "auto", precision: str = "auto") -> Video:
        """Open a container.

        Args:
            path: a ``.nerv`` file.
            device: ``auto``, ``cuda`` or ``cpu``.
            precision: ``auto``, ``fp32`` or ``bf16``.

        Raises:
            ContainerError: no such file, not a container, or its header is damaged; the rest is read when it is used.
            ConfigError: the device is not there.
        """
        opened = Container.at(Path(path))
        try:
            return cls(opened, choose(device, precision))
        except NervError:
            opened.close()
            raise

    def close(self) -> None:
        """Let go of the file and the weights; what the header says stays."""
        self._networks.close()

    def __enter__(self: Video) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        self._networks.contents()
        return type(self).at, (self._absolute, self.hardware.device, self.hardware.precision)

    def __repr__(self) -> str:
        video = self.header.video
        facts = f"{len(self)} frames of {video.width}x{video.height}, {video.fps:.6g} a second"
        semantic = f"embeddings by {self.header.semantic.encoder}" if self.header.semantic else "no embeddings"
        state = "closed" if self._networks.closed else f"{facts}, {semantic}"
        return f"<{type(self).__name__} {str(self.path)!r}: {state}>"

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

    @overload  # type: ignore[override]  # of a sequence of arrays, a part is an array
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> np.ndarray: ...
    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """One frame ``(H, W, 3)``, or those of a slice, list, range or array ``(n, H, W, 3)``, uint8 RGB.

        Raises:
            IndexError: no such frame.
            TypeError: no whole numbers.
        """
        if isinstance(index, slice):
            index = range(len(self))[index]
        if not isinstance(index, (list, range)) and not getattr(index, "ndim", 0):
            return next(self.frames([position(index, len(self))]))
        frames = list(self.frames(cast("Iterable[int]", index)))
        video = self.header.video
        return np.stack(frames) if frames else np.empty((0, video.height, video.width, 3), np.uint8)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.frames()

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
            TypeError: no whole numbers.
            ConfigError: the scale is out of range.
        """
        chosen = self._chosen(numbers)
        return self._rendered(chosen, lambda segment: self._field(segment).render, scale)

    def needs(self, count: int, scale: float = 1.0) -> Needs:
        """What decoding ``count`` frames takes, from the header alone."""
        facts = self.header.video
        pixels = facts.width * facts.height
        shown = max(1, round(facts.width * scale)) * max(1, round(facts.height * scale))
        weights = 4 * OPEN_SEGMENTS * max(parameter_count(network_from_json(s.network)) for s in self.header.segments)
        frames = min(count, self._most_at_once) * _BYTES_PER_PIXEL * (pixels + (shown if scale != 1 else 0))
        return Needs(_BYTES_AT_REST + weights + frames, 3 * shown * count)

    @property
    def _most_at_once(self) -> int:
        """Frames rendered in one go."""
        return max(1, min(_FRAMES_IN_MEMORY, _PIXELS_IN_MEMORY // (self.header.video.width * self.header.video.height)))

    def at_constant_rate(self, frames: Iterable[np.ndarray], numbers: range | None = None) -> Iterator[np.ndarray]:
        """Repeat or drop frames of a variable rate so that they keep their times at :attr:`frame_rate`.

        Args:
            frames: in order, as :meth:`frames` gives them.
            numbers: which those are, one after the other; None for all.
        """
        if not self.header.video.variable_frame_rate:
            yield from frames
            return
        numbers = range(len(self)) if numbers is None else numbers
        rate = float(self.frame_rate)
        edges = [*self._times, self.header.video.duration_s]
        shown = 0
        for number, frame in zip(numbers, frames, strict=True):
            end = edges[number + 1] - edges[numbers[0]]
            # At least one, however short they are shown.
            while shown / rate < end - 0.5 / rate or (not shown and number == numbers[-1]):
                yield frame
                shown += 1

    def patch(self, frame: int, row: int, column: int) -> np.ndarray:
        """One patch ``(h, w, 3)`` uint8 RGB; the rest of the frame is not computed.

        Raises:
            IndexError: no such frame or patch.
        """
        return next(self.patches([position(frame, len(self))], row, column))

    def patches(self, numbers: Iterable[int] | None, row: int, column: int, scale: float = 1.0) -> Iterator[np.ndarray]:
        """The same patch of several frames, see :meth:`patch` and :meth:`frames`."""
        row, column = self.grid.place(row, column)

        def renderer(segment: int) -> Callable[[Tensor], Tensor]:
            field = self._field(segment)
            return lambda frames: field.render_patch(frames, row, column)

        return self._rendered(self._chosen(numbers), renderer, scale)

    def window_between(self, frame: int, row: float, column: float) -> np.ndarray:
        """A window of a patch's size at a position between patches, ``(h, w, 3)`` uint8 RGB.

        Args:
            frame: its number.
            row, column: position in the patch grid, see ``PatchGrid.box_between``.

        Raises:
            IndexError: no such frame, or the window does not lie within it.
        """
        self.grid.box_between(row, column)

        def renderer(segment: int) -> Callable[[Tensor], Tensor]:
            field = self._field(segment)
            return lambda frames: field.render_between(frames, row, column)

        return next(self._rendered(self._chosen([position(frame, len(self))]), renderer, 1.0))

    # ------------------------------------------------------------------ sound

    def sound(self, start_s: float = 0.0, duration_s: float | None = None) -> Sound | None:
        """The source's audio packets, or those of a range; None where the container has none."""
        data = self._networks.contents().audio()
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
        dimension = self.require_embeddings().dimension
        rows = [np.empty((0, self.grid.rows * self.grid.columns, dimension), np.float32)]
        with torch.inference_mode(), self.hardware.autocast():
            for segment, local in self._runs(self._chosen(numbers), _EMBED_BATCH):
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

    # ------------------------------------------------------------------ inside

    def _chosen(self, numbers: Iterable[int] | None) -> Sequence[int]:
        """Frames asked for, from 0; None stands for all."""
        self._networks.contents()
        return range(len(self)) if numbers is None else positions(numbers, len(self))

    def _runs(self, numbers: Iterable[int], longest: int | None = None) -> Iterator[tuple[int, list[int]]]:
        """Group frame numbers, in order, by segment: (segment, frames counted from its first)."""
        longest = longest or self._most_at_once
        segment, run = -1, list[int]()
        for number in numbers:
            at = bisect.bisect_right(self._starts, number) - 1
            if run and (at != segment or len(run) == longest):
                yield segment, run
                run = []
            segment = at
            run.append(number - self._starts[at])
        if run:
            yield segment, run

    def _rendered(
        self, numbers: Sequence[int], renderer: Callable[[int], Callable[[Tensor], Tensor]], scale: float
    ) -> Iterator[np.ndarray]:
        """Frames, or parts of them, one after the other; ``renderer`` gives what renders those of a segment."""
        if not 0 < scale <= 16:
            raise ConfigError(f"a scale of {scale:g} is out of range (above 0, at most 16)")
        runs = self._runs(numbers)
        return (image for segment, local in runs for image in self._render(renderer(segment), local, scale))

    def _render(self, render: Callable[[Tensor], Tensor], local: list[int], scale: float) -> np.ndarray:
        """``(n, h, w, 3)`` uint8."""
        with torch.inference_mode(), self.hardware.autocast():
            images = render(torch.tensor(local))
            if scale != 1.0:
                images = _resized(images, scale)
            return images.clamp_(0, 1).mul_(255).round_().to(torch.uint8).cpu().numpy()

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
