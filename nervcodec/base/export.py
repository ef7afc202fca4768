# SPDX-License-Identifier: MIT
"""The base layer of a container as a video file, without re-encoding, a network or torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from nervcodec.base import obu
from nervcodec.base.obu import checked_units
from nervcodec.errors import ContainerError, VideoError, prefix_path
from nervcodec.formats.container import Container
from nervcodec.formats.header import BASE, COPY, BaseHeader
from nervcodec.media import mux
from nervcodec.media.audio import Sound
from nervcodec.media.decoder import has_alpha
from nervcodec.media.mux import SUFFIXES

_TICKS_S = 90_000  # a second, for frames with times of their own


def require_base(opened: Container) -> BaseHeader:
    """The base layer's entry in the header.

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


def loses_alpha(opened: Container, suffix: str) -> bool:
    """Whether a format leaves out the alpha plane of a copied stream: MP4 holds none beside VP8 and VP9."""
    if require_base(opened).kind != COPY or suffix.lower() != ".mp4":
        return False
    with prefix_path(opened.path), mux.open_copy(opened.chunks(BASE, (0, None)), opened.path) as (stored, _):
        return has_alpha(stored.streams.video[0])


def write_base(opened: Container, path: Path, sound: Sound | None = None) -> int:
    """Write the base layer as a video, beside its target and renamed; returns the number of frames.

    Frames of an AV1 stream are shown at the size that is coded: one row or column more where a side is odd, and at
    least 64 each way, since PyAV has no way to say a crop. Times in ``.mkv`` and ``.webm`` are whole milliseconds, as
    those formats have them.

    Args:
        opened: a container with a base layer.
        path: its suffix chooses the format, one of ``SUFFIXES``.
        sound: what :func:`sound_of` gives, made to fit (:meth:`Sound.fitting`); None for silence.

    Raises:
        ContainerError: there is no base layer, or it is damaged.
        VideoError: the format is none of these or does not hold the packets, or the place cannot be written.
    """
    base, video, suffix = require_base(opened), opened.header.video, path.suffix.lower()
    if suffix not in SUFFIXES:
        raise VideoError(f"{path}: the base goes into {', '.join(SUFFIXES)} as it is; choose one of these")
    with prefix_path(opened.path):
        if base.kind == COPY:
            if base.skipped and suffix != ".mp4":
                what = "frames come before the first that is shown, which .mp4 alone can say; choose that"
                raise VideoError(f"{path}: {what}")
            mux.write_copy(path, lambda: opened.chunks(BASE, (0, None)), base.skipped, sound)
            return video.frame_count
        rate, tick_s = None, Fraction(1, _TICKS_S)
        ticks: Sequence[int]
        if video.variable_frame_rate:
            times_s = np.append(opened.frame_times(), video.duration_s)
            ticks = growing(np.rint(times_s * _TICKS_S).astype(np.int64)).tolist()
        else:
            rate = Fraction(*video.frame_rate)
            ticks, tick_s = range(video.frame_count + 1), 1 / rate
        mux.write_av1(path, _units(opened), ticks, tick_s, Fraction(*video.sample_aspect_ratio), rate, sound)
    return video.frame_count


def _units(opened: Container) -> Iterator[tuple[bytes, bool]]:
    """All temporal units of an AV1 stream, and whether each is a key frame."""
    for segment in opened.header.segments:
        stream = opened.base_stream(segment).data
        units = checked_units(stream, segment.frame_count)
        keys = set(obu.key_frames(units))
        for number, unit in enumerate(units):
            yield obu.DELIMITER + unit, number in keys


def growing(ticks: np.ndarray) -> np.ndarray:
    """Times that do not fall, ``(n,)`` ticks, each at least one after the one before it."""
    earliest = np.arange(len(ticks))
    return np.maximum.accumulate(ticks - earliest) + earliest
