# SPDX-License-Identifier: MIT
"""Quality of what was encoded, as a decoder will give it."""

from __future__ import annotations

import numpy as np
import torch

from nervcodec import metrics
from nervcodec.decoding.pixels import rendered
from nervcodec.device import Hardware
from nervcodec.network.build import from_arrays
from nervcodec.network.config import NetworkConfig
from nervcodec.network.inputs import Inputs


def measure(
    network: NetworkConfig,
    weights: dict[str, np.ndarray],
    pixels: np.ndarray,
    numbers: np.ndarray,
    hardware: Hardware,
) -> np.ndarray:
    """PSNR of some frames, rendered by a fresh network from the weights as they will be read.

    Args:
        network: its configuration.
        weights: by name.
        pixels: ``(n, H, W, 3)`` uint8, what the frames should be.
        numbers: ``(n,)`` of the frames, counted from the segment's first.
        hardware: device and precision.

    Returns:
        ``(n,)`` dB.
    """
    field = from_arrays(network, weights).to(hardware.device)
    result = np.empty(len(pixels))
    for index, (number, source) in enumerate(zip(numbers, pixels, strict=True)):
        (image,) = rendered(field, Inputs(torch.tensor([number])), hardware)
        result[index] = metrics.psnr_db(image, source)
    return result
