# SPDX-License-Identifier: MIT
"""Cuts and pace."""

import numpy as np

from nervcodec.media.reader import read_frames, read_segment
from nervcodec.media.shots import find_cuts, find_pace, persistence, thumbnails
from nervcodec.media.source import SourceOptions, scan


def frames_of(path):
    options = SourceOptions()
    info = scan(path, options)
    return read_segment(read_frames(info, options), info.frame_count)


def test_the_cuts_of_the_street_clip(bikes):
    assert find_cuts(thumbnails(frames_of(bikes))) == (30, 76, 137, 187, 242)  # looked at, frame by frame


def test_one_shot_has_no_cut(carphone):
    assert find_cuts(thumbnails(frames_of(carphone))) == ()


def test_noise_and_short_clips_have_none():
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    assert find_cuts(thumbnails(noise)) == ()
    assert find_cuts(thumbnails(noise[:1])) == ()


def test_two_pictures_have_one():
    still = np.zeros((6, 32, 32, 3), np.uint8)
    still[4:] = 200
    assert find_cuts(thumbnails(still)) == (4,)


def test_pace_follows_the_change_between_frames(bunny):
    pace = np.array(find_pace(frames_of(bunny)))
    assert len(pace) == 131
    assert (np.flatnonzero(pace == 0) == [6, 31, 56, 81, 106]).all()  # one frame in 25 is shown twice
    assert pace[33:43].mean() > 2 * pace[72:95].mean()  # the camera moves, then hardly anything does


def test_pace_of_a_still_video():
    still = np.zeros((5, 32, 32, 3), np.uint8)
    assert find_pace(still) == find_pace(still[:1]) == ()
    still[2:] = 90
    assert find_pace(still) == ()  # most frames repeat the one before


def test_persistence(bunny, bikes, carphone):
    assert 0.8 < persistence(frames_of(bunny), ()) < persistence(frames_of(carphone), ()) < 1
    assert persistence(frames_of(bikes), find_cuts(frames_of(bikes))) < 0.8  # a street, seen by a moving camera
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    assert abs(persistence(noise, ())) < 0.1
    assert persistence(np.repeat(noise[:1], 20, axis=0), ()) == 1
    assert persistence(noise[:5], ()) == persistence(noise, (7, 14)) == 1  # no shot is long enough to tell
