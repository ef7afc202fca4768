# SPDX-License-Identifier: MIT
import os
import shutil
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nervcodec
from nervcodec.coordinates import PatchGrid
from nervcodec.errors import ConfigError, ContainerError
from nervcodec.formats import container
from nervcodec.network.stored import EmbeddingParts
from nervcodec.search.moments import find_moments
from nervcodec.search.query import (
    EncodedQuery,
    NeutralPromptTest,
    Query,
    Term,
    embed_terms,
    neutral_prompts,
    neutral_vectors,
    parse_query,
)
from nervcodec.search.scores import QuantizedSegment, VideoEmbeddings, open_embeddings
from nervcodec.semantic import cache
from nervcodec.semantic.encoder import load

GOLDEN = Path(__file__).parents[1] / "golden"


def random_index(frames=(7, 3), patches=(2, 3), dimension=16, rank=5, seed=0, path="a.nerv"):
    rng = np.random.default_rng(seed)
    segments = tuple(
        QuantizedSegment.quantize(
            EmbeddingParts(
                rng.normal(size=(n, patches[0] * patches[1], rank)).astype(np.float32),
                rng.normal(size=(rank, dimension)).astype(np.float32),
                rng.normal(size=dimension).astype(np.float32),
                *(rng.integers(0, n, 2 * n) for _ in range(2)),
                rng.random(2 * n).astype(np.float32),
            )
        )
        for n in frames
    )
    grid = PatchGrid(40, 60, *patches)
    count = 2 * sum(frames)
    return VideoEmbeddings(Path(path), path, "toy", grid, count, Fraction(25), count / 25, None, segments)


class Toy:
    """An encoder of two words and of images by their mean colour."""

    name, dimension = "toy", 3

    def embed_text(self, texts):
        return np.array([{"red": [1, 0, 0], "green": [0, 1, 0]}[text] for text in texts], np.float32)

    def embed_images(self, images):
        means = np.array([image.mean(axis=(0, 1)) for image in images], np.float32)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_scores_are_those_of_the_embeddings(small_nerv):
    video = nervcodec.open(small_nerv, precision="fp32")
    index = VideoEmbeddings.from_video(video)
    embeddings = video.embeddings()
    query = load("offline").embed_text(["a bicycle"])[0]
    assert index.scores(query) == pytest.approx(embeddings @ query, abs=5e-3)
    assert index.embedding(30, 5) == pytest.approx(embeddings[30, 5], abs=0.01)
    assert np.linalg.norm(index.embedding(49, 7)) == pytest.approx(1, abs=1e-3)
    with pytest.raises(IndexError):
        index.embedding(50, 0)


@pytest.mark.parametrize("name", ["grid", "lapped", "pe", "scenes", "shared"])
def test_codes_are_read_without_a_network_as_with_it(name):
    path = GOLDEN / f"version3_{name}.nerv"
    with nervcodec.open(path) as video:
        assert VideoEmbeddings.read(path).to_bytes() == VideoEmbeddings.from_video(video).to_bytes()


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 6), st.integers(0, 99))
def test_an_index_comes_back_as_it_was(frames, rank, seed):
    index = random_index(tuple(frames), rank=rank, seed=seed)
    back = VideoEmbeddings.from_bytes(index.to_bytes(), Path("b.nerv"))
    query = np.random.default_rng(seed).normal(size=16)
    assert np.array_equal(back.scores(query), index.scores(query))
    assert back.path == Path("b.nerv")
    assert (back.frame_times_s == index.frame_times_s).all()


@settings(max_examples=60)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_damaged_index_is_refused(junk, position):
    blob = random_index().to_bytes()
    for damaged in (junk, blob[:position], blob[:position] + junk + blob[position + len(junk) :]):
        try:
            VideoEmbeddings.from_bytes(damaged, Path("a"))
        except ValueError:
            continue
        assert len(damaged) == len(blob)  # numbers may differ, the structure may not


def test_the_cache_is_found_by_content(small_nerv, tmp_path, monkeypatch):
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "cache"))
    first = open_embeddings(small_nerv)
    (entry,) = (tmp_path / "cache" / "index").iterdir()
    assert entry.stat().st_size < 100_000
    moved = tmp_path / "moved.nerv"
    shutil.copy2(small_nerv, moved)
    with monkeypatch.context() as patch:
        patch.setattr("nervcodec.network.stored.StoredNetworks", None)  # a hit needs no network
        again = open_embeddings(moved)
    assert again.path == moved
    query = np.ones(384, np.float32)
    assert again.scores(query) == pytest.approx(first.scores(query), abs=1e-5)
    entry.write_bytes(entry.read_bytes()[:100])  # damaged: read from the container again
    assert open_embeddings(moved).scores(query) == pytest.approx(first.scores(query), abs=1e-5)
    assert entry.stat().st_size > 1000


def test_a_cache_that_cannot_be_written_only_costs_time(small_nerv, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "file"))
    assert open_embeddings(small_nerv).frame_count == 50
    assert not cache.store_bytes("index", "a", b"x")


def test_the_mean_around_a_frame():
    index = replace(random_index((20, 5)), segments=tuple(map(every_frame_its_own, random_index((20, 5)).segments)))
    wanted = np.mean([index.embedding(n, 2) for n in range(13, 24)], axis=0)
    assert index.mean_embedding(18, 2, 0.2) == pytest.approx(wanted)
    assert index.mean_embedding(0, 2, 0.04) == pytest.approx((index.embedding(0, 2) + index.embedding(1, 2)) / 2)


def every_frame_its_own(segment):
    frames = np.arange(segment.frame_count, dtype=np.int32)
    entries = np.resize(segment.coefficients, (len(frames), *segment.coefficients.shape[1:]))
    return replace(segment, coefficients=entries, before=frames, after=frames)


