# SPDX-License-Identifier: MIT
import numpy as np
import pytest

from nervcodec import metrics


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_psnr_by_hand():
    a = np.zeros((4, 5, 3), np.uint8)
    assert metrics.psnr_db(a, a + 1) == pytest.approx(20 * np.log10(255))
    assert metrics.psnr_db(a, a) == metrics.IDENTICAL_DB
    assert metrics.psnr_db(a, a + 255) == pytest.approx(0)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 2), (10, 17), (200, 170)])
def test_similarity_of_any_size(size):
    a = noise(*size)
    assert metrics.ssim(a, a) == pytest.approx(1, abs=1e-4)
    if min(size) > 1:
        assert metrics.ssim(a, noise(*size, seed=1)) < 0.9
    value = metrics.ms_ssim(a, a)
    assert value is None if min(size) <= 32 else value == pytest.approx(1, abs=1e-4)


def test_rate_counts_the_whole_file():
    assert metrics.rate_bpp(1000, 10, 20, 40) == 1.0
