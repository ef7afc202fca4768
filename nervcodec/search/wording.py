# SPDX-License-Identifier: MIT
"""A query in its plainest words, so that case, articles, number and "a photo of" do not decide what is found."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_ARTICLE = r"(?:(?:an?|the|some|any)\s+)?"
_NUMBER = r"(?:(?:two|three|four|five|six|many|several|few|lots\s+of|lot\s+of|group\s+of|pair\s+of)\s+)?"
_PICTURE = r"(?:photo|photograph|picture|image|shot|view|video|clip|footage|frame|scene)s?\s+(?:of|with|showing)\s+"
_LEAD = re.compile(
    rf"(?:(?:please\s+)?(?:show|find|give)\s+(?:me\s+)?)?(?:{_ARTICLE}{_PICTURE})?{_ARTICLE}{_NUMBER}", re.IGNORECASE
)
_ONE = re.compile(r"\b(?:an?|one)\s*$", re.IGNORECASE)  # what follows is one thing, whatever letter it ends with
_AFTER_HEAD = re.compile(r"(?i)(?:in|on|at|of|with|without|under|over|behind|by|for|from|near|and|or|that|which|who)")


def plain(text: str) -> str:
    """The text in lower case, on one line, without quotation marks, "a photo of" and articles, and in the singular.

    Of a phrase, the last word before the first preposition is taken for what it is about: "men in suits" becomes
    "man in suits". A text of which nothing would remain is only brought on one line.

    >>> plain("  A photo of THE   Buses! ")
    'bus'
    >>> plain("people"), plain("a man in a suit"), plain("BMW"), plain("glasses")
    ('person', 'man in a suit', 'bmw', 'glasses')
    """
    line = " ".join(text.split())
    words = _trimmed(line)
    lead = _LEAD.match(words)
    assert lead is not None  # every part of it may be missing
    rest = words[lead.end() :]
    if not rest:
        return (words or line).lower()
    parts = rest.split(" ")
    if not _ONE.search(lead[0]):
        head = _head(parts)
        parts[head] = _singular(parts[head])
    return " ".join(parts).lower()


def _trimmed(line: str) -> str:
    """Without what is neither letter nor digit at both ends; a closing bracket's partner may stand inside."""
    return re.sub(r"^[^\w(]+|[^\w)+#]+$", "", line)


def _head(parts: list[str]) -> int:
    for number, word in enumerate(parts):
        if number and _AFTER_HEAD.fullmatch(word):
            return number - 1
    return len(parts) - 1


def _singular(word: str) -> str:
    small = word.lower()
    listed, ends = _exceptions()
    if small in listed:
        return listed[small]
    for end in ends:
        if small.endswith(end):
            return small.removesuffix(end) + listed[end]
    if not small.endswith("s"):
        return word
    if re.fullmatch(r"[A-Z]{2,}s", word):  # TVs, SUVs
        return word[:-1]
    if len(word) <= 3 or small.endswith(("ss", "us", "'s")):
        return word
    if small.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if small.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


@cache
def _exceptions() -> tuple[dict[str, str], tuple[str, ...]]:
    """Words of ``plurals.txt`` with their singulars, and those that also end longer words."""
    text = resources.files("nervcodec.search").joinpath("plurals.txt").read_text(encoding="utf-8")
    items = " ".join(line for line in text.splitlines() if not line.startswith("#")).split()
    pairs = [(plural, singular or plural) for plural, _, singular in (item.partition(":") for item in items)]
    return {p.removeprefix("-"): s for p, s in pairs}, tuple(p[1:] for p, _ in pairs if p.startswith("-"))
