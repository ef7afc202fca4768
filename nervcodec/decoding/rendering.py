# SPDX-License-Identifier: MIT
"""Frames and embeddings rendered by networks, in batches. Imports torch."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nervcodec.colour import STEP
from nervcodec.coordinates import Patch
from nervcodec.decoding.networks import Networks, batch_size
from nervcodec.device import Hardware
from nervcodec.network.field import Field, Inputs, to_uint8
from nervcodec.network.stored import EmbeddingParts

EMBEDDING_BATCH = 32  # frames


def group_by_segment(numbers: Iterable[int], starts: Sequence[int], limit: int) -> Iterator[tuple[int, list[int]]]:
    """Group consecutive frame numbers of one segment.

    Args:
        numbers: of frames, from 0, in any order.
        starts: first frame of each segment, ascending.
        limit: frames in one group.

    Yields:
        Segment number, and frame numbers counted from its first frame.
    """
    for segment, group in itertools.groupby(numbers, lambda number: bisect.bisect_right(starts, number) - 1):
        local = (number - starts[segment] for number in group)
        while batch := list(itertools.islice(local, limit)):
            yield segment, batch


def render_tensor(field: Field, inputs: Inputs, hardware: Hardware, scale: float = 1.0) -> Tensor:
    """Frames or windows as uint8 RGB, on the device.

    Args:
        field: the network of their segment.
        inputs: frames and windows.
        hardware: device and precision.
        scale: factor on width and height.

    Returns:
        ``(n, h, w, 3)`` uint8 RGB, on the hardware's device.
    """
    with torch.inference_mode(), hardware.autocast():
        return field.render_uint8(inputs) if scale == 1.0 else to_uint8(_resized(field.render(inputs), scale))


def render(field: Field, inputs: Inputs, hardware: Hardware, scale: float = 1.0) -> np.ndarray:
    """:func:`render_tensor` as an array, ``(n, h, w, 3)`` uint8 RGB."""
    return render_tensor(field, inputs, hardware, scale).cpu().numpy()


def render_frames(
    networks: Networks, numbers: Sequence[int], starts: Sequence[int], windows: tuple[Patch, ...], scale: float
) -> Iterator[np.ndarray]:
    """Frames of a container's networks, or one window of each, one after the other.

    The last bits of a convolution depend on the shape of the batch. So whole frames are rendered in batches of one
    size, padded with copies of the last frame: a frame has the same bytes alone, in a range and in any order.

    Args:
        networks: of the container.
        numbers: of frames, in any order.
        starts: first frame of each segment, ascending.
        windows: one, or none for whole frames.
        scale: factor on width and height.
    """
    batch = batch_size(networks.header, networks.hardware.device)
    for segment, local in group_by_segment(numbers, starts, batch):
        padding = 0 if windows else batch - len(local)
        inputs = Inputs(torch.tensor(local + local[-1:] * padding), windows)
        yield from render(networks.field(segment), inputs, networks.hardware, scale)[: len(local)]


def resize_frame(rgb: np.ndarray, scale: float, device: str) -> np.ndarray:
    """Resize a frame of a base layer.

    Args:
        rgb: ``(1, h, w, 3)`` int16 of :func:`nervcodec.colour.to_rgb`.
        scale: factor on width and height.
        device: for torch.

    Returns:
        ``(h * scale, w * scale, 3)`` uint8 RGB.
    """
    with torch.inference_mode():
        image = torch.from_numpy(rgb).to(device).float().div_(STEP * 255)
        return to_uint8(_resized(image, scale))[0].cpu().numpy()


def _resized(images: Tensor, scale: float) -> Tensor:
    """``(B, H, W, 3)`` by a factor, bicubic with antialiasing; no side falls below one pixel."""
    size = [max(1, round(side * scale)) for side in images.shape[1:3]]
    resized = F.interpolate(images.permute(0, 3, 1, 2), size=size, mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1)


def compute_embeddings(networks: Networks, numbers: Iterable[int], starts: Sequence[int]) -> Iterator[np.ndarray]:
    """Embeddings of frames in batches, ``(n, rows * columns, D)`` float32 unit vectors each.

    Args:
        networks: of the container.
        numbers: of frames, from 0, in any order.
        starts: first frame of each segment.
    """
    for segment, local in group_by_segment(numbers, starts, EMBEDDING_BATCH):
        head = networks.head(segment)
        with torch.inference_mode(), networks.hardware.autocast():
            centred = head.directions(_coefficients(networks, segment, torch.tensor(local)))
            yield head.embeddings(centred).float().cpu().numpy()


def embedding_parts(networks: Networks) -> Iterator[EmbeddingParts]:
    """Coefficients, basis and mean of all embeddings, segment by segment."""
    for index, segment in enumerate(networks.header.segments):
        head = networks.head(index)
        with torch.inference_mode(), networks.hardware.autocast():
            if head.code_timeline is not None:
                coefficients, weights = head.entries(), head.code_timeline.weights
            else:
                frames = torch.arange(segment.frame_count)
                batches = [_coefficients(networks, index, local).float() for local in frames.split(EMBEDDING_BATCH)]
                coefficients, weights = torch.cat(batches), (frames, frames, torch.zeros(len(frames)))
            basis, mean = head.directions.weight.T, head.mean
            vectors, directions, centre = (tensor.float().cpu().numpy() for tensor in (coefficients, basis, mean))
        before, after, weight = (array.numpy() for array in weights)
        yield EmbeddingParts(vectors, directions, centre, before, after, weight, networks.configs[index].cuts)


def _coefficients(networks: Networks, segment: int, frames: Tensor) -> Tensor:
    """Coordinates in the semantic head's basis, ``(n, patches, rank)``."""
    head = networks.head(segment)
    if head.needs_features:
        return networks.field(segment).coefficients(Inputs(frames))
    return head.coefficients(None, frames.to(networks.hardware.device))
