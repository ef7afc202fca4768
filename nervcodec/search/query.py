# SPDX-License-Identifier: MIT
"""Queries: texts and images, added and subtracted, and their encoding for each encoder that containers name.

An encoded query has a vector that patches are ranked by and a test of whether a patch matches. The score of the best
patch says little by itself: every text has some patch that suits it best. The offline encoder's embeddings are
mixtures of class vectors, so the test is the share of the classes that the query means. For any other encoder the
query is compared with neutral prompts, everyday things of all kinds: one that is in the picture describes its best
patch better than nearly all of them.
"""

from __future__ import annotations

import re
import stat
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nervcodec.errors import ConfigError, EncoderError
from nervcodec.formats.text import shorten
from nervcodec.semantic import cache as disk_cache
from nervcodec.semantic.encoder import SemanticEncoder, load
from nervcodec.semantic.offline import OfflineEncoder

if TYPE_CHECKING:
    from PIL import Image

    from nervcodec.semantic.classes import ClassMixture

SIGNS = {"+": 1.0, "-": -1.0}
_NEGATION = re.compile(r"(?i)\b(not|no|without)\s+(.*\w.*)")
MIN_SHARE = 0.2  # of a patch: the classes that a query means, less their share in an even mixture of all classes
MIN_PERCENTILE = 0.88  # of the neutral prompts must describe a patch less well than the query
_SYNONYM = 0.9  # cosine of query and neutral prompt from which on the prompt means the same and does not count


@dataclass(frozen=True)
class Term:
    """One part of a query.

    Attributes:
        text: words, or None for an image.
        image: an image file, or None for words.
        sign: 1 to add it, -1 to subtract it.
    """

    text: str | None = None
    image: Path | None = None
    sign: float = 1.0


@dataclass(frozen=True)
class Query:
    """A sum of terms, the first of them positive.

    Raises:
        ConfigError: a text is empty or not valid Unicode.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        for text in (term.text for term in self.terms if term.text is not None):
            if not text.strip():
                raise ConfigError("the query is empty")
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ConfigError(f"the query is not valid UTF-8: {self}")

    def __str__(self) -> str:
        """One line of no more than about 70 characters."""
        parts = [f"{'+' if t.sign > 0 else '-'} {t.text if t.text is not None else t.image}" for t in self.terms]
        return shorten(" ".join(parts).removeprefix("+ ").strip())

    @property
    def has_image(self) -> bool:
        """Whether an image is among the terms."""
        return any(term.image is not None for term in self.terms)

    def notes(self) -> list[str]:
        """A sentence for each text with a negation, which encoders do not understand."""
        found = (_NEGATION.search(term.text) for term in self.terms if term.text is not None)
        return [
            f'no encoder understands "{negation[1].lower()}"; subtract what should not be there: - '
            + (f'"{rest}"' if " " in (rest := normalize_text(negation[2])) else rest)
            for negation in found
            if negation is not None
        ]

    def normalized(self) -> Query:
        """The same query with every text normalised."""
        return Query(tuple(t if t.text is None else replace(t, text=normalize_text(t.text)) for t in self.terms))


def parse_query(words: Sequence[str], image: Path | None) -> tuple[Query, list[str]]:
    """Read ``TEXT [+ TEXT | - TEXT]... [FILE]...``; with an image, the first text is left out.

    Returns:
        The query and the words after it.

    Raises:
        ConfigError: no text and no image, an empty text, or a sign without a text.
    """
    rest = list(words)
    terms = [Term(image=image)] if image is not None else []
    if image is None:
        if not rest:
            raise ConfigError("name what to look for: a text, or --image FILE")
        terms.append(Term(rest.pop(0)))
    while rest and rest[0] in SIGNS:
        sign = SIGNS[rest.pop(0)]
        if not rest:
            raise ConfigError("a + or - needs a text after it")
        terms.append(Term(rest.pop(0), sign=sign))
    return Query(tuple(terms)), rest


# ---------------------------------------------------------------------- encoding


class EncodedQuery(NamedTuple):
    """A query for the embeddings of one encoder.

    Attributes:
        vector: ``(D,)`` of length 1; patches are ranked by their dot product with it.
        is_match: from ``(m, D)`` patch embeddings to ``(m,)`` bool, whether each shows the query; None accepts all.
        unsupported_texts: of the query, which the encoder cannot read; nothing matches if there are any.
        neutral: gives the embeddings of the neutral prompts, ``(n, D)``; None if there are none.
    """

    vector: np.ndarray
    is_match: Callable[[np.ndarray], np.ndarray] | None = None
    unsupported_texts: tuple[str, ...] = ()
    neutral: Callable[[], np.ndarray] | None = None

    def messages(self, encoder: str) -> list[str]:
        """A sentence for each text that the encoder of this name cannot read."""
        return [f'the {encoder} encoder reads English only, not "{text[:40]}"' for text in self.unsupported_texts]

    def standing(self, patch: np.ndarray) -> float:
        """The score of a patch ``(D,)`` in standard deviations above the mean score of the neutral prompts, which is
        comparable between encoders; without neutral prompts the score itself."""
        score = float(patch @ self.vector)
        if self.neutral is None:
            return score
        others = self.neutral() @ patch
        return (score - float(others.mean())) / max(float(others.std()), 1e-9)


@dataclass(frozen=True)
class ClassShareTest:
    """Accepts patches of which a large enough share are the classes that a query means.

    Attributes:
        mixture: the encoder's.
        relevance: ``(C,)`` of each class.
    """

    mixture: ClassMixture
    relevance: np.ndarray

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Which of ``(m, D)`` patch embeddings match: ``(m,)`` bool."""
        return self.share(patches) >= MIN_SHARE

    def share(self, patches: np.ndarray) -> np.ndarray:
        """The share of relevant classes in each patch, less their share in an even mixture of all classes: ``(m,)``."""
        return self.mixture.shares(patches) @ self.relevance - self.relevance.mean()


