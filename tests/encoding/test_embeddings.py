# SPDX-License-Identifier: MIT
"""Embeddings of several segments in one basis, which is stored once."""

import numpy as np
import pytest

import nervcodec
from nervcodec.encoding.embeddings import EmbeddingBasis, SegmentEmbeddings, head_of
from nervcodec.formats import bitstream
from nervcodec.formats.container import Container

GRID, DIMENSION = (2, 2), 48


def embeddings(count, seed):
    """Unit vectors about a mean of their own, most of whose variance is in a few directions."""
    common = np.random.default_rng(7)
    mean, directions = common.normal(size=DIMENSION), common.normal(size=(6, DIMENSION))
    strengths = np.array([3.0, 2, 1.5, 1, 0.5, 0.2])
    own = np.random.default_rng(seed)
    vectors = 3 * mean + (own.normal(size=(count, 4, 6)) * strengths) @ directions
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def segment(count, seed):
    return SegmentEmbeddings(np.arange(count) * 5, embeddings(count, seed).astype(np.float16))


def decoded(basis, head):
    values = bitstream.values({**basis.tensors, **head.tensors})
    codes = values["semantic.codes"].reshape(len(values["semantic.codes"]), basis.head.rank, -1).transpose(0, 2, 1)
    vectors = (codes * values["semantic.gain"]) @ values["semantic.directions.weight"].T + values["semantic.mean"]
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_codes_in_a_basis_are_as_good_as_in_one_of_their_own():
    embeddings_by_segment = [segment(12, seed) for seed in range(5)]
    basis = EmbeddingBasis.of(embeddings_by_segment, GRID, 1e9)
    own_bytes = shared_bytes = 0
    for each in embeddings_by_segment:
        head = head_of(each, GRID, 0, basis)
        assert set(head.tensors) == {"semantic.codes"}
        assert head.semantic.rank == basis.head.rank
        reference = each.reference.astype(np.float32)
        centre = reference.mean(axis=(0, 1))
        a, b = decoded(basis, head) - centre, reference - centre
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert cosine.mean() > 0.88
        shared_bytes += head.size_bytes
        own_bytes += head_of(each, GRID, 1e9).size_bytes
    assert shared_bytes + basis.size_bytes < 0.75 * own_bytes


def test_a_long_video_is_sampled():
    embeddings_by_segment = [segment(300, seed) for seed in range(3)]
    basis = EmbeddingBasis.of(embeddings_by_segment, GRID, 1e9)
    assert len(basis.head.tensors["semantic.codes"].integers) == 300  # every third of 900
    assert "semantic.codes" not in basis.tensors


def test_a_segment_without_embeddings():
    basis = EmbeddingBasis.of([segment(5, 0)], GRID, 1e9)
    for embeddings in (None, segment(0, 0)):
        assert head_of(embeddings, GRID, 1e9, basis).semantic is None
        assert head_of(embeddings, GRID, 1e9).semantic is None


@pytest.mark.slow
@pytest.mark.parametrize("base", ["av1", "copy"])
def test_a_file_of_several_segments(base, carphone, tmp_path, run):
    options = {"base": base, "encoder": "offline", "semantic_fps": 3.0}
    trimmed = {"duration_s": 3.0} if base == "av1" else {}
    one = nervcodec.encode(carphone, tmp_path / "one.nerv", segment="none", **options, **trimmed)
    many = nervcodec.encode(carphone, tmp_path / "many.nerv", segment="1s", **options, **trimmed)
    assert many.frames == one.frames
    with Container.open(tmp_path / "many.nerv") as opened:
        opened.verify()
        weights = sum(opened.nbytes(name) for name in opened.header.tensors if name.endswith("/weights"))
        assert opened.header.fit.entropy_bytes == pytest.approx(weights, rel=0.3)
        assert opened.header.shared == "shared/"
        assert set(opened.shared_weights().table()) == {
            "semantic.gain", "semantic.directions.weight", "semantic.mean",
        }  # fmt: skip
        for part in opened.header.segments:
            assert set(opened.network(part.prefix).table()) == {"semantic.codes"}
    with nervcodec.open(tmp_path / "many.nerv") as a, nervcodec.open(tmp_path / "one.nerv") as b:
        numbers = sorted({*a.embedded_frames(0)} & {*b.embedded_frames(0)})
        assert numbers
        cosine = (a.embeddings(numbers) * b.embeddings(numbers)).sum(-1)
        assert cosine.mean() > 0.95
        assert np.array_equal(a[3], b[3]) == (base == "copy")
    found = run("search", "a man", "many.nerv", "--min-score", "-2", "-k", "1", "--json")
    assert found.returncode == 0, found.stderr
    said = run("info", "many.nerv")
    assert said.returncode == 0, said.stderr
