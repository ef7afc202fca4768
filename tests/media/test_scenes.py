# SPDX-License-Identifier: MIT
"""Scenes of a whole video, found segment by segment."""

import numpy as np
import pytest

from nervcodec.media.options import SourceOptions
from nervcodec.media.reader import read_frames
from nervcodec.media.shots import Scenes, find_cuts, thumbnails
from nervcodec.media.source import scan


def picture(seed):
    """A smooth picture, ``(96, 128, 3)``."""
    return np.random.default_rng(seed).integers(30, 220, (6, 8, 3), np.uint8).repeat(16, axis=0).repeat(16, axis=1)


def shot(seed, frames=20, noise=2):
    rng = np.random.default_rng(seed + 100)
    return np.stack([picture(seed) + rng.integers(0, noise + 1, (96, 128, 3), np.uint8) for _ in range(frames)])


def looked_at(frames, length):
    scenes = Scenes()
    cuts = [scenes.add(frames[start : start + length]) for start in range(0, len(frames), length)]
    return scenes, cuts


def test_a_scene_that_returns_is_the_same_scene():
    frames = np.concatenate([shot(1), shot(2), shot(1), shot(3)])
    scenes, cuts = looked_at(frames, 80)
    assert cuts == [(20, 40, 60)] == [find_cuts(thumbnails(frames))]
    assert [(p.first, p.stop, p.shot, p.scene) for p in scenes.pieces] == [
        (0, 20, 0, 0), (20, 40, 1, 1), (40, 60, 2, 0), (60, 80, 3, 2)
    ]  # fmt: skip
    assert [scene.frames for scene in scenes.scenes] == [40, 20, 20]
    assert scenes.static_share > 0.99
    assert scenes.of(np.arange(15, 65)) == ((5, 25, 45), (0, 1, 0, 2))
    assert scenes.of(np.array([0, 79])) == ((1,), (0, 2))


@pytest.mark.parametrize("length", [7, 20, 33])
def test_a_shot_continues_across_segments_but_not_across_a_cut(length):
    scenes, _ = looked_at(np.concatenate([shot(1, 33), shot(2, 33)]), length)
    shots = [(p.shot, p.scene) for p in scenes.pieces]
    assert sorted(set(shots)) == [(0, 0), (1, 1)]
    assert [p.first for p in scenes.pieces if p.shot][0] == 33
    assert scenes.pieces[-1].stop == 66


def test_moving_content_lowers_the_static_share():
    """A wide picture seen through a window that wanders over it."""
    wide = np.concatenate([picture(seed) for seed in range(6)], axis=1)
    moving = np.stack([wide[:, 8 * step : 8 * step + 128] for step in range(64)])
    scenes, _ = looked_at(moving, 32)
    assert len(scenes.scenes) == 1
    assert scenes.static_share < 0.4


def test_uniform_pictures():
    scenes, cuts = looked_at(np.zeros((12, 16, 16, 3), np.uint8), 6)
    assert cuts == [(), ()]
    assert scenes.static_share == 1.0


def test_scenes_of_a_film(bikes):
    scenes, _ = looked_at(np.stack(list(read_frames(scan(bikes), SourceOptions()))), 50)
    assert len(scenes.pieces) == 10
    assert len(scenes.scenes) == 6
    assert [p.scene for p in scenes.pieces] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
