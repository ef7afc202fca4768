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
from nervcodec.formats.container import Container

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", ["version1_grid", "version1_pe", "version2_grid", "version2_pe"])
def test_old_files_decode_to_the_same_pictures(name):
    video = nervcodec.open(GOLDEN / f"{name}.nerv", device="cpu", precision="fp32")
    assert len(video) == 15
    with Image.open(GOLDEN / f"{name}.png") as image:
        expected = np.asarray(image).astype(int)
    decoded = np.concatenate([video[0], video[14]], axis=1).astype(int)
    assert np.abs(decoded - expected).max() <= 2
    assert np.abs(decoded - expected).mean() < 0.1


@pytest.mark.parametrize(
    ("name", "pinned"), [("version1_grid", "90a9fa654be99b0e"), ("version2_grid", "b9ac8ad1affa7fa5")]
)
def test_the_numbers_they_hold_are_pinned(name, pinned):
    with Container.at(GOLDEN / f"{name}.nerv") as opened:
        digests = {name: container.checksum(array) for name, array in opened.weights("0/").items()}
    assert container.digest(repr(sorted(digests.items())).encode()) == pinned
    assert opened.header.tool == "nervcodec 0.1.0"
    assert opened.header.semantic is None


@pytest.mark.parametrize("name", ["version1_pe", "version2_pe"])
def test_embeddings_of_old_files(name):
    video = nervcodec.open(GOLDEN / f"{name}.nerv", device="cpu", precision="fp32")
    assert video.header.semantic.encoder == "offline"
    vectors = video.embeddings([0, 14])
    assert vectors.shape == (2, 2, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)
