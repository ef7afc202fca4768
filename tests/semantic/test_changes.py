# SPDX-License-Identifier: MIT
"""A patch is embedded anew where it changed, and only there."""

import numpy as np

from nervcodec.coordinates import PatchGrid
from nervcodec.events import Observer
from nervcodec.semantic.changes import find_changes
from nervcodec.semantic.patches import embed_patches

GRID = PatchGrid(64, 128, 2, 4)
ONE_SHOT = np.zeros(10, int)


class Counting:
    """An encoder that says what colour a patch has, and counts."""

    name, dimension = "counting", 3

    def __init__(self):
        self.asked = 0

    def embed_images(self, images):
        self.asked += len(images)
        means = np.array([image.mean(axis=(0, 1)) + 1 for image in images], np.float32)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def still(count=10, seed=0):
    generator = np.random.default_rng(seed)
    picture = generator.integers(30, 220, (64, 128, 3))
    noise = generator.integers(-2, 3, (count, 64, 128, 3))
    return (picture + noise).astype(np.uint8)


def test_noise_is_no_change():
    changes = find_changes(still(), GRID, ONE_SHOT)
    assert changes.kept.tolist() == [0]
    assert changes.anew.all()


def test_a_patch_that_changes_and_the_frame_before_it():
    frames = still()
    frames[6:, 40:60, 70:90] = 255  # in the patch of row 1, column 2
    changes = find_changes(frames, GRID, ONE_SHOT)
    assert changes.kept.tolist() == [0, 5, 6]
    assert changes.anew[1].sum() == 0
    assert np.flatnonzero(changes.anew[2]).tolist() == [6]


def test_across_a_cut_nothing_is_held():
    frames = np.concatenate([still(6), still(4, seed=1)])
    changes = find_changes(frames, GRID, np.repeat([0, 1], [6, 4]))
    assert changes.kept.tolist() == [0, 6]
    assert changes.anew.all()


def test_a_slow_change_is_seen_once_it_is_large():
    frames = np.stack([np.full((64, 128, 3), 100 + number, np.uint8) for number in range(10)])
    assert find_changes(frames, GRID, ONE_SHOT).kept.tolist() == [0, 5, 6]


def test_where_nearly_all_changes_all_is_embedded():
    frames = np.random.default_rng(0).integers(0, 256, (10, 64, 128, 3), dtype=np.uint8)
    frames[4, :32, :32] = frames[3, :32, :32]
    changes = find_changes(frames, GRID, ONE_SHOT)
    assert changes.kept.tolist() == list(range(10))
    assert changes.anew.all()


def test_patches_of_a_pixel():
    frames = np.arange(2 * 2 * 4 * 3, dtype=np.uint8).reshape(2, 2, 4, 3)
    changes = find_changes(frames, PatchGrid(2, 4, 2, 4), np.zeros(2, int))
    assert changes.kept.tolist() == [0, 1]
    assert changes.anew.all()


def test_what_did_not_change_is_not_asked_for_again():
    frames = still(4)
    frames[2:, 40:60, 70:90] = 255
    anew = np.zeros((4, 8), bool)
    anew[0], anew[2, 6] = True, True
    encoder = Counting()
    found = embed_patches(frames, GRID, encoder, Observer(), anew)
    assert encoder.asked == 9
    everything = embed_patches(frames, GRID, Counting(), Observer())
    np.testing.assert_allclose(found, everything, atol=0.01)
    assert np.array_equal(found[1], found[0])
    assert np.array_equal(found[3], found[2])
    again = Counting()
    assert np.array_equal(embed_patches(frames, GRID, again, Observer(), anew), found)
    assert again.asked == 0
