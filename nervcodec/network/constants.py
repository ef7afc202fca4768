# SPDX-License-Identifier: MIT
"""Tensors that follow from a configuration, made when a network first runs and not when it is set up.

So that a network can be laid out, to compare its shapes with those of a file, without taking the memory it would need.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Constants:
    """Makes tensors at first use and keeps them for each device.

    Args:
        make: returns them on the CPU.
    """

    def __init__(self, make: Callable[[], tuple[Tensor, ...]]):
        self._make = make
        self._kept: dict[torch.device, tuple[Tensor, ...]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        """The tensors on a device, alike whatever the context (autocast, inference mode) of the first use."""
        if device not in self._kept:
            with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
                self._kept[device] = tuple(tensor.to(device) for tensor in self._make())
        return self._kept[device]
