# SPDX-License-Identifier: MIT
"""The open video: a ``.nerv`` file as a sequence of frames and of embeddings, each decoded on access."""

from __future__ import annotations

import bisect
import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import numpy as np

from nervcodec import colour, tone_mapping
from nervcodec.base.streams import streams_of
from nervcodec.coordinates import Patch, PatchGrid, position, positions
from nervcodec.decoding.base_reader import BaseReader
from nervcodec.decoding.networks import SHARED_CACHE, NetworkCache, Networks, batch_size
from nervcodec.device import Hardware, choose_later
from nervcodec.errors import ConfigError, NervError
from nervcodec.formats.container import Container
from nervcodec.formats.header import HDR, SemanticHeader
from nervcodec.formats.text import count_noun
from nervcodec.media.planes import Planes
from nervcodec.network.stored import EmbeddingParts, require_embeddings

if TYPE_CHECKING:
    from nervcodec.media.audio import Sound
    from nervcodec.media.planes import Light
    from nervcodec.network.field import Field
    from nervcodec.search.moments import Moment
    from nervcodec.semantic.encoder import SemanticEncoder

Frame = TypeVar("Frame")
Video = TypeVar("Video", bound="NervVideo")

LARGEST_SCALE = 16
_BYTES_PER_PIXEL = 64  # peak memory of rendering, features included
_BYTES_AT_REST = 400 << 20  # Python and torch


@dataclass(frozen=True)
class ResourceEstimate:
    """Resources that decoding takes.

    Attributes:
        memory_bytes: approximate peak.
        pixel_bytes: of all frames as uint8 RGB.
    """

    memory_bytes: int
    pixel_bytes: int


