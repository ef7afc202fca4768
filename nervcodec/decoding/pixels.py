# SPDX-License-Identifier: MIT
"""The output of a network as 8-bit pixels, and frames of any kind at another size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nervcodec.colour import STEP
from nervcodec.coordinates import Window
from nervcodec.decoding.needs import batch_size
from nervcodec.decoding.networks import Networks
from nervcodec.decoding.runs import runs
from nervcodec.device import Hardware
from nervcodec.network.field import Field, Inputs, as_shown


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
    """Frames of networks, or a window of them, one after the other.

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


def scaled(rgb: np.ndarray, scale: float, device: str) -> np.ndarray:
    """A frame of a base layer at another size.

    Args:
        rgb: ``(1, h, w, 3)`` int16 of :func:`nervcodec.colour.to_rgb`.
        scale: factor on width and height.
        device: where torch computes.

    Returns:
        ``(h * scale, w * scale, 3)`` uint8 RGB.
    """
    with torch.inference_mode():
        image = torch.from_numpy(rgb).to(device).float().div_(STEP * 255)
        return as_shown(_resized(image, scale))[0].cpu().numpy()


def _resized(images: Tensor, scale: float) -> Tensor:
    """``(B, H, W, 3)`` by a factor, bicubic with antialiasing; no side falls below one pixel."""
    size = [max(1, round(side * scale)) for side in images.shape[1:3]]
    resized = F.interpolate(images.permute(0, 3, 1, 2), size=size, mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1)