def test_the_mean_stops_at_a_cut():
    (segment,) = random_index((3,)).segments
    index = replace(random_index((3,)), segments=(replace(segment, cuts=np.array([3], np.int32)),))
    assert index.shots.tolist() == [0, 0, 0, 1, 1, 1]
    assert index.mean_embedding(3, 0, 1.0) == pytest.approx(np.mean([index.embedding(n, 0) for n in (3, 4, 5)], axis=0))


def test_fingerprints(small_nerv, tmp_path):
    assert len(container.fingerprint(small_nerv)) == 16
    blob = small_nerv.read_bytes()
    for name, data in (("short", blob[:-1]), ("long", blob + b"x"), ("other", b"x" * 100), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ContainerError):
            container.fingerprint(tmp_path / name)
    with pytest.raises(ContainerError, match="cannot be read"):
        container.fingerprint(tmp_path / "none")


@pytest.mark.parametrize("offsets", ["[]", "[0]", "7", '["0", "9"]', "[0, 1e9]", "[0, null]", "{}"])
def test_fingerprints_of_odd_tables(tmp_path, offsets):
    """The first was found by fuzzing."""
    metadata = '"__metadata__": {"format": "nerv", "header_checksum": "0"}'
    table = f'{{{metadata}, "0/a": {{"data_offsets": {offsets}}}}}'.encode()
    (tmp_path / "a.nerv").write_bytes(struct.pack("<Q", len(table)) + table)
    with pytest.raises(ContainerError, match="damaged"):
        container.fingerprint(tmp_path / "a.nerv")


def test_the_best_of_many_files():
    indexes = [random_index(seed=n, path=f"{n}.nerv") for n in range(60)]
    query = np.random.default_rng(5).normal(size=16)
    query /= np.linalg.norm(query)
    found = find_moments(iter(indexes), lambda name: EncodedQuery(query), 5)
    every = [m for index in indexes for m in find_moments([index], lambda name: EncodedQuery(query), 100)]
    every.sort(key=lambda m: -m.score)
    assert [m.score for m in found] == [m.score for m in every[:5]]
    patches = find_moments(indexes, lambda name: EncodedQuery(query), 7, grouping="patch")
    scores = np.sort(np.concatenate([index.scores(query).ravel() for index in indexes]))[::-1]
    assert [m.score for m in patches] == pytest.approx(scores[:7])


def test_standing_among_neutral_prompts():
    patch, neutral = np.array([[1.0, 0, 0]]), np.array([[0.8, 0.6, 0], [0, 1, 0], [0, 0, 1], [0.6, 0, 0.8]])
    assert NeutralPromptTest(np.array([0.9, 0, 0.4]), neutral).percentile(patch) == 1
    assert NeutralPromptTest(np.array([0.7, 0, -0.7]), neutral).percentile(patch) == 0.75
    synonym = np.array([0.75, 0.65, 0])  # describes the patch less well than the first prompt, which says the same
    assert NeutralPromptTest(synonym, neutral).percentile(patch) == 1


def test_what_does_not_pass_the_test_is_left_out():
    index = random_index((1,))
    query = np.random.default_rng(1).normal(size=16)
    assert find_moments([index], lambda name: EncodedQuery(query), 5)
    assert (
        find_moments([index], lambda name: EncodedQuery(query, lambda patches: np.zeros(len(patches), bool)), 5) == []
    )
    tested = []

    def shows(patches):
        tested.append(patches)
        return patches @ query > 0

    found = find_moments([index, random_index((3,), seed=4)], lambda name: EncodedQuery(query, shows), 5)
    assert found
    assert all(patches.shape[1] == 16 for patches in tested)
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)


def test_neutral_prompts_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path))
    prompts = neutral_prompts()
    assert len(set(prompts)) == len(prompts) > 100

    class Counting:
        name, dimension, calls = "counting", 2, 0

        def embed_text(self, texts):
            self.calls += 1
            return np.ones((len(texts), 2), np.float32)

    encoder = Counting()
    assert neutral_vectors(encoder).shape == (len(prompts), 2)
    assert (neutral_vectors(encoder) == 1).all()
    assert encoder.calls == 1
    assert len(os.listdir(tmp_path / "prompts")) == 1


def test_words_become_terms():
    query, rest = parse_query(["a horse", "+", "stripes", "-", "fruit", "a.nerv", "b"], None)
    assert [(t.text, t.sign) for t in query.terms] == [("a horse", 1), ("stripes", 1), ("fruit", -1)]
    assert rest == ["a.nerv", "b"]
    assert str(query) == "a horse + stripes - fruit"
    query, rest = parse_query(["+", "red", "a.nerv"], Path("like.png"))
    assert [t.image for t in query.terms] == [Path("like.png"), None]
    assert rest == ["a.nerv"]
    for bad in ([], [" "], ["a", "+"], ["a", "-", ""]):
        with pytest.raises(ConfigError):
            parse_query(bad, None)


def test_terms_become_one_vector(tmp_path):
    from PIL import Image

    def vector(*terms):
        return embed_terms(Query(terms), Toy())

    assert vector(Term("red")) == pytest.approx([1, 0, 0])
    assert vector(Term("red"), Term("green")) == pytest.approx([0.5**0.5, 0.5**0.5, 0])
    assert vector(Term("red"), Term("green", sign=-1.0)) == pytest.approx([0.5**0.5, -(0.5**0.5), 0])
    Image.new("RGB", (4, 4), (0, 200, 0)).save(tmp_path / "g.png")
    assert vector(Term(image=tmp_path / "g.png")) == pytest.approx([0, 1, 0])
    with pytest.raises(ConfigError, match="cancel"):
        vector(Term("red"), Term("red", sign=-1.0))
