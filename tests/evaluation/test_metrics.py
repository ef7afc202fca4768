# SPDX-License-Identifier: MIT
import numpy as np
import pytest
import pytorch_msssim
import torch

from nervcodec import metrics


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_psnr_by_hand():
    a = np.zeros((4, 5, 3), np.uint8)
    assert metrics.psnr_db(a, a + 1) == pytest.approx(20 * np.log10(255))
    assert metrics.psnr_db(a, a) == metrics.IDENTICAL_DB
    assert metrics.psnr_db(a, a + 255) == pytest.approx(0)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 2), (10, 17), (33, 40), (90, 161), (200, 171)])
def test_similarity_is_that_of_pytorch_msssim(size):
    a = noise(*size)
    b = (a.astype(int) + np.random.default_rng(2).integers(-40, 40, a.shape)).clip(0, 255).astype(np.uint8)
    ssim, ms_ssim = metrics.similarity(a, b)
    assert ssim == pytest.approx(reference_ssim(a, b), abs=2e-5)
    if min(size) <= 32:
        assert ms_ssim is None
    else:
        images = [torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in (a, b)]
        window = metrics.ms_ssim_window(min(size))
        expected = pytorch_msssim.ms_ssim(*images, data_range=255, win_size=window).item()
        assert ms_ssim == pytest.approx(expected, abs=2e-5)


def reference_ssim(a, b):
    images = [torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in (a, b)]
    for axis in (2, 3):
        if images[0].shape[axis] == 1:  # pytorch-msssim drops dimensions of size one
            images = [image.repeat_interleave(2, dim=axis) for image in images]
    side = min(images[0].shape[2:])
    return pytorch_msssim.ssim(*images, data_range=255, win_size=min(11, side if side % 2 else side - 1)).item()


@pytest.mark.parametrize("size", [(1, 40), (200, 170)])
def test_an_image_is_similar_to_itself(size):
    a = noise(*size)
    ssim, ms_ssim = metrics.similarity(a, a)
    assert ssim == pytest.approx(1, abs=1e-5)
    assert ms_ssim is None or ms_ssim == pytest.approx(1, abs=1e-5)


def test_rate_counts_the_whole_file():
    assert metrics.rate_bpp(1000, 10, 20, 40) == 1.0
