# SPDX-License-Identifier: MIT
"""The video that a file is compared with, read as what is compared was: the same conversion to RGB on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nervcodec.colour import to_rgb8
from nervcodec.media.reader import plane_format, read_frames, read_planes
from nervcodec.media.source import SourceOptions, VideoInfo, scan
from nervcodec.tone_mapping import peak_of, to_screen8


@dataclass(frozen=True)
class Original:
    """A scanned video and how its frames become RGB.

    Attributes:
        info, options: of the scan.
        from_samples: by this package's own arithmetic from the video's own samples, as files with a base layer are
            made and decoded; else by ffmpeg's scaler.
    """

    info: VideoInfo
    options: SourceOptions
    from_samples: bool = False

    def frames(self, tone_map: bool = False) -> Iterator[np.ndarray]:
        """All frames, ``(H, W, 3)`` uint8 RGB.

        Args:
            tone_map: make BT.709 of HDR, as embeddings are made from, where ``from_samples`` is set.

        Raises:
            VideoError: they cannot be read.
        """
        return frames_as(self.info, self.options, self.from_samples, tone_map)

    def decoded(self, path: Path) -> Iterator[np.ndarray]:
        """Frames of another video, such as a coded copy, converted as these are."""
        return frames_as(scan(path), SourceOptions(), self.from_samples)


def frames_as(
    info: VideoInfo, options: SourceOptions, from_samples: bool, tone_map: bool = False
) -> Iterator[np.ndarray]:
    """Frames of a scanned video; see :class:`Original`."""
    if not from_samples:
        yield from read_frames(info, options)
        return
    form, peak = plane_format(info, options), peak_of(info.light)
    for planes in read_planes(info, options, form):
        yield (to_screen8(planes, form, peak=peak) if tone_map else to_rgb8(planes, form))[0]
