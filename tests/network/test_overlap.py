# SPDX-License-Identifier: MIT
"""Overlapping blocks: the rotation, its inverse, and the blocking it removes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nervcodec.network.overlap import ANGLE, BLOCK, REACH, overlap, split_blocks


def noise(batch, rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, rows * BLOCK, columns * BLOCK, 3, generator=generator)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9), st.integers(0, 100))
def test_the_rotation_has_an_inverse_and_keeps_constants(batch, rows, columns, seed):
    blocks = noise(batch, rows, columns, seed)
    picture = overlap(blocks)
    assert picture.shape == blocks.shape
    torch.testing.assert_close(split_blocks(picture), blocks, atol=1e-5, rtol=0)
    torch.testing.assert_close(picture.square().sum(), blocks.square().sum())
    assert torch.equal(picture[:, :REACH, :REACH], blocks[:, :REACH, :REACH])  # no border near
    flat = torch.full_like(blocks, 0.25)
    torch.testing.assert_close(overlap(flat), flat)


def test_rotation_is_the_same_down_and_across():
    blocks = noise(1, 5, 7)
    turned = overlap(blocks.transpose(1, 2).contiguous()).transpose(1, 2)
    torch.testing.assert_close(turned, overlap(blocks), atol=1e-5, rtol=0)


def test_four_pixels_around_a_border():
    """By the definition, one row by hand."""
    row = noise(1, 2, 2)[:, :1].expand(1, 8, 8, 3).contiguous()  # the same from top to bottom
    a, b, c, d = (row[0, 0, x].double() for x in range(2, 6))
    outer, inner = a - d, b - c
    cosine, sine = np.cos(ANGLE), np.sin(ANGLE)
    turned_outer, turned_inner = cosine * outer + sine * inner, cosine * inner - sine * outer
    expected = [(a + d + turned_outer) / 2, (b + c + turned_inner) / 2, (b + c - turned_inner) / 2]
    found = overlap(row)[0, 0]
    for x, value in zip(range(2, 5), expected, strict=True):
        torch.testing.assert_close(found[x].double(), value, atol=1e-6, rtol=0)
    assert torch.equal(found[:2], row[0, 0, :2])


def test_gradients_are_rotated_back():
    blocks = noise(1, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(overlap, (blocks,))


def blockiness(image):
    """Mean difference of neighbouring pixels across block borders over the mean inside blocks, ``(H, W, 3)`` uint8."""
    across, inside = [], []
    for oriented in (image, image.swapaxes(0, 1)):
        steps = np.abs(np.diff(oriented.astype(int), axis=0))
        at_border = np.arange(1, len(oriented)) % BLOCK == 0
        across.append(steps[at_border].ravel())
        inside.append(steps[~at_border].ravel())
    return np.concatenate(across).mean() / np.concatenate(inside).mean()


@pytest.mark.parametrize("seed", [0, 1])
def test_overlap_removes_blocking(seed):
    """A picture with errors that differ from block to block, as those of a network that paints blocks."""
    generator = np.random.default_rng(seed)
    smooth = np.cumsum(generator.normal(size=(128, 128, 3)), axis=1) + np.cumsum(
        generator.normal(size=(128, 128, 3)), 0
    )
    errors = generator.normal(size=(32, 32, 3)).repeat(4, 0).repeat(4, 1) * 6
    shown = {}
    for name, one in (("blocks", errors), ("lapped", overlap(torch.from_numpy(errors)[None])[0].numpy())):
        original = blockiness((smooth + 128).clip(0, 255).astype(np.uint8))
        assert original == pytest.approx(1, abs=0.05)
        shown[name] = blockiness((smooth + one + 128).clip(0, 255).astype(np.uint8)) / original
    assert shown["blocks"] > 1.3
    assert shown["lapped"] < 1 + (shown["blocks"] - 1) / 3
