# SPDX-License-Identifier: MIT
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nervcodec.search.query import normalize_text


@pytest.mark.parametrize(
    "thing", ["bicycle", "bus", "traffic light", "man in a suit", "knife", "box", "puppy", "horse"]
)
def test_the_wording_does_not_matter(thing):
    head, of, rest = thing.partition(" in ")
    many = {"man": "men", "knife": "knives", "bus": "buses", "box": "boxes", "puppy": "puppies"}.get(head, f"{head}s")
    for text in (
        thing, f"a {thing}", f"the {thing}", thing.upper(), thing.title(), f"a photo of a {thing}", f"  {thing}\n",
        f"Photo of the {thing}.", f"“{thing}”", f"{thing}?!", f"show me a {thing}", f"some {many}{of}{rest}",
        f"two {many}{of}{rest}", f"{many}{of}{rest}".upper(), f"images of {many}{of}{rest}",
    ):  # fmt: skip
        assert normalize_text(text) == thing


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("people", "person"), ("men", "man"), ("women", "woman"), ("children", "child"), ("policemen", "policeman"),
        ("buses", "bus"), ("glasses", "glasses"), ("scissors", "scissors"), ("trousers", "trousers"),
        ("grass", "grass"), ("bus", "bus"), ("news", "news"), ("series", "series"), ("dress", "dress"),
        ("dresses", "dress"), ("houses", "house"), ("faces", "face"), ("leaves", "leaf"), ("tomatoes", "tomato"),
        ("shoes", "shoe"), ("taxis", "taxi"), ("tennis", "tennis"), ("oven", "oven"), ("specimen", "specimen"),
        ("TVs", "tv"), ("BMW", "bmw"), ("GPS", "gps"), ("TV", "tv"), ("CATS", "cat"), ("sky", "sky"),
        ("geese", "goose"),
    ],
)  # fmt: skip
def test_plurals(many, one):
    assert normalize_text(many) == one


def test_phrases_stay_what_they_are():
    assert normalize_text("a cyclist wearing a helmet") == "cyclist wearing a helmet"
    assert normalize_text("men in suits") == "man in suits"
    assert normalize_text("a man walks past") == "man walks past"
    assert normalize_text("photo") == "photo"
    assert normalize_text("a photo of a") == "a"
    assert normalize_text("?!") == "?!"
    assert normalize_text("собака") == "собака"


@given(st.text(max_size=40))
def test_any_text_has_plain_words(text):
    found = normalize_text(text)
    assert found == " ".join(found.split())
    assert bool(found) == bool(text.split())
