# SPDX-License-Identifier: MIT
"""The base layer of a container as a video file, not coded again. No network is needed for it, and no torch."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from nervcodec.base import mux
from nervcodec.errors import ContainerError, named
from nervcodec.formats.container import Container
from nervcodec.formats.header import BASE, BaseFacts
from nervcodec.formats.kinds import COPY
from nervcodec.video.sound import Sound


def require_base(opened: Container) -> BaseFacts:
    """What the header says of the base layer.

    Raises:
        ContainerError: there is none.
    """
    if opened.header.base is None:
        raise ContainerError(f"{opened.path}: has no base layer (it was encoded without --base)")
    return opened.header.base


def sound_of(opened: Container) -> Sound | None:
    """The source's audio packets as they lie beside the frames; None where the container has none.

    Raises:
        ContainerError: they are damaged.
    """
    data = opened.audio()
    return None if data is None else Sound(data, opened.header.video.first_frame_s, is_whole=True)


def write_base(opened: Container, path: Path, sound: Sound | None = None) -> int:
    """Write the base layer as a video, beside its target and renamed; returns the number of frames.

    Args:
        opened: a container with a base layer.
        path: one of :data:`nervcodec.base.mux.SUFFIXES`; see :func:`nervcodec.base.mux.write` for what each holds.
        sound: what :func:`sound_of` gives, made to fit (:meth:`Sound.fitting`); None for silence.

    Raises:
        ContainerError: there is no base layer, or it is damaged.
        VideoError: the format is none of these, or the place cannot be written.
    """
    base, video = require_base(opened), opened.header.video
    if base.kind == COPY:
        return _write_copied(opened, base, path, sound)
    times, last_s = None, None
    if video.variable_frame_rate:
        times = growing(opened.frame_times(), mux.TICKS_S).tolist()
        last_s = video.duration_s - times[-1]
    aspect = Fraction(*video.sample_aspect_ratio)
    showing = mux.Showing(video.width, video.height, Fraction(*video.frame_rate), times, aspect, last_s)
    streams = [opened.base_stream(segment).data for segment in opened.header.segments]
    with named(opened.path):
        return mux.write(path, streams, showing, sound)


def _write_copied(opened: Container, base: BaseFacts, path: Path, sound: Sound | None) -> int:
    with named(opened.path):
        mux.write_copied(path, lambda: opened.pieces(BASE, (0, None)), base.skipped, sound)
    return opened.header.video.frame_count


def growing(times_s: np.ndarray, ticks_s: int) -> np.ndarray:
    """Times of which some may be equal, each at least a tick after the one before.

    Args:
        times_s: ``(n,)`` seconds that do not fall.
        ticks_s: a second has so many.
    """
    earliest = np.arange(len(times_s)) / ticks_s
    return np.maximum.accumulate(times_s - earliest) + earliest
