# SPDX-License-Identifier: MIT
"""The semantic head without training: its cosine and size, also for degenerate embeddings."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nervcodec.formats import bitstream
from nervcodec.training.pca import MAX_DIRECTIONS, MIN_COSINE, TARGET_COSINE, principal_head

GRID = (2, 4)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def likely(frames=20, dimension=96, directions=20, seed=0):
    """Embeddings about a mean, in some directions more than in others."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(directions, dimension)) * 0.8 ** np.arange(directions)[:, None]
    return unit(rng.normal(size=(frames, 8, directions)) @ basis + 3 * rng.normal(size=dimension))


def read_back(head, frames):
    """Centred embeddings ``(n, patches, D)`` and the mean as the stored numbers give them."""
    values = bitstream.values(bitstream.read(bitstream.encode(head.tensors)))
    codes = values["semantic.codes"].reshape(frames, head.rank, -1).transpose(0, 2, 1)
    return (codes * values["semantic.gain"]) @ values["semantic.directions.weight"].T, values["semantic.mean"]


def closeness(found, expected):
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    return float(((found * expected).sum(-1) / np.maximum(norms, 1e-9)).mean())


def test_the_stored_head_reaches_the_target_cosine():
    reference = likely()
    head = principal_head(reference, GRID, math.inf)
    found, mean = read_back(head, 20)
    assert head.cosine >= TARGET_COSINE
    assert closeness(found, reference - reference.mean((0, 1))) == pytest.approx(head.cosine, abs=2e-3)
    assert closeness(unit(found + mean), reference) > 0.97
    assert head.size_bytes == bitstream.encode(head.tensors).size
    assert bitstream.values(head.tensors)["semantic.codes"].shape == (20, head.rank, *GRID)


def test_a_size_limit_keeps_the_minimum_cosine():
    reference = likely()
    heads = [principal_head(reference, GRID, limit) for limit in (math.inf, 3000, 2000, 0)]
    sizes = [head.size_bytes for head in heads]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
    assert all(head.cosine >= MIN_COSINE for head in heads)


def test_directions_are_bounded():
    rng = np.random.default_rng(1)
    head = principal_head(unit(rng.normal(size=(40, 8, 200))), GRID, math.inf)
    assert head.rank <= MAX_DIRECTIONS


@pytest.mark.parametrize("frames", [1, 3])
def test_identical_embeddings(frames):
    reference = np.repeat(likely(1)[:, :1], frames * 8, axis=1).reshape(frames, 8, -1)
    head = principal_head(reference, GRID, math.inf)
    found, mean = read_back(head, frames)
    assert np.isfinite(found).all()
    assert closeness(unit(found + mean), reference) > 0.98
    assert head.rank == 1


def test_a_single_patch():
    reference = likely(1)[:, :1]
    head = principal_head(reference, (1, 1), math.inf)
    found, mean = read_back(head, 1)
    assert closeness(unit(found + mean), reference) > 0.98


@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 40), st.integers(0, 2**31), st.floats(0, 5000))
def test_any_embeddings(frames, columns, dimension, seed, limit):
    rng = np.random.default_rng(seed)
    head = principal_head(unit(rng.normal(size=(frames, columns, dimension)) + 1e-3), (1, columns), limit)
    found, mean = read_back(head, frames)
    assert found.shape == (frames, columns, dimension)
    assert np.isfinite(found).all()
    assert np.isfinite(mean).all()
    assert 1 <= head.rank <= min(MAX_DIRECTIONS, max(dimension, 1), frames * columns)
