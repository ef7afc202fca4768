# SPDX-License-Identifier: MIT
"""What a decoder gives: the one place where a network's output becomes 8-bit pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nervcodec.device import Hardware
from nervcodec.errors import ConfigError
from nervcodec.formats.header import Header, PlaneFormat
from nervcodec.network.colour import to_rgb8
from nervcodec.network.field import Field, as_shown
from nervcodec.network.inputs import Inputs
from nervcodec.network.planes import BaseFrames
from nervcodec.video.planes import Planes

LARGEST_SCALE = 16
_FRAMES_IN_MEMORY = 4  # rendered at once, where they are small
_PIXELS_IN_MEMORY = 1 << 23  # of frames rendered at once
_BYTES_PER_PIXEL = 64  # that rendering takes at its peak, features included
_BYTES_AT_REST = 400 << 20  # Python, torch


def rendered_there(field: Field, inputs: Inputs, hardware: Hardware, scale: float = 1.0) -> Tensor:
    """Frames or windows as they are shown, where they were computed.

    Args:
        field: the network of their segment.
        inputs: which.
        hardware: device and precision.
        scale: factor on width and height, see :func:`require_scale`.

    Returns:
        ``(n, h, w, 3)`` uint8 RGB, on the hardware's device.
    """
    with torch.inference_mode(), hardware.autocast():
        return field.shown(inputs) if scale == 1.0 else as_shown(_resized(field.render(inputs), scale))


def rendered(field: Field, inputs: Inputs, hardware: Hardware, scale: float = 1.0) -> np.ndarray:
    """:func:`rendered_there` as an array, ``(n, h, w, 3)`` uint8 RGB."""
    return rendered_there(field, inputs, hardware, scale).cpu().numpy()


def frames_of(planes: Planes, form: PlaneFormat) -> np.ndarray:
    """Samples as they are shown, ``(n, H, W, 3)`` uint8 RGB.

    Args:
        planes: of some frames.
        form: what they stand for.
    """
    base = BaseFrames.of(planes, form)
    return to_rgb8(base.y, base.u, base.v, form).numpy()


def require_scale(scale: float) -> None:
    """Refuse a factor on width and height that is out of range.

    Raises:
        ConfigError: it is.
    """
    if not 0 < scale <= LARGEST_SCALE:
        raise ConfigError(f"a scale of {scale:g} is out of range (above 0, at most {LARGEST_SCALE})")


def _resized(images: Tensor, scale: float) -> Tensor:
    """``(B, H, W, 3)`` by a factor, bicubic with antialiasing; no side falls below one pixel."""
    size = [max(1, round(side * scale)) for side in images.shape[1:3]]
    resized = F.interpolate(images.permute(0, 3, 1, 2), size=size, mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Needs:
    """What decoding takes.

    Attributes:
        memory_bytes: at its peak, about.
        pixel_bytes: all the frames as uint8 RGB.
    """

    memory_bytes: int
    pixel_bytes: int


def most_at_once(header: Header) -> int:
    """Frames of a container to render in one go."""
    return max(1, min(_FRAMES_IN_MEMORY, _PIXELS_IN_MEMORY // (header.video.width * header.video.height)))


def needs(header: Header, count: int, scale: float, kept_bytes: int) -> Needs:
    """What decoding ``count`` frames takes.

    Args:
        header: of the container.
        count: frames.
        scale: factor on width and height.
        kept_bytes: of networks that are kept, see ``Networks.kept_bytes``.
    """
    facts = header.video
    pixels = facts.width * facts.height
    shown = max(1, round(facts.width * scale)) * max(1, round(facts.height * scale))
    frames = min(count, most_at_once(header)) * _BYTES_PER_PIXEL * (pixels + (shown if scale != 1 else 0))
    return Needs(_BYTES_AT_REST + kept_bytes + frames, 3 * shown * count)
