# SPDX-License-Identifier: MIT
"""A patch is embedded again when it has changed, and only then."""

import numpy as np

from nervcodec.coordinates import PatchGrid
from nervcodec.semantic.patches import embed_changes, embed_patches, find_changes

GRID = PatchGrid(64, 128, 2, 4)


class Counting:
    """An encoder that says what colour a patch has, and counts."""

    name, dimension = "counting", 3

    def __init__(self):
        self.embedded = 0

    def embed_images(self, images):
        self.embedded += len(images)
        means = np.array([image.mean(axis=(0, 1)) + 1 for image in images], np.float32)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def still(count=10, seed=0):
    generator = np.random.default_rng(seed)
    picture = generator.integers(30, 220, (64, 128, 3))
    noise = generator.integers(-2, 3, (count, 64, 128, 3))
    return (picture + noise).astype(np.uint8)


def changes(frames, grid=GRID, cuts=()):
    """Numbers of the frames that get embeddings, and ``(n, patches)`` which of their patches changed."""
    found = list(find_changes(enumerate(frames), grid, cuts))
    return [frame.number for frame in found], np.array([frame.changed for frame in found])


def test_noise_is_no_change():
    numbers, changed = changes(still())
    assert numbers == [0]
    assert changed.all()


def test_a_patch_that_changes_and_the_frame_before_it():
    frames = still()
    frames[6:, 40:60, 70:90] = 255  # in the patch of row 1, column 2
    numbers, changed = changes(frames)
    assert numbers == [0, 5, 6]
    assert changed[1].sum() == 0
    assert np.flatnonzero(changed[2]).tolist() == [6]


def test_across_a_cut_nothing_is_held():
    numbers, changed = changes(np.concatenate([still(6), still(4, seed=1)]), cuts=(6,))
    assert numbers == [0, 6]
    assert changed.all()


def test_a_slow_change_is_seen_once_it_is_large():
    frames = np.stack([np.full((64, 128, 3), 100 + number, np.uint8) for number in range(10)])
    assert changes(frames)[0] == [0, 5, 6]


def test_where_nearly_all_of_a_frame_changes_all_of_it_is_embedded():
    frames = np.random.default_rng(0).integers(0, 256, (10, 64, 128, 3), dtype=np.uint8)
    frames[4, :32, :32] = frames[3, :32, :32]
    frames[6, :, :64] = frames[5, :, :64]
    numbers, changed = changes(frames)
    assert numbers == list(range(10))
    assert changed.sum(axis=1).tolist() == [8, 8, 8, 8, 8, 8, 4, 8, 8, 8]


def test_patches_of_a_pixel():
    frames = np.arange(2 * 2 * 4 * 3, dtype=np.uint8).reshape(2, 2, 4, 3)
    numbers, changed = changes(frames, PatchGrid(2, 4, 2, 4))
    assert numbers == [0, 1]
    assert changed.all()


def test_what_did_not_change_is_not_asked_for_again():
    frames = still(8)
    frames[5:, 40:60, 70:90] = 255
    encoder = Counting()
    numbers, found = embed_changes(enumerate(frames), GRID, encoder)
    assert numbers.tolist() == [0, 4, 5]
    assert encoder.embedded == 9
    everything = embed_patches(frames[numbers], GRID, Counting())
    np.testing.assert_allclose(found, everything, atol=0.01)
    assert np.array_equal(found[1], found[0])
    again = Counting()
    assert np.array_equal(embed_changes(enumerate(frames), GRID, again)[1], found)
    assert again.embedded == 0


def test_no_frame_has_no_embedding():
    numbers, found = embed_changes(iter(()), GRID, Counting())
    assert (numbers.shape, found.shape) == ((0,), (0, 8, 3))
