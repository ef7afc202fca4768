# SPDX-License-Identifier: MIT
"""The open video: a sequence of frames, decoded when asked for."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, cast, overload

import numpy as np

from nervcodec import colour, tone_mapping
from nervcodec.base.streams import streams_of
from nervcodec.coordinates import Window, position
from nervcodec.decoding.embedded import EmbeddedFile
from nervcodec.decoding.layer import BaseCursor, Cursor
from nervcodec.decoding.needs import Needs, needs, require_scale
from nervcodec.formats.header import HDR
from nervcodec.media.planes import Planes

if TYPE_CHECKING:
    from nervcodec.media.light import Light

Frame = TypeVar("Frame")


class OpenVideo(EmbeddedFile, Sequence[np.ndarray]):
    """Frames of a container.

    >>> video = OpenVideo.at("kitchen.nerv")   # doctest: +SKIP
    >>> len(video), video[0].shape             # doctest: +SKIP
    (250, (272, 640, 3))

    Frames are named by whole numbers, negative ones from the end; several by a list, an array, or an array of as many
    booleans as there are frames.
    """

    def __len__(self) -> int:
        return self.header.video.frame_count

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

    def frames(
        self, numbers: Iterable[int] | None = None, scale: float = 1.0, tone_map: bool = False
    ) -> Iterator[np.ndarray]:
        """Decode frames one after the other; nothing else is decoded.

        Args:
            numbers: frame numbers in any order; None for all.
            scale: factor on width and height, above 0 and at most 16.
            tone_map: give BT.709 where :attr:`hdr` is not None. Without it, as everywhere else, RGB of HDR is that of
                its source: its PQ or HLG values in 8 bits.

        Yields:
            ``(H, W, 3)`` uint8 RGB.

        Raises:
            IndexError: no such frame.
            TypeError: no whole numbers.
            ConfigError: the scale is out of range.
        """
        return self._rendered(self._chosen(numbers), (), scale, tone_map)

    def planes(self, numbers: Iterable[int] | None = None) -> Iterator[Planes]:
        """Frames of the base layer, which must be there, as its samples: arrays of length 1, see :meth:`frames`."""
        chosen = self._chosen(numbers)
        with contextlib.closing(BaseCursor(self._networks.contents())) as cursor:
            for number in chosen:
                self._networks.check(bisect.bisect_right(self._starts, number) - 1)
                yield cursor.frame(number)

    @property
    def hdr(self) -> str | None:
        """``PQ`` or ``HLG`` where the base layer is in HDR; None where it is not or there is none."""
        base = self.header.base
        return None if base is None else HDR.get(base.planes.transfer)

    def light(self) -> Light | None:
        """How bright the base layer, which must be there, is, as its first frame states it; None for not stated."""
        return streams_of(self._networks.contents()).light()

    @cached_property
    def _peak(self) -> float:
        return tone_mapping.peak_of(self.light())

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
        window = self.grid.window(*self.grid.place(row, column))
        return self._rendered(self._chosen(numbers), (window,), scale, tone_map)

    def _rendered(
        self, numbers: Sequence[int], windows: tuple[Window, ...], scale: float, tone_map: bool
    ) -> Iterator[np.ndarray]:
        """Frames, or a window of them, one after the other."""
        require_scale(scale)
        if self.header.base is not None:
            return self._from_base(numbers, windows, scale, tone_map and self.hdr is not None)
        from nervcodec.decoding.pixels import frames

        return frames(self._networks, numbers, self._starts, windows, scale)

    def _from_base(
        self, numbers: Sequence[int], windows: tuple[Window, ...], scale: float, tone_map: bool
    ) -> Iterator[np.ndarray]:
        """Frames of a base layer, whose decoder runs as long as frames are taken from it."""
        with contextlib.closing(BaseCursor(self._networks.contents())) as cursor:
            yield from self._converted(cursor, numbers, windows, scale, tone_map)

    def _converted(
        self, cursor: Cursor, numbers: Sequence[int], windows: tuple[Window, ...], scale: float, tone_map: bool
    ) -> Iterator[np.ndarray]:
        """The same from a cursor."""
        assert self.header.base is not None
        form = self.header.base.planes
        window = next((colour.Window(w.y, w.x, w.height, w.width) for w in windows), None)
        for number in numbers:
            self._networks.check(bisect.bisect_right(self._starts, number) - 1)
            planes = cursor.frame(number)
            if scale == 1.0:
                if tone_map:
                    yield tone_mapping.to_screen8(planes, form, window, self._peak)[0]
                else:
                    yield colour.to_rgb8(planes, form, window)[0]
            else:
                from nervcodec.decoding.pixels import scaled

                rgb = colour.to_rgb(planes, form, window)
                yield scaled(
                    tone_mapping.to_sdr(rgb, form, self._peak) if tone_map else rgb, scale, self.hardware.device
                )

    def needs(self, count: int, scale: float = 1.0) -> Needs:
        """What decoding ``count`` frames takes, from the header alone."""
        return needs(self.header, count, scale, self._networks.kept_bytes)

    def at_constant_rate(self, frames: Iterable[Frame], numbers: range | None = None) -> Iterator[Frame]:
        """Repeat or drop frames of a variable rate so that they keep their times at :attr:`frame_rate`.

        Args:
            frames: in order, as :meth:`frames` or :meth:`planes` gives them.
            numbers: which those are, one after the other; None for all.
        """
        if not self.header.video.variable_frame_rate:
            yield from frames
            return
        numbers = range(len(self)) if numbers is None else numbers
        ends_s, rate = [*self._times[1:], self.header.video.duration_s], float(self.frame_rate)
        shown = 0
        for number, frame in zip(numbers, frames, strict=True):
            end_s = ends_s[number] - self._times[numbers[0]]
            # At least one, however short they are shown.
            while shown / rate < end_s - 0.5 / rate or (not shown and number == numbers[-1]):
                yield frame
                shown += 1