@dataclass(frozen=True)
class NeutralPromptTest:
    """Accepts patches that a query describes better than neutral prompts do.

    Attributes:
        query: ``(D,)`` of length 1.
        neutral: ``(n, D)`` of length 1.
    """

    query: np.ndarray
    neutral: np.ndarray

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Which of ``(m, D)`` patch embeddings match: ``(m,)`` bool."""
        return self.percentile(patches) >= MIN_PERCENTILE

    def percentile(self, patches: np.ndarray) -> np.ndarray:
        """The fraction of neutral prompts that match a patch less well than the query does: ``(m,)``, 0 to 1."""
        others = self.neutral[self.neutral @ self.query < _SYNONYM]
        if not len(others):
            return np.ones(len(patches))
        return (patches @ others.T < (patches @ self.query)[:, None]).mean(axis=1)


def neutral_prompts() -> list[str]:
    """The lines of ``neutral.txt``, normalised as queries are."""
    text = resources.files("nervcodec.search").joinpath("neutral.txt").read_text(encoding="utf-8")
    return [normalize_text(line) for line in text.splitlines() if line.strip()]


def neutral_vectors(encoder: SemanticEncoder) -> np.ndarray:
    """Embeddings of the neutral prompts, ``(n, D)`` float32 of length 1; cached on disk for each encoder."""
    prompts = neutral_prompts()
    name = disk_cache.key("neutral prompts 2", encoder.name, *prompts)
    vectors = disk_cache.load("prompts", name)
    if vectors is None or vectors.shape != (len(prompts), encoder.dimension):
        vectors = encoder.embed_text(prompts)
        if isinstance(encoder, OfflineEncoder):
            relevance = encoder.class_relevance(prompts)
            vectors = np.stack([normalize_vector(encoder.mixture.direction(row)) for row in relevance])
        disk_cache.store("prompts", name, vectors)
    return vectors


def encode_query(query: Query, encoder: SemanticEncoder, cut_off: bool = True) -> EncodedQuery:
    """Encode a query. Texts are normalised first.

    Args:
        query: texts and images.
        encoder: of the embeddings that it is compared with.
        cut_off: add a test of whether a patch matches. A query with an image has none: neutral prompts are texts, and
            say nothing about the scores of images.

    Raises:
        ConfigError: an image cannot be read, or terms cancel each other out.
    """
    query = query.normalized()
    texts = [term.text for term in query.terms if term.text is not None]
    neutral = partial(neutral_vectors, encoder)
    if not isinstance(encoder, OfflineEncoder):
        vector = embed_terms(query, encoder)
        test = NeutralPromptTest(vector, neutral()) if cut_off and not query.has_image else None
        return EncodedQuery(vector, test, neutral=neutral)
    if unsupported := tuple(text for text in texts if not encoder.reads(text)):
        return EncodedQuery(np.zeros(encoder.dimension, np.float32), _match_nothing, unsupported)
    if query.has_image:
        return EncodedQuery(embed_terms(query, encoder), neutral=neutral)
    signs = np.array([term.sign for term in query.terms], np.float32)
    relevance = signs @ encoder.class_relevance(texts) / max(1, (signs > 0).sum())
    mixture = encoder.mixture
    share_test = ClassShareTest(mixture, relevance.clip(0)) if cut_off else None
    return EncodedQuery(normalize_vector(mixture.direction(relevance)), share_test, neutral=neutral)


def _match_nothing(patches: np.ndarray) -> np.ndarray:
    return np.zeros(len(patches), bool)


def embed_terms(query: Query, encoder: SemanticEncoder) -> np.ndarray:
    """The sum of the terms' embeddings with their signs, ``(D,)`` of length 1.

    Raises:
        ConfigError: an image cannot be read, or terms cancel each other out.
    """
    total = np.zeros(encoder.dimension)
    for term in query.terms:
        if term.image is not None:
            (vector,) = encoder.embed_images([read_image(term.image)])
        else:
            (vector,) = encoder.embed_text([term.text or ""])
        total += term.sign * vector
    return normalize_vector(total)


def normalize_vector(vector: np.ndarray) -> np.ndarray:
    """A query's vector scaled to length 1, float32.

    Raises:
        ConfigError: its length is 0.
    """
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise ConfigError("the parts of the query cancel each other out")
    return (vector / length).astype(np.float32)


class QueryEncoder:
    """Encodes a query for the encoder of each container; each is loaded once.

    Args:
        query: texts and images.
        device: where encoders run, as :func:`nervcodec.open`.
        cut_off: leave out what does not match.
        encoder: one that is loaded, used for every container.

    Attributes:
        messages: texts of the query that encoders cannot read, a sentence each.
    """

    def __init__(
        self, query: Query, device: str = "auto", cut_off: bool = True, encoder: SemanticEncoder | None = None
    ):
        self._query, self._device, self._cut_off, self._loaded = query, device, cut_off, encoder
        self._encoded: dict[str, EncodedQuery | EncoderError] = {}
        self.messages: list[str] = []

    def __call__(self, name: str) -> EncodedQuery:
        """Encode the query with the encoder of that name.

        Raises:
            EncoderError: the encoder cannot be loaded here.
            ConfigError: as :func:`encode_query`.
        """
        if name not in self._encoded:
            try:
                encoder = self._loaded or load(name, self._resolve_device())
                self._encoded[name] = encoded = encode_query(self._query, encoder, self._cut_off)
                self.messages += encoded.messages(name)
            except EncoderError as error:
                self._encoded[name] = error
        result = self._encoded[name]
        if isinstance(result, EncoderError):
            raise result
        return result

    def _resolve_device(self) -> str:
        """Where encoders run. A text encoder needs no GPU, and detecting one requires the import of torch."""
        if self._device == "auto" and not self._query.has_image:
            return "cpu"
        from nervcodec.device import choose

        return choose(self._device).device


# ---------------------------------------------------------------------- texts

_ARTICLE = r"(?:(?:an?|the|some|any)\s+)?"
_NUMBER = r"(?:(?:two|three|four|five|six|many|several|few|lots\s+of|lot\s+of|group\s+of|pair\s+of)\s+)?"
_PICTURE = r"(?:photo|photograph|picture|image|shot|view|video|clip|footage|frame|scene)s?\s+(?:of|with|showing)\s+"
_LEAD = re.compile(
    rf"(?:(?:please\s+)?(?:show|find|give)\s+(?:me\s+)?)?(?:{_ARTICLE}{_PICTURE})?{_ARTICLE}{_NUMBER}", re.IGNORECASE
)
_SINGULAR_LEAD = re.compile(r"\b(?:an?|one)\s*$", re.IGNORECASE)  # the noun after it is singular, even with an s
_AFTER_HEAD = re.compile(r"(?i)(?:in|on|at|of|with|without|under|over|behind|by|for|from|near|and|or|that|which|who)")


def normalize_text(text: str) -> str:
    """The text in lower case and in the singular, on one line, without quotation marks, "a photo of" and articles.

    Of a phrase, the last word before the first preposition is the head noun: "men in suits" becomes "man in suits". A
    text of which nothing would remain is only put on one line.

    >>> normalize_text("  A photo of THE   Buses! ")
    'bus'
    >>> normalize_text("people"), normalize_text("a man in a suit"), normalize_text("BMW"), normalize_text("glasses")
    ('person', 'man in a suit', 'bmw', 'glasses')
    """
    line = " ".join(text.split())
    words = _trim(line)
    lead = _LEAD.match(words)
    assert lead is not None  # each part of it is optional
    rest = words[lead.end() :]
    if not rest:
        return (words or line).lower()
    parts = rest.split(" ")
    if not _SINGULAR_LEAD.search(lead[0]):
        head = _head(parts)
        parts[head] = _singular(parts[head])
    return " ".join(parts).lower()


def _trim(line: str) -> str:
    """The line without other characters than letters, digits and brackets at both ends."""
    return re.sub(r"^[^\w(]+|[^\w)+#]+$", "", line)


def _head(parts: list[str]) -> int:
    """Position of the head noun."""
    for number, word in enumerate(parts):
        if number and _AFTER_HEAD.fullmatch(word):
            return number - 1
    return len(parts) - 1


def _singular(word: str) -> str:
    small = word.lower()
    irregular, endings = _irregular_plurals()
    if small in irregular:
        return irregular[small]
    for ending in endings:
        if small.endswith(ending):
            return small.removesuffix(ending) + irregular[ending]
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
def _irregular_plurals() -> tuple[dict[str, str], tuple[str, ...]]:
    """Words of ``plurals.txt`` with their singulars, and those that are also endings of longer words."""
    text = resources.files("nervcodec.search").joinpath("plurals.txt").read_text(encoding="utf-8")
    items = " ".join(line for line in text.splitlines() if not line.startswith("#")).split()
    pairs = [(plural, singular or plural) for plural, _, singular in (item.partition(":") for item in items)]
    return {p.removeprefix("-"): s for p, s in pairs}, tuple(p[1:] for p, _ in pairs if p.startswith("-"))


# ---------------------------------------------------------------------- images

_MAX_SIDE = 4096  # pixels; encoders scale images to a few hundred
_WHITE_LEVELS = (1, 255, 65_535)  # in images of floating-point numbers


def read_image(path: Path) -> np.ndarray:
    """Pixels of an image file as viewers show it: upright, on white where it is transparent, the first of several.

    Returns:
        ``(H, W, 3)`` uint8 RGB.

    Raises:
        ConfigError: not an image, damaged, cut short, not a regular file, or of more pixels than Pillow accepts.
    """
    from PIL import Image, ImageOps

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: is not an image file but a folder, pipe or device")
        with warnings.catch_warnings():
            # Pillow's warnings about odd metadata and large images, which it reads all the same.
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                opened.load()
                image = _opaque(ImageOps.exif_transpose(opened))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        reason = "the image is cut short or damaged" if isinstance(error, struct.error) else error
        raise ConfigError(f"{path}: is not an image that can be read ({reason})") from None
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    return np.array(image)


def _opaque(image: Image.Image) -> Image.Image:
    """The image in RGB, on white where it is transparent."""
    from PIL import Image

    if image.mode[0] in "IF":
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grey levels of 16 bits, 32 bits or floating-point numbers, ``(H, W)``, as uint8.

    Integers are scaled from 0 to 65,535, floating-point numbers from the smallest of 0 to 1, to 255 and to 65,535 that
    holds them. Values outside of these ranges are scaled from their minimum to their maximum.
    """
    levels = np.nan_to_num(values.astype(np.float64))
    low, high = float(levels.min()), float(levels.max())
    levels_of_type = _WHITE_LEVELS if values.dtype.kind == "f" else _WHITE_LEVELS[-1:]
    white = next((level for level in levels_of_type if low >= 0 and high <= level), None)
    if white is not None:
        low, high = 0.0, float(white)
    return np.rint((levels - low) * 255 / max(high - low, 1e-12)).astype(np.uint8)
