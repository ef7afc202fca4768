# SPDX-License-Identifier: MIT
"""Search in files, with an index where there is one: it selects the files whose embeddings are scored exactly.

The index approximates the score of the best patch of every content from 8-bit codes. The best candidates are then
scored with their own embeddings, so moments and scores are the same as without an index.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nervcodec.errors import ContainerError, EncoderError, FolderIndexError, NervError
from nervcodec.index.store import FileRow, Kind, Store, explain_errors, has_index
from nervcodec.search.moments import EXTRA_VIDEOS, Grouping, Moment, rank_videos
from nervcodec.search.query import EncodedQuery
from nervcodec.search.scores import VideoEmbeddings, dimension_error, open_videos

_MARGIN = 0.004  # upper bound of the error of approximate scores (benchmarks/NOTES.md)
_MAX_CANDIDATES = 4  # times the number of best files: limit where many scores lie within the margin
_BATCH_SEGMENTS = 16  # their bases and codes as float32 stay in the processor's cache

Stats = Mapping[Path, os.stat_result]
Known = VideoEmbeddings | NervError | None


class SearchResult(NamedTuple):
    """Moments, best first; errors of files that cannot be searched; what comes nearest where nothing matches."""

    moments: list[Moment]
    problems: list[NervError]
    nearest: Moment | None = None


def search_files(
    files: Stats,
    folders: Iterable[str],
    encode: Callable[[str], EncodedQuery],
    k: int,
    min_score: float = -2.0,
    grouping: Grouping = "scene",
    note: Callable[[str], None] = lambda _text: None,
    device: str = "auto",
    precision: str = "auto",
) -> SearchResult:
    """The best moments of any number of containers.

    Args:
        files: containers.
        folders: whose indexes are used; files elsewhere are read one by one.
        encode: gives the query for the encoder of a name.
        k, min_score, grouping: as :func:`rank_videos`.
        note: called with a message if an index is out of date or cannot be used.
        device, precision: as :func:`nervcodec.open`.

    Raises:
        ConfigError: as ``encode``.
    """
    known: dict[Path, Known] = {}
    for index, folder in dict.fromkeys((find_index(folder), folder) for folder in folders):
        if index is None:
            continue
        below = {file: stat for file, stat in files.items() if _is_below(file, folder)}
        try:
            known |= (selected := select_candidates(index, below, encode, k, grouping == "scene"))
        except FolderIndexError as error:
            note(f"{error}; files are searched one by one")
            continue
        if outdated := len(below) - len(selected):
            several = f"{outdated} files are" if outdated > 1 else "one file is"
            note(f"{several} newer than the index of {index}; nervcodec index {index} brings it up to date")
    problems: list[NervError] = []
    opened = open_videos(files, encode, problems, device, precision, known)
    moments, nearest = rank_videos(opened, encode, k, min_score, grouping)
    return SearchResult(moments, problems, nearest)


def find_index(path: str) -> Path | None:
    """The nearest folder, this one or one above it, that has an index."""
    if has_index(Path(path)):
        return Path(path)
    return next(filter(has_index, Path(os.path.abspath(path)).parents), None)


def select_candidates(
    folder: Path, files: Stats, encode: Callable[[str], EncodedQuery], k: int, fold: bool = True
) -> dict[Path, Known]:
    """What an index knows about files: the embeddings of the candidates for the best ``k`` moments, the error of a
    file that cannot be searched, None for a file that scores worse. Files newer than the index are missing.

    Args:
        folder: of the index.
        files: below it.
        encode, k: as :func:`search_files`.
        fold: containers of one video count once.

    Raises:
        FolderIndexError: the index cannot be used.
        ConfigError: as ``encode``.
    """
    with Store(folder) as store:
        with explain_errors(folder):
            rows, kinds, sources = _current_rows(store, files), store.kinds(), store.sources()
        known: dict[Path, Known] = {f: ContainerError(f"{f}: {row.problem}") for f, row in rows.items() if row.problem}
        by_kind: dict[Kind, dict[Path, int]] = {}
        for file, row in rows.items():
            if row.content is not None:
                by_kind.setdefault(kinds[row.content], {})[file] = row.content
        by_encoder: dict[str, dict[Path, float]] = {}
        for kind, contents in sorted(by_kind.items()):
            try:
                encoded = encode(kind.encoder)
            except EncoderError as error:
                known |= dict.fromkeys(contents, error)
                continue
            if len(encoded.vector) != kind.dimension:
                known |= {f: dimension_error(f, kind.encoder, kind.dimension, encoded) for f in contents}
                continue
            with explain_errors(folder):
                scores = best_scores(store.segments(kind), kind, encoded.vector)
            candidates = by_encoder.setdefault(kind.encoder, {})
            candidates |= {file: scores[content] for file, content in contents.items()}
        for candidates in by_encoder.values():
            known |= dict.fromkeys(candidates)
            videos = {file: sources[rows[file].content] if fold else file for file in candidates}
            loaded: dict[int | None, VideoEmbeddings] = {}
            for file in _best(candidates, videos, k + EXTRA_VIDEOS):
                if (content := rows[file].content) not in loaded:
                    with explain_errors(folder):
                        loaded[content] = VideoEmbeddings.from_bytes(store.embeddings(content), file)
                known[file] = replace(loaded[content], path=file)
        return known


def _current_rows(store: Store, files: Stats) -> dict[Path, FileRow]:
    """The rows of files that have not changed since."""
    stored, start = store.files(), len(os.path.join(os.path.abspath(store.folder), ""))
    folders: dict[str, str] = {}  # by their spelling, relative to the index
    rows = {}
    for file, stat in files.items():
        folder, name = os.path.split(file)
        if folder not in folders:
            folders[folder] = os.path.join(os.path.abspath(folder), "")[start:].replace(os.sep, "/")
        row = stored.get(folders[folder] + name)
        if row is not None and (row.size, row.modified_ns) == (stat.st_size, stat.st_mtime_ns):
            rows[file] = row
    return rows


def _best(scores: Mapping[Path, float], videos: Mapping[Path, object], count: int) -> list[Path]:
    """Files of the videos that may be among the ``count`` best, given the error of the scores."""
    best: dict[object, float] = {}
    for file, score in scores.items():
        best[videos[file]] = max(score, best.get(videos[file], score))
    ranked = sorted(best, key=lambda video: -best[video])[: count * _MAX_CANDIDATES]
    limit = best[ranked[min(count, len(ranked)) - 1]] - _MARGIN if ranked else 0.0
    chosen = {video for video in ranked if best[video] >= limit}
    return [file for file in scores if videos[file] in chosen]


def _is_below(file: Path, folder: str) -> bool:
    return str(file).startswith(os.path.join(str(Path(folder)), "")) or Path(folder) == Path(".")


# ---------------------------------------------------------------------- approximate scores


def best_scores(segments: Iterable[tuple[int, bytes, bytes]], kind: Kind, query: np.ndarray) -> dict[int, float]:
    """The approximate score of the best patch of each content.

    Scores of stored frames are right to 0.001. Between two of them, only the frame nearest to the middle is scored.

    Args:
        segments: from :meth:`Store.segments`.
        kind: of them.
        query: ``(D,)`` float32.
    """
    best: dict[int, float] = {}
    segments = iter(segments)
    while batch := list(islice(segments, _BATCH_SEGMENTS)):
        contents, bases, codes = zip(*batch, strict=True)
        counts = np.array([len(data) for data in codes]) // kind.code_type.itemsize
        scores = _segment_scores(
            np.frombuffer(b"".join(bases), kind.basis_type),
            np.frombuffer(b"".join(codes), kind.code_type),
            counts,
            query,
        )
        for content, score in zip(contents, scores.tolist(), strict=True):
            best[content] = max(score, best.get(content, -np.inf))
    return best


def _segment_scores(bases: np.ndarray, codes: np.ndarray, counts: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The best score in each of ``S`` segments, ``(S,)``.

    Args:
        bases: ``(S,)`` of ``Kind.basis_type``.
        codes: ``(N,)`` of ``Kind.code_type``, segment by segment.
        counts: ``(S,)`` codes of each segment.
        query: ``(D,)`` float32.
    """
    count, width = bases["steps"].shape
    coordinates = (bases["directions"].astype(np.float32).reshape(-1, len(query)) @ query).reshape(count, width)
    coordinates *= bases["steps"]  # (S, W)
    values = codes["values"].astype(np.float32)  # (N, W)
    stops = np.cumsum(counts)
    products = np.concatenate([
        values[stop - size : stop] @ vector for stop, size, vector in zip(stops, counts, coordinates, strict=True)
    ])  # fmt: skip
    products += np.repeat(bases["mean"] @ query, counts)
    # Halfway to the next stored frame, whose code of the same patch is as many rows further as a frame has patches.
    following = np.minimum(np.arange(len(codes)) + np.repeat(bases["patches"], counts), len(codes) - 1)
    halfway = products + (products[following] - products) * codes["middle_weight"]
    scores = np.maximum(products / codes["length"], halfway / codes["middle_length"])
    return np.maximum.reduceat(scores, stops - counts)
