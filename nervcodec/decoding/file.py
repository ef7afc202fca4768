# SPDX-License-Identifier: MIT
"""An open container without its pixels: what it says of itself, its sound, its networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nervcodec.coordinates import PatchGrid, position, positions
from nervcodec.decoding.networks import Networks
from nervcodec.decoding.pool import SHARED, Pool
from nervcodec.device import Hardware, chosen_later
from nervcodec.errors import NervError
from nervcodec.formats.container import Container
from nervcodec.formats.header import Header
from nervcodec.formats.text import counted

if TYPE_CHECKING:
    from nervcodec.media.sound import Sound
    from nervcodec.network.field import Field

File = TypeVar("File", bound="OpenFile")


class OpenFile:
    """A container that was opened. Several threads may use it at once. It can be pickled: what is unpickled opens the
    file again.

    Args:
        opened: a container.
        hardware: gives device and precision; it is asked when a network is first used.
        pool: keeps its networks; by default the one that all open files share.

    Attributes:
        path, header: the file and what it says of itself.

    Raises:
        ContainerError: its networks do not fit its video. Whatever decodes raises it too, where what it needs of the
            file is damaged or does not fit.
    """

    header: Header

    def __init__(self, opened: Container, hardware: Callable[[], Hardware], pool: Pool = SHARED):
        self.path, self.header = opened.path, opened.header
        self._absolute = os.path.abspath(opened.path)
        self._networks = Networks(opened, hardware, pool)
        self._starts = [s.first_frame for s in self.header.segments]
        self._times = opened.frame_times()

    @classmethod
    def at(
        cls: type[File],
        path: str | os.PathLike[str],
        device: str = "auto",
        precision: str = "auto",
        pool: Pool = SHARED,
    ) -> File:
        """Open a container.

        Args:
            path: a ``.nerv`` file.
            device: ``auto``, ``cuda`` or ``cpu``.
            precision: ``auto``, ``fp32`` or ``bf16``.
            pool: keeps its networks; by default the one that all open files share.

        Raises:
            ContainerError: no such file, not a container, or its header is damaged; the rest is read when it is used.
            ConfigError: the device is not there.
        """
        opened = Container.at(Path(path))
        try:
            return cls(opened, chosen_later(device, precision), pool)
        except NervError:
            opened.close()
            raise

    def close(self) -> None:
        """Let go of the file and the weights; what the header says stays."""
        self._networks.close()

    def __enter__(self: File) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        self._networks.contents()
        return type(self).at, (self._absolute, self.hardware.device, self.hardware.precision)

    def __repr__(self) -> str:
        video = self.header.video
        facts = f"{counted(video.frame_count, 'frame')} of {video.width}x{video.height}, {video.fps:.6g} a second"
        semantic = f"embeddings by {self.header.semantic.encoder}" if self.header.semantic else "no embeddings"
        state = "closed" if self._networks.closed else f"{facts}, {semantic}"
        return f"<{type(self).__name__} {str(self.path)!r}: {state}>"

    @property
    def hardware(self) -> Hardware:
        """Device and precision of its networks; ``auto`` is resolved when this is first asked."""
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
        """``(frames,)`` float64, when each frame begins to show."""
        return self._times

    def network(self, segment: int) -> Field:
        """The network of a segment, its weights as they are stored, on the hardware's device.

        Raises:
            IndexError: no such segment.
            ContainerError: it is damaged, or the file was closed.
        """
        return self._networks.field(position(segment, len(self.header.segments), "segment"))

    def sound(self, start_s: float = 0.0, duration_s: float | None = None) -> Sound | None:
        """The source's audio packets, or those of a range; None where the container has none."""
        from nervcodec.media.sound import Sound

        data, first_s = self._networks.contents().audio(), self.header.video.first_frame_s
        is_whole = not start_s and duration_s is None
        return None if data is None else Sound(data, first_s + start_s, duration_s, is_whole=is_whole)

    def _chosen(self, numbers: Iterable[int] | None) -> Sequence[int]:
        """Frames asked for, from 0; None stands for all."""
        self._networks.contents()
        count = self.header.video.frame_count
        return range(count) if numbers is None else positions(numbers, count)