class NervVideo(Sequence[np.ndarray]):
    """An open ``.nerv`` file. Thread-safe and picklable: unpickling opens the file again.

    >>> video = nervcodec.open("kitchen.nerv")   # doctest: +SKIP
    >>> len(video), video[0].shape               # doctest: +SKIP
    (250, (272, 640, 3))
    >>> video.search("sink")[0].start_s          # doctest: +SKIP

    A frame is indexed by an integer, negative ones from the end; several by a list, an array of integers, or a boolean
    mask with an entry for each frame.

    Args:
        opened: a container.
        hardware: returns device and precision; called when a network is first used.
        cache: holds its networks; by default the one that all open files share.

    Attributes:
        path, header: the file and its header.

    Raises:
        ContainerError: its networks do not fit its video. Every method that decodes raises it too, where the data it
            needs is damaged or does not fit.
    """

    def __init__(self, opened: Container, hardware: Callable[[], Hardware], cache: NetworkCache = SHARED_CACHE):
        self.path, self.header = opened.path, opened.header
        self._absolute = os.path.abspath(opened.path)
        self._networks = Networks(opened, hardware, cache)
        self._starts = [s.first_frame for s in self.header.segments]
        self._times = opened.frame_times()

    @classmethod
    def open(
        cls: type[Video],
        path: str | os.PathLike[str],
        device: str = "auto",
        precision: str = "auto",
        cache: NetworkCache = SHARED_CACHE,
    ) -> Video:
        """Open a container.

        Args:
            path: a ``.nerv`` file.
            device: ``auto``, ``cuda`` or ``cpu``.
            precision: ``auto``, ``fp32`` or ``bf16``.
            cache: holds its networks; by default the one that all open files share.

        Raises:
            ContainerError: no such file, not a container, or its header is damaged. The rest is read on access.
            ConfigError: the device does not exist.
        """
        opened = Container.open(Path(path))
        try:
            return cls(opened, choose_later(device, precision), cache)
        except NervError:
            opened.close()
            raise

    def close(self) -> None:
        """Release the file and the weights; the header stays."""
        self._networks.close()

    def __enter__(self: Video) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        self._networks.require_open()
        return type(self).open, (self._absolute, self.hardware.device, self.hardware.precision)

    def __repr__(self) -> str:
        video = self.header.video
        frames = f"{count_noun(video.frame_count, 'frame')} of {video.width}x{video.height}, {video.fps:.6g} a second"
        semantic = f"embeddings by {self.header.semantic.encoder}" if self.header.semantic else "no embeddings"
        state = "closed" if self._networks.closed else f"{frames}, {semantic}"
        return f"<{type(self).__name__} {str(self.path)!r}: {state}>"

    # ------------------------------------------------------------------ properties

    @property
    def hardware(self) -> Hardware:
        """Device and precision of its networks; ``auto`` is resolved on first access."""
        return self._networks.hardware

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
        """``(frames,)`` float64, presentation time of each frame."""
        return self._times

    @property
    def hdr(self) -> str | None:
        """``PQ`` or ``HLG`` where the base layer is in HDR; None where it is not or there is none."""
        base = self.header.base
        return None if base is None else HDR.get(base.planes.transfer)

    # ------------------------------------------------------------------ frames

    def __len__(self) -> int:
        return self.header.video.frame_count

    @overload  # type: ignore[override]  # a slice of this sequence is an array
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> np.ndarray: ...
    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """One frame ``(H, W, 3)``, or those of a slice, list, range or array ``(n, H, W, 3)``, uint8 RGB.

        Raises:
            IndexError: no such frame.
            TypeError: not integers.
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
        """The frame shown at a time, ``(H, W, 3)`` uint8 RGB.

        Raises:
            IndexError: before the start or after the end.
        """
        if not 0 <= seconds < self.header.video.duration_s:
            raise IndexError(f"{seconds:g} s is outside the video, which ends at {self.header.video.duration_s:g} s")
        return self[bisect.bisect_right(self._times, seconds + 1e-6) - 1]

    def frames(
        self, numbers: Iterable[int] | None = None, scale: float = 1.0, tone_map: bool = False
    ) -> Iterator[np.ndarray]:
        """Decode frames one after the other; nothing else is decoded.

        Args:
            numbers: frame numbers in any order; None for all.
            scale: factor on width and height, above 0 and at most 16.
            tone_map: convert to BT.709 where :attr:`hdr` is not None. Without it, as everywhere else, RGB of HDR is
                that of its source: its PQ or HLG values in 8 bits.

        Yields:
            ``(H, W, 3)`` uint8 RGB.

        Raises:
            IndexError: no such frame.
            TypeError: not integers.
            ConfigError: the scale is out of range.
        """
        return self._rendered(self._checked(numbers), (), scale, tone_map)

    def patch(self, frame: int, row: int, column: int) -> np.ndarray:
        """One patch ``(h, w, 3)`` uint8 RGB; the rest of the frame is not computed.

        Raises:
            IndexError: no such frame or patch.
        """
        return next(self.patches([position(frame, len(self))], row, column))

    def patches(
        self, numbers: Iterable[int] | None, row: int, column: int, scale: float = 1.0, tone_map: bool = False
    ) -> Iterator[np.ndarray]:
        """The same patch of several frames, see :meth:`patch` and :meth:`frames`."""
        window = self.grid.patch(*self.grid.resolve(row, column))
        return self._rendered(self._checked(numbers), (window,), scale, tone_map)

    def at_constant_rate(self, frames: Iterable[Frame], numbers: range | None = None) -> Iterator[Frame]:
        """Resample frames of a variable rate to the constant :attr:`frame_rate`.

        Args:
            frames: in order, as :meth:`frames` or :meth:`planes` yields them.
            numbers: their consecutive frame numbers; None for all.
        """
        if not self.header.video.variable_frame_rate:
            yield from frames
            return
        numbers = range(len(self)) if numbers is None else numbers
        ends_s, rate = [*self._times[1:], self.header.video.duration_s], float(self.frame_rate)
        count = 0
        for number, frame in zip(numbers, frames, strict=True):
            end_s = ends_s[number] - self._times[numbers[0]]
            # At least one frame, however short its duration.
            while count / rate < end_s - 0.5 / rate or (not count and number == numbers[-1]):
                yield frame
                count += 1

    def needs(self, count: int, scale: float = 1.0) -> ResourceEstimate:
        """Resources that decoding ``count`` frames takes, from the header alone."""
        video = self.header.video
        pixels = video.width * video.height
        output = max(1, round(video.width * scale)) * max(1, round(video.height * scale))
        frames = batch_size(self.header, "cuda") * _BYTES_PER_PIXEL * (pixels + (output if scale != 1 else 0))
        return ResourceEstimate(_BYTES_AT_REST + self._networks.cached_bytes + frames, 3 * output * count)

    def network(self, segment: int) -> Field:
        """The network of a segment with its stored weights, on the hardware's device.

        Raises:
            IndexError: no such segment.
            ContainerError: it is damaged, or the file was closed.
        """
        return self._networks.field(position(segment, len(self.header.segments), "segment"))

    def _checked(self, numbers: Iterable[int] | None) -> Sequence[int]:
        """Valid frame numbers from 0; None stands for all."""
        self._networks.require_open()
        count = self.header.video.frame_count
        return range(count) if numbers is None else positions(numbers, count)

    def _rendered(
        self, numbers: Sequence[int], windows: tuple[Patch, ...], scale: float, tone_map: bool
    ) -> Iterator[np.ndarray]:
        """Frames, or one window of each, one after the other."""
        if not 0 < scale <= LARGEST_SCALE:
            raise ConfigError(f"a scale of {scale:g} is out of range (above 0, at most {LARGEST_SCALE})")
        if self.header.base is not None:
            return self._from_base(numbers, windows, scale, tone_map and self.hdr is not None)
        from nervcodec.decoding.rendering import render_frames

        return render_frames(self._networks, numbers, self._starts, windows, scale)

    # ------------------------------------------------------------------ base layer and sound

    def planes(self, numbers: Iterable[int] | None = None) -> Generator[Planes, None, None]:
        """Samples of frames of the base layer, which must exist: arrays of length 1, see :meth:`frames`."""
        checked = self._checked(numbers)
        with contextlib.closing(BaseReader(self._networks.container)) as reader:
            for number in checked:
                self._networks.check(bisect.bisect_right(self._starts, number) - 1)
                yield reader.frame(number)

    def light(self) -> Light | None:
        """Light levels of the base layer, which must exist, from the metadata of its first frame, or None."""
        return streams_of(self._networks.container).light()

    @cached_property
    def _peak(self) -> float:
        return tone_mapping.peak_of(self.light())

    def _from_base(
        self, numbers: Sequence[int], windows: tuple[Patch, ...], scale: float, tone_map: bool
    ) -> Iterator[np.ndarray]:
        """RGB of frames of a base layer, whose decoder runs until the iterator is closed."""
        assert self.header.base is not None
        form = self.header.base.planes
        window = next((colour.Window(w.y, w.x, w.height, w.width) for w in windows), None)
        with contextlib.closing(self.planes(numbers)) as decoded:
            for planes in decoded:
                if scale != 1.0:
                    from nervcodec.decoding.rendering import resize_frame

                    rgb = colour.to_rgb(planes, form, window)
                    rgb = tone_mapping.to_sdr(rgb, form, self._peak) if tone_map else rgb
                    yield resize_frame(rgb, scale, self.hardware.device)
                elif tone_map:
                    yield tone_mapping.to_screen8(planes, form, window, self._peak)[0]
                else:
                    yield colour.to_rgb8(planes, form, window)[0]

    def sound(self, start_s: float = 0.0, duration_s: float | None = None) -> Sound | None:
        """The source's audio packets, or those of a range; None where the container has none."""
        from nervcodec.media.audio import Sound

        data, first_s = self._networks.container.audio(), self.header.video.first_frame_s
        is_whole = not start_s and duration_s is None
        return None if data is None else Sound(data, first_s + start_s, duration_s, is_whole=is_whole)

    def write_base(self, path: str | os.PathLike[str], audio: bool = True, force: bool = False) -> int:
        """Write the base layer as a video that plays anywhere, without re-encoding; returns the number of frames.

        Args:
            path: ends in ``.mp4``, ``.mkv`` or ``.webm``.
            audio: include the container's audio, re-encoded where the format does not hold its codec.
            force: overwrite an existing file.

        Raises:
            ContainerError: the container has no base layer, or it is damaged.
            ConfigError: the file exists, or its folder does not.
            VideoError: another extension, or the file cannot be written.
        """
        from nervcodec.base.export import require_base, write_base
        from nervcodec.outputs import require_free

        target, opened = Path(path), self._networks.container
        require_base(opened)
        require_free(target, force)
        sound = self.sound() if audio else None
        return write_base(opened, target, sound.fitting(target.suffix) if sound else None)

    # ------------------------------------------------------------------ embeddings and search

    def require_embeddings(self) -> SemanticHeader:
        """Encoder and size of the embeddings.

        Raises:
            ContainerError: the container has none.
        """
        return require_embeddings(self.path, self.header)

    def embedded_frames(self, segment: int) -> tuple[int, ...]:
        """Frames of a segment, counted from its first, whose embeddings were fitted."""
        checked = self.header.segments[position(segment, len(self.header.segments), "segment")]
        return self._networks.container.embedded_frames(checked)

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
        empty = np.empty((0, self.grid.rows * self.grid.columns, dimension), np.float32)
        checked = self._checked(numbers)
        from nervcodec.decoding.rendering import compute_embeddings

        return np.concatenate([empty, *compute_embeddings(self._networks, checked, self._starts)])

    def embedding_parts(self) -> Iterator[EmbeddingParts]:
        """Coefficients, basis and mean of all embeddings, segment by segment.

        Raises:
            ContainerError: the container has none.
        """
        self.require_embeddings()
        from nervcodec.decoding.rendering import embedding_parts

        return embedding_parts(self._networks)

    def search(
        self, query: str, k: int = 10, encoder: SemanticEncoder | None = None, cut_off: bool = True
    ) -> list[Moment]:
        """Moments that match a text, best first; an empty list where nothing matches.

        Args:
            query: what to look for.
            k: the largest number of results.
            encoder: a loaded instance of the container's encoder; None loads it.
            cut_off: leave out moments below the threshold of a match (see ``nervcodec.search.query``).

        Raises:
            ContainerError: the container has no embeddings, or not of this encoder.
            EncoderError: its encoder cannot be loaded here.
            ConfigError: the query is not a text or empty, or ``k`` is not an integer of at least 1.
        """
        from nervcodec.search.moments import find_moments
        from nervcodec.search.query import Query, QueryEncoder, Term
        from nervcodec.search.scores import VideoEmbeddings
        from nervcodec.settings import check_type

        encode = QueryEncoder(Query((Term(check_type("query", str, query)),)), cut_off=cut_off, encoder=encoder)
        if check_type("k", int, k) < 1:
            raise ConfigError("k must be 1 or more")
        return find_moments([VideoEmbeddings.from_video(self)], encode, int(k))
