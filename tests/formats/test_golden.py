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
from nervcodec.formats.header import FORMAT_VERSION

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = ["version3_grid", "version3_pe", "version3_shared", "version3_lapped", "version3_scenes", "version3_plain"]


@pytest.mark.parametrize("name", FILES)
def test_old_files_decode_to_the_same_pictures(name):
    video = nervcodec.open(GOLDEN / f"{name}.nerv", device="cpu", precision="fp32")
    assert len(video) == 15
    with Image.open(GOLDEN / f"{name}.png") as image:
        expected = np.asarray(image).astype(int)
    decoded = np.concatenate([video[0], video[14]], axis=1).astype(int)
    assert np.abs(decoded - expected).max() <= 2
    assert np.abs(decoded - expected).mean() < 0.1


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        ("version3_grid", "9e925ee7c91d7459"),
        ("version3_shared", "52d5cc2d412251b0"),
        ("version3_lapped", "f88c17b2ca8b1f6f"),
        ("version3_scenes", "d045ade73a093d0d"),
        ("version3_plain", "6b6108086535bf5f"),
    ],
)
def test_the_numbers_they_hold_are_pinned(name, pinned):
    with Container.open(GOLDEN / f"{name}.nerv") as opened:
        shared = opened.shared_weights()
        weights = opened.network("0/").decode() | (shared.decode() if shared else {})
    digests = {name: container.checksum(array) for name, array in weights.items()}
    assert container.digest(repr(sorted(digests.items())).encode()) == pinned
    assert name.startswith(f"version{FORMAT_VERSION}_")
    assert opened.header.tool in ("nervcodec 0.1.0", "nervcodec tests")
    assert (opened.header.semantic is None) == (name == "version3_plain")


WITH_EMBEDDINGS = ["version3_pe", "version3_grid", "version3_lapped", "version3_scenes"]
WITH_EMBEDDINGS += ["version3_base", "version3_copy", "version3_sample"]


@pytest.mark.parametrize("name", WITH_EMBEDDINGS)
def test_embeddings_of_old_files(name):
    video = nervcodec.open(GOLDEN / f"{name}.nerv", device="cpu", precision="fp32")
    assert video.header.semantic.encoder == "offline"
    vectors = video.embeddings([0, len(video) - 1])
    assert vectors.shape == (2, 2, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)
