# SPDX-License-Identifier: MIT
"""Losses, each against its formula."""

import math

import pytest
import pytorch_msssim
import torch

from nervcodec.errors import ConfigError
from nervcodec.training import losses
from nervcodec.training.config import PIXEL_LOSSES, FitConfig


def test_losses_by_hand():
    a, b = torch.zeros(2, 16, 16, 3), torch.full((2, 16, 16, 3), 0.5)
    same = lambda x: x  # noqa: E731
    assert losses.PIXEL["l1"](a, b, same).item() == pytest.approx(0.5)
    assert losses.PIXEL["l2"](a, b, same).item() == pytest.approx(0.25)
    assert losses.PIXEL["log-l2"](a, b, same).item() == pytest.approx(math.log(0.25), abs=1e-3)
    similarity = losses.structural_similarity(a, b).item()
    assert losses.PIXEL["fusion6"](a, b, same).item() == pytest.approx(0.7 * 0.5 + 0.3 * (1 - similarity))
    assert losses.PIXEL["fusion6"](b, b, same).item() == pytest.approx(0, abs=1e-5)
    assert set(losses.PIXEL) == set(PIXEL_LOSSES)


# The weights of L1, L2, 1 - SSIM and 1 - MS-SSIM in each fusion.
FUSIONS = {
    1: (0, 0.3, 0.7, 0), 2: (0.3, 0, 0.7, 0), 3: (0, 0.5, 0.5, 0), 4: (0.5, 0, 0.5, 0), 5: (0, 0.7, 0.3, 0),
    6: (0.7, 0, 0.3, 0), 7: (0.3, 0.7, 0, 0), 8: (0.5, 0.5, 0, 0), 9: (0.9, 0, 0.1, 0), 10: (0.7, 0, 0, 0.3),
    11: (0.9, 0, 0, 0.1), 12: (0.8, 0, 0, 0.2),
}  # fmt: skip


@pytest.mark.parametrize("number", FUSIONS)
def test_fusions_by_hand(number):
    generator = torch.Generator().manual_seed(number)
    a, b = torch.rand(2, 1, 48, 48, 3, generator=generator)
    images = [x.permute(0, 3, 1, 2) for x in (a, b)]
    parts = (
        (a - b).abs().mean(),
        (a - b).square().mean(),
        1 - pytorch_msssim.ssim(*images, data_range=1.0),
        1 - pytorch_msssim.ms_ssim(*images, data_range=1.0, win_size=3),
    )
    expected = sum(weight * part.item() for weight, part in zip(FUSIONS[number], parts, strict=True))
    assert losses.PIXEL[f"fusion{number}"](a, b, lambda x: x).item() == pytest.approx(expected, rel=1e-4)
    assert FitConfig(loss=f"Fusion{number}").loss == f"fusion{number}"


def test_ms_ssim_refuses_small_frames():
    a = torch.rand(1, 32, 64, 3)
    with pytest.raises(ConfigError, match="64x32 pixels are too few"):
        losses.PIXEL["fusion10"](a, a, lambda x: x)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (10, 40)])
def test_ssim_of_tiny_images(size):
    image = torch.rand(1, *size, 3)
    assert losses.structural_similarity(image, image).item() == pytest.approx(1, abs=1e-5)
