# SPDX-License-Identifier: MIT
"""What a network gives: the one place where its output becomes 8-bit pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nervcodec.coordinates import Window
from nervcodec.decoding.layer import Around
from nervcodec.decoding.needs import batch_size
from nervcodec.decoding.networks import Networks
from nervcodec.decoding.runs import runs
from nervcodec.device import Hardware
from nervcodec.network.field import Field, as_shown
from nervcodec.network.inputs import Inputs
from nervcodec.network.planes import BaseFrames


def rendered_there(field: Field, inputs: Inputs, hardware: Hardware, scale: float = 1.0) -> Tensor:
    """Frames or windows as they are shown, where they were computed.

    Args:
        field: the network of their segment.
        inputs: which.
        hardware: device and precision.
        scale: factor on width and height, see :func:`nervcodec.decoding.needs.require_scale`.

    Returns:
        ``(n, h, w, 3)`` uint8 RGB, on the hardware's device.
    """
    with torch.inference_mode(), hardware.autocast():
        return field.shown(inputs) if scale == 1.0 else as_shown(_resized(field.render(inputs), scale))


def rendered(field: Field, inputs: Inputs, hardware: Hardware, scale: float = 1.0) -> np.ndarray:
    """:func:`rendered_there` as an array, ``(n, h, w, 3)`` uint8 RGB."""
    return rendered_there(field, inputs, hardware, scale).cpu().numpy()


def frames(
    networks: Networks, numbers: Sequence[int], starts: Sequence[int], windows: tuple[Window, ...], scale: float
) -> Iterator[np.ndarray]:
    """Frames that networks give alone, or a window of them, one after the other.

    The last bits of a convolution depend on the shape of the batch. So whole frames are rendered in batches of one
    size, filled up with copies of the last frame: a frame has the same bytes alone, in a range and in any order.

    Args:
        networks: of the container.
        numbers: of the frames, in any order.
        starts: first frame of each segment, ascending.
        windows: one, or none for whole frames.
        scale: factor on width and height.
    """
    batch = batch_size(networks.header, networks.hardware.device)
    for segment, local in runs(numbers, starts, batch):
        padding = 0 if windows else batch - len(local)
        inputs = Inputs(torch.tensor(local + local[-1:] * padding), windows)
        yield from rendered(networks.field(segment), inputs, networks.hardware, scale)[: len(local)]


def above(
    networks: Networks, segment: int, number: int, around: Around, windows: tuple[Window, ...], scale: float
) -> np.ndarray:
    """A frame, or a window of it, that a network makes of a base layer; see :func:`frames`.

    Args:
        networks: of the container.
        segment: the frame's.
        number: of the frame, counted from the segment's first.
        around: what the base layer has of it.
        windows: one, or none for the whole frame.
        scale: factor on width and height.
    """
    hardware, base = networks.hardware, BaseFrames.of(*around).to(networks.hardware.device)
    return rendered(networks.field(segment), Inputs(torch.tensor([number]), windows, base), hardware, scale)[0]


def _resized(images: Tensor, scale: float) -> Tensor:
    """``(B, H, W, 3)`` by a factor, bicubic with antialiasing; no side falls below one pixel."""
    size = [max(1, round(side * scale)) for side in images.shape[1:3]]
    resized = F.interpolate(images.permute(0, 3, 1, 2), size=size, mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1)
