# SPDX-License-Identifier: MIT
"""Files written by earlier versions still open: what is stored is pinned exactly, pixels within a tolerance.

``golden/make.py`` wrote them. They are never written again: a new format gets a new file beside the old ones.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nervcodec
from nervcodec.formats import container

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["version1_grid", "version1_pe"])
def test_old_files_decode_to_the_same_pictures(name):
    video = nervcodec.open(GOLDEN / f"{name}.nerv", device="cpu", precision="fp32")
    assert len(video) == 15
    with Image.open(GOLDEN / f"{name}.png") as image:
        expected = np.asarray(image).astype(int)
    decoded = np.concatenate([video[0], video[14]], axis=1).astype(int)
    assert np.abs(decoded - expected).max() <= 2
    assert np.abs(decoded - expected).mean() < 0.1


def test_stored_numbers_are_pinned():
    opened = container.read(GOLDEN / "version1_grid.nerv")
    digests = {name: container.checksum(array) for name, array in opened.arrays.items()}
    assert container.digest(repr(sorted(digests.items())).encode()) == PINNED_GRID
    assert opened.header.tool == "nervcodec 0.1.0"
    assert opened.header.semantic is None


def test_embeddings_of_old_files():
    video = nervcodec.open(GOLDEN / "version1_pe.nerv", device="cpu", precision="fp32")
    assert video.header.semantic.encoder == "offline"
    vectors = video.embeddings([0, 14])
    assert vectors.shape == (2, 2, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)


PINNED_GRID = "572ee6655915d686"
