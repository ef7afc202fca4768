# SPDX-License-Identifier: MIT
"""A cache of decoded frames of base layers, for random access.

Decoding a frame begins at the key frame before it. All frames decoded on the way are cached, as far as there is room,
and the decoder is kept for a later frame.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nervcodec.base.streams import Run, streams_of
from nervcodec.coordinates import Patch
from nervcodec.decoding.video import NervVideo
from nervcodec.errors import prefix_path
from nervcodec.formats.container import Container
from nervcodec.media.planes import Planes

_DECODERS = 3  # of a file that stand still at once


class Room:
    """Keeps the frames that were used last, of several files. Several threads may use it.

    Args:
        limit_bytes: of the frames.
    """

    def __init__(self, limit_bytes: int):
        self.limit_bytes, self._used = limit_bytes, 0
        self._lock = threading.RLock()  # a file may be let go of, by the garbage collector, while it is held
        self._kept: OrderedDict[tuple[object, int], tuple[Planes, float]] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        """Of the frames that are kept now."""
        return self._used

    def get(self, owner: object, number: int) -> Planes | None:
        """A frame, or None where it is not kept."""
        with self._lock:
            found = self._kept.pop((owner, number), None)
            if found is None:
                return None
            self._kept[owner, number] = found[0], time.monotonic()
            return found[0]

    def put(self, owner: object, number: int, planes: Planes) -> None:
        """Keep a frame."""
        with self._lock:
            self._remove((owner, number))
            self._kept[owner, number] = planes, time.monotonic()
            self._used += _size(planes)
            while self._used > self.limit_bytes:
                self._remove(next(iter(self._kept)))

    def forget(self, idle_s: float) -> None:
        """Let go of frames that were not used for so long."""
        with self._lock:
            now = time.monotonic()
            while self._kept and now - next(iter(self._kept.values()))[1] >= idle_s:
                self._remove(next(iter(self._kept)))

    def drop(self, owner: object) -> None:
        """Let go of all frames of a file."""
        with self._lock:
            for key in [key for key in self._kept if key[0] is owner]:
                self._remove(key)

    def _remove(self, key: tuple[object, int]) -> None:
        found = self._kept.pop(key, None)
        self._used -= 0 if found is None else _size(found[0])


def _size(planes: Planes) -> int:
    return sum(plane.nbytes for plane in planes)


@dataclass(eq=False)
class _Decoder:
    """One that stands still.

    Attributes:
        next: number of the frame that it gives next.
        end: of the one after its last.
        frames: that it gives.
        used: when it was used last, by the clock of ``time.monotonic``.
    """

    next: int
    end: int
    frames: Generator[Planes, None, None]
    used: float = 0.0


class _Standing:
    """The decoders of a file that stand still."""

    def __init__(self) -> None:
        self._lock, self._is_closed = threading.Lock(), False
        self._decoders: list[_Decoder] = []

    def take(self, run: Run, number: int) -> _Decoder | None:
        """The decoder with the least to do on its way to a frame; None where a new one has no more to do."""
        with self._lock:
            nearest = max(self._on_the_way(run, number), key=lambda each: each.next, default=None)
            if nearest is not None:
                self._decoders.remove(nearest)
            return nearest

    def _on_the_way(self, run: Run, number: int) -> list[_Decoder]:
        return [each for each in self._decoders if run.first <= each.next <= number < each.end]

    def park(self, decoder: _Decoder) -> None:
        """Let a decoder stand still; the one that did so for the longest has to end where there are too many."""
        decoder.used = time.monotonic()
        with self._lock:
            self._decoders.append(decoder)
            done = [each for each in self._decoders if each.next == each.end or self._is_closed]
            done += [each for each in self._decoders if each not in done][:-_DECODERS]
            self._decoders = [each for each in self._decoders if each not in done]
        for each in done:
            each.frames.close()

    def rest(self, idle_s: float) -> None:
        """End those that were not used for so long."""
        now = time.monotonic()
        with self._lock:
            done = [each for each in self._decoders if now - each.used >= idle_s]
            self._decoders = [each for each in self._decoders if each not in done]
        for each in done:
            each.frames.close()

    def close(self) -> None:
        """End them all, and those that come."""
        self._is_closed = True
        self.rest(0.0)


class KeptLayer:
    """The base layer of a file, as :class:`BaseReader` reads it. Several threads may ask.

    Args:
        opened: a container with a base layer.
        room: for its frames.
    """

    def __init__(self, opened: Container, room: Room):
        self._opened, self._room = opened, room
        self._streams = streams_of(opened)
        self._owner = object()  # of its frames in the room
        weakref.finalize(self, room.drop, self._owner)
        self._standing, self._lock = _Standing(), threading.Lock()
        self._walks: dict[int, threading.Lock] = {}  # by the run's first frame, held while somebody decodes there

    def frame(self, number: int) -> Planes:
        """A frame of the file: the one that is kept, or decoded with those on the way to it.

        Raises:
            ContainerError: the stream is damaged, or not what the header says.
        """
        found = self._walk(number, lambda: True)
        assert found is not None
        return found

    def run_of(self, frame: int) -> int:
        """The frame from which on a decoder has to begin for this one."""
        return self._streams.run(frame).first

    def ahead(self, frame: int, goes_on: Callable[[], bool]) -> None:
        """Decode what is around a frame, from where a decoder can begin and as far as half of the room, and keep it.

        Args:
            frame: number in the file.
            goes_on: is asked before each one that is decoded.
        """
        half = self._room.limit_bytes // 2 // max(1, _size(self.frame(frame)))
        run = self._streams.run(frame)
        end = max(frame + half, min(run.end, run.first + 2 * half))
        for number in range(run.first, min(self._opened.header.video.frame_count, end)):
            if self._walk(number, goes_on) is None:
                return

    def rest(self, idle_s: float) -> None:
        """End decoders that were not used for so long."""
        self._standing.rest(idle_s)

    def close(self) -> None:
        """End all decoders and let go of all frames; what is still asked for is decoded, and not kept."""
        self._standing.close()
        self._room.drop(self._owner)

    def _walk(self, number: int, goes_on: Callable[[], bool]) -> Planes | None:
        """See :meth:`frame`; None where it does not go on to its end."""
        found = self._room.get(self._owner, number)
        if found is not None:
            return found
        run = self._streams.run(number)
        with self._lock:
            walk = self._walks.setdefault(run.first, threading.Lock())
        with walk:  # whoever waits here finds the frame, mostly
            found = self._room.get(self._owner, number)
            return found if found is not None else self._decoded(number, run, goes_on)

    def _decoded(self, number: int, run: Run, goes_on: Callable[[], bool]) -> Planes | None:
        decoder = self._standing.take(run, number) or _Decoder(run.first, run.end, self._streams.decode(run))
        planes = None
        try:
            with prefix_path(self._opened.path):
                while decoder.next <= number and goes_on():
                    planes = next(decoder.frames)
                    self._room.put(self._owner, decoder.next, planes)
                    decoder.next += 1
        except BaseException:
            decoder.frames.close()
            raise
        reached = decoder.next > number
        self._standing.park(decoder)
        return planes if reached else None


class KeptVideo(NervVideo):
    """An open video for who asks for frames in any order, again and again; it keeps those of a base layer."""

    _layer: KeptLayer | None = None

    def keep(self, room: Room) -> None:
        """Begin to keep frames.

        Args:
            room: for them.
        """
        if self.header.base is not None:
            self._layer = KeptLayer(self._networks.contents(), room)

    def _from_base(
        self, numbers: Sequence[int], windows: tuple[Patch, ...], scale: float, tone_map: bool
    ) -> Iterator[np.ndarray]:
        if self._layer is None:
            return super()._from_base(numbers, windows, scale, tone_map)
        return self._converted(self._layer.frame, numbers, windows, scale, tone_map)

    def run_of(self, frame: int) -> int | None:
        """The frame from which on a decoder has to begin for this one; None where there is none, or no base layer."""
        return None if self._layer is None or frame >= len(self) else self._layer.run_of(frame)

    def ahead(self, frame: int, goes_on: Callable[[], bool]) -> None:
        """Decode what is around a frame in the base layer, where there is one; see :meth:`KeptLayer.ahead`."""
        if self._layer is not None:
            self._layer.ahead(frame, goes_on)

    def rest(self, idle_s: float) -> None:
        """End decoders that were not used for so long."""
        if self._layer is not None:
            self._layer.rest(idle_s)

    def close(self) -> None:
        """Let go of the file, its weights, decoders and frames."""
        if self._layer is not None:
            self._layer.close()
        super().close()
