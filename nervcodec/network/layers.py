# SPDX-License-Identifier: MIT
"""Layers of both networks, and constant tensors made on first use.

The ``grid`` network keeps channels last: tensors are ``(B, H, W, C)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pointwise(nn.Module):
    """A 1 x 1 convolution whose weight is a matrix ``(outputs, inputs)``, as Muon needs it.

    Args:
        inputs, outputs: channels.
        gain: standard deviation of the initial weights times sqrt(inputs).
        bias: add a learned constant. It costs a pass over the gradient, so most layers have none.
    """

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs).mul_(gain / math.sqrt(inputs)))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, inputs)`` to ``(B, H, W, outputs)``."""
        # On a CPU oneDNN's backward pass is faster through convolution than through F.linear.
        return F.conv2d(x.permute(0, 3, 1, 2), self.weight[:, :, None, None], self.bias).permute(0, 2, 3, 1)


class ResidualBlock(nn.Module):
    """Depthwise 3 x 3, widen, ReLU, narrow, add. After ConvNeXt (Liu et al. 2022, arXiv:2201.03545), less its norm.

    ReLU replaces ConvNeXt's GELU: the same quality here at a fifth of the cost on a CPU.
    """

    reach = 1  # positions on each side that an output depends on

    def __init__(self, width: int, expansion: int):
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.widen = Pointwise(width, width * expansion, gain=1.4, bias=False)
        self.narrow = Pointwise(width * expansion, width, gain=0.5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, width)`` to the same."""
        inside = self.spatial(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.narrow(F.relu(self.widen(inside)))


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """Turn channels into pixels, channels last (Shi et al. 2016, arXiv:1609.05158).

    Channels are ordered (row, column, channel), so that contiguous rows of memory move at once.

    Args:
        x: ``(B, H, W, factor * factor * C)``.

    Returns:
        ``(B, factor * H, factor * W, C)``.
    """
    batch, height, width, channels = x.shape
    depth = channels // (factor * factor)
    blocks = x.view(batch, height, width, factor, factor, depth).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, height * factor, width * factor, depth)


def pixel_unshuffle(x: Tensor, factor: int) -> Tensor:
    """The inverse of :func:`pixel_shuffle`: ``(B, f * H, f * W, C)`` to ``(B, H, W, f * f * C)``."""
    batch, height, width, depth = x.shape
    blocks = x.reshape(batch, height // factor, factor, width // factor, factor, depth).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, height // factor, width // factor, factor * factor * depth)


class NervBlock(nn.Module):
    """Convolution 3 x 3, pixel shuffle, GELU: the block of NeRV (Chen et al. 2021, arXiv:2110.13903)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs * stride * stride, 3, padding=1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` to ``(B, outputs, stride * H, stride * W)``."""
        return F.gelu(F.pixel_shuffle(self.convolution(x), self.stride))


class LazyBuffers:
    """Constant tensors made at first use and kept for each device.

    So a network can be built, to compare its shapes with those of a file, without the memory of its constants.

    Args:
        make: returns them on the CPU.
    """

    def __init__(self, make: Callable[[], tuple[Tensor, ...]]):
        self._make = make
        self._by_device: dict[torch.device, tuple[Tensor, ...]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        """The tensors on a device, independent of the context (autocast, inference mode) of the first use."""
        if device not in self._by_device:
            with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
                self._by_device[device] = tuple(tensor.to(device) for tensor in self._make())
        return self._by_device[device]
