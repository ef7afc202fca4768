# SPDX-License-Identifier: MIT
from pathlib import Path

import efficientnet_lite_pytorch
import numpy as np
import pytest

import nervcodec
from nervcodec.search.query import MIN_SHARE, ClassShareTest, NeutralPromptTest, Query, Term, encode_query
from nervcodec.semantic.classes import ClassMixture, Vocabulary, class_names, read_vocabulary
from nervcodec.semantic.encoder import load
from nervcodec.semantic.offline import OfflineEncoder

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def offline():
    return load("offline")


def test_negations_are_noted():
    assert Query((Term("a street without bicycles"),)).notes() == [
        'no encoder understands "without"; subtract what should not be there: - bicycle'
    ]
    (note,) = Query((Term("Not a red car"), Term("a nose and a knot", sign=-1))).notes()
    assert note.endswith('- "red car"')
    assert Query((Term("a nose"), Term("no"), Term(image=Path("no.png")))).notes() == []


def ask(text, encoder, **options):
    return encode_query(Query((Term(text),)), encoder, **options)


def blend(encoder, **classes):
    """The vector of an image of these classes, as the encoder makes it."""
    names = {name.replace(" ", "_"): number for number, name in enumerate(class_names())}
    vector = sum(share * encoder.mixture.class_vectors[names[name]] for name, share in classes.items())
    return (vector / np.linalg.norm(vector))[None]


def test_shares_come_back_from_a_blend():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 40)) + 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = np.zeros((3, 60))
    wanted[0, [3, 50]], wanted[1, 7], wanted[2, [1, 2, 3]] = [0.7, 0.3], 1, [0.5, 0.3, 0.2]
    blended = wanted @ vectors
    blended /= np.linalg.norm(blended, axis=1, keepdims=True)
    shares = ClassMixture(vectors).shares(blended)
    assert shares.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(shares - wanted).max() < 0.1
    assert (ClassMixture(vectors).shares(np.zeros((1, 40))) == 0).all()


def test_a_direction_points_to_what_is_meant():
    vectors = np.eye(5)[:4]
    assert ClassMixture(vectors).direction(np.array([1.0, 0, 0.5, 0])) == pytest.approx(
        [0.99, 0, 0.495, 0, 0], abs=0.01
    )


def test_words_mean_classes():
    names = ["taxicab", "sink", "baluster / handrail", "crane bird"]
    words = Vocabulary(("taxicab", "sink"), np.array([[1, 0, 0, 0], [0, 1, 0, 0]], bool))
    meant = words.class_relevance(np.array([1.0, 0.3]))
    assert meant[0] > 0.95
    assert meant[1:].max() < 0.01
    assert words.class_relevance(np.array([0.3, 0.2])).max() < 0.05  # it resembles nothing
    with pytest.raises(ValueError, match="no class is called"):
        read_vocabulary(names)  # the shipped words are about ImageNet's classes


def test_every_shipped_word_is_about_a_class():
    from open_clip import IMAGENET_CLASSNAMES

    assert class_names() == list(IMAGENET_CLASSNAMES)
    words = read_vocabulary(class_names())
    assert words.has_class.any(axis=1).all()
    assert words.has_class.any(axis=0).all()
    assert {"person", "vehicle", "handrail", "taxicab"} <= set(words.words)
    people = words.has_class[words.words.index("person")]
    assert people[class_names().index("bow tie")]
    assert not people[class_names().index("valley")]


@pytest.mark.slow
def test_clothes_tell_of_people_and_a_meadow_does_not(offline):
    man = blend(offline, suit=0.4, Windsor_tie=0.3, academic_gown=0.2, oboe=0.1)
    meadow = blend(offline, hay=0.3, valley=0.3, cardoon=0.2, green_mamba=0.2)
    for text in ("a person", "people", "man", "A PHOTO OF A MAN", "face"):
        assert ask(text, offline).is_match(man), text
        assert not ask(text, offline).is_match(meadow), text
    for text in ("piano", "an elephant", "fire trucks"):
        assert not ask(text, offline).is_match(man), text
    assert ask("vehicles", offline).is_match(blend(offline, taxicab=0.3, minivan=0.3, sports_car=0.4))


@pytest.mark.slow
def test_every_wording_has_the_same_answer(offline):
    plain = ask("bicycle", offline)
    for text in ("a bicycle", "BICYCLE", "a photo of a bicycle", "bicycles", ' "Bicycle"! '):
        assert np.array_equal(ask(text, offline).vector, plain.vector)
    assert np.linalg.norm(plain.vector) == pytest.approx(1)
    assert ask("bicycle", offline, cut_off=False).is_match is None


def test_terms_that_are_taken_away(offline):
    bikes = blend(offline, mountain_bike=0.6, tandem_bicycle=0.4)
    away = encode_query(Query((Term("vehicle"), Term("bicycle", sign=-1.0))), offline)
    assert isinstance(away.is_match, ClassShareTest)
    assert away.is_match.share(bikes) < 0 < MIN_SHARE < ask("bicycle", offline).is_match.share(bikes)


@pytest.mark.parametrize("text", ["собака", "自転車", "كلب", "?!"])
def test_other_scripts_find_nothing_and_say_so(offline, text):
    for cut_off in (True, False):
        found = ask(text, offline, cut_off=cut_off)
        assert found.unsupported_texts == (text,)
        assert not found.is_match(blend(offline, suit=1.0)).any()
    assert ask("vélo 2", offline).unsupported_texts == ()
    assert nervcodec.open(GOLDEN / "version3_pe.nerv").search(text) == []


def test_the_command_notes_what_cannot_be_read(run):
    done = run("search", "собака", GOLDEN / "version3_pe.nerv")
    assert (done.returncode, done.stdout) == (0, "")
    note, nothing = done.stderr.splitlines()
    assert note == 'nervcodec: the offline encoder reads English only, not "собака"'
    assert nothing == 'nervcodec: nothing matches "собака"'


@pytest.mark.parametrize("name", ["version3_pe", "version3_lapped"])
def test_old_files_are_searched(offline, name):
    video = nervcodec.open(GOLDEN / f"{name}.nerv", device="cpu", precision="fp32")
    assert video.search("a man", k=1, encoder=offline)
    assert video.search("an elephant", encoder=offline) == []


def test_only_the_query_is_embedded_and_no_image_network_is_loaded(monkeypatch):
    encoder = load("offline")
    assert isinstance(encoder, OfflineEncoder)
    seen, loaded = [], []
    monkeypatch.setattr(efficientnet_lite_pytorch.EfficientNet, "from_name", lambda *_, **__: loaded.append(1))
    embed_text = encoder.embed_text
    monkeypatch.setattr(encoder, "embed_text", lambda texts: seen.extend(texts) or embed_text(texts))
    assert encoder.class_relevance(["bicycle"]).shape == (1, 1000)
    assert len(seen) == 1
    assert loaded == []


def test_other_encoders_are_judged_among_neutral_prompts(tiny_clip):
    encoder = load(tiny_clip)
    assert not isinstance(encoder, OfflineEncoder)
    found = ask("A Photo of a BICYCLE", encoder)
    assert isinstance(found.is_match, NeutralPromptTest)
    assert found.vector == pytest.approx(encoder.embed_text(["bicycle"])[0], abs=1e-6)
    assert found.is_match(found.vector[None])
    assert not found.is_match(-found.vector[None])
