# SPDX-License-Identifier: MIT
"""Bytes against agreement with the reference encoder's rankings on bikes.mp4: our semantic head and its baselines.

    python benchmarks/retrieval.py [--time 3m] [--quick]

All rows rank the same patches (five frames a second) for the queries shipped with the package; the reference is the
offline encoder on the original pixels. Bytes of a baseline are those of its arrays, whole numbers coded by the coder
that our weights go through; ours are what the semantic head takes of the container. The last rows look at frames that
were held out (split 6_6_10), and at time. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from end_to_end import clip
from machine import print_rows, save
from scipy.cluster.vq import kmeans2

import nervcodec
from nervcodec.coordinates import PatchGrid
from nervcodec.device import choose
from nervcodec.evaluation import fidelity
from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import QuantizedTensor, quantize_tensor
from nervcodec.formats.container import Container
from nervcodec.media.reader import read_frames, read_segment
from nervcodec.media.shots import find_cuts, thumbnails
from nervcodec.media.source import scan
from nervcodec.network.summary import SEMANTIC_HEAD, weights_by_part
from nervcodec.network.timeline import Timeline
from nervcodec.options import PRESETS
from nervcodec.ranges import FITTED, HELD_OUT, parse_duration, parse_split
from nervcodec.search.scores import VideoEmbeddings
from nervcodec.semantic.encoder import load
from nervcodec.semantic.patches import embed_patches, sampled_frames

FPS = 5.0
_HALF, _BYTE = 2, 1


def unit(vectors: np.ndarray) -> np.ndarray:
    """Brought to length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def coded(tensor: QuantizedTensor) -> int:
    """Bytes of whole numbers through our own coder."""
    return int(bitstream.encode({"x": tensor}).size)


def int8(reference: np.ndarray) -> tuple[np.ndarray, int]:
    """Every embedding as it is, 8 bits a number."""
    step = np.abs(reference).max() / 127
    rounded = quantize_tensor(reference.reshape(-1, reference.shape[-1]), np.array([step]))
    return unit(rounded.values().reshape(reference.shape)), min(coded(rounded), reference.size * _BYTE)


def principal(reference: np.ndarray, rank: int) -> tuple[np.ndarray, int]:
    """Mean, principal directions (float16) and 8-bit coefficients."""
    mean = reference.mean(axis=(0, 1))
    flat = (reference - mean).reshape(-1, reference.shape[-1])
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    directions = directions[:rank].astype(np.float16).astype(np.float32)
    coefficients = flat @ directions.T
    rounded = quantize_tensor(coefficients, np.array([np.abs(coefficients).max() / 127]))
    size = coded(rounded) + (directions.size + mean.size) * _HALF
    return unit((rounded.values() @ directions + mean).reshape(reference.shape)), size


def product(reference: np.ndarray, parts: int) -> tuple[np.ndarray, int]:
    """Product quantisation (Jegou et al. 2011): a codebook of 256 for each part of the centred vector."""
    mean = reference.mean(axis=(0, 1))
    flat = (reference - mean).reshape(-1, reference.shape[-1])
    pieces, codebooks = [], 0
    for piece in np.split(flat, parts, axis=1):
        book, labels = kmeans2(piece, min(256, len(piece) // 2), minit="++", seed=0)
        pieces.append(book[labels])
        codebooks += book.size
    return unit((np.concatenate(pieces, axis=1) + mean).reshape(reference.shape)), (
        len(flat) * parts * _BYTE + (codebooks + mean.size) * _HALF
    )


def encoded(label: str, source: Path, folder: Path, seconds: float, **options: object) -> dict:
    """A row of a whole encode: the head's bytes and agreement, on held-out frames too where there are some."""
    out = folder / "a.nerv"
    nervcodec.encode(source, out, encoder="offline", time_s=seconds, semantic_fps=FPS, force=True, **options)
    judged = nervcodec.evaluate(out, source)
    with Container.open(out) as opened:
        size = weights_by_part(opened)[SEMANTIC_HEAD].bytes
    row = agreement(label, judged.fidelity["train"], size)
    row["psnr_db"] = round(judged.psnr_db, 2)
    if "val" in judged.fidelity:
        held_out = agreement("", judged.fidelity["val"], 0)
        row.update({f"held_out_{key}": held_out[key] for key in ("recall_at_10", "ndcg_at_10", "rank_correlation")})
    return row


def agreement(label: str, figures: fidelity.Fidelity, size: int) -> dict:
    """One row of the table."""
    rounded = {name: round(value, 3) for name, value in figures.retrieval.items()}
    semantic = {name: round(figures.semantic[name], 3) for name in ("centred_cosine", "diversity", "smoothness")}
    held_out = dict.fromkeys(("held_out_recall_at_10", "held_out_ndcg_at_10", "held_out_rank_correlation"))
    return {"what": label, "bytes": size, **rounded, **semantic, "psnr_db": None, **held_out}


def interpolated(reference: np.ndarray, keys: np.ndarray, cuts: tuple[int, ...], wanted: np.ndarray) -> np.ndarray:
    """The reference's own embeddings of some frames, unrounded, interpolated to others of the same shot.

    What a head that knows nothing of a held-out frame but its neighbours can give at best, about.
    """
    timeline = Timeline.at(tuple(keys.tolist()), len(reference), cuts)
    return unit(timeline(torch.from_numpy(reference[keys]), torch.from_numpy(wanted)).numpy())


def bounds(reference: np.ndarray, queries: np.ndarray, times_s: np.ndarray, cuts: tuple[int, ...]) -> list[dict]:
    """Rows for held-out frames: the reference itself, interpolated from all fitted frames and from five a second."""
    roles = np.array(parse_split("6_6_10").roles(0, len(reference)))
    fitted, held_out = np.flatnonzero(roles == FITTED), np.flatnonzero(roles == HELD_OUT)
    spread = sampled_frames(len(fitted), len(fitted) / times_s[-1], FPS)
    table = []
    for label, keys in (("all fitted frames", fitted), ("five a second", fitted[spread])):
        predicted = interpolated(reference, keys, cuts, held_out)
        judged = fidelity.compare(predicted, reference[held_out], queries, times_s[held_out])
        size = reference[keys].size * _HALF
        table.append(held_out_row(agreement(f"the reference itself, interpolated from {label}", judged, size)))
    return table


def held_out_row(row: dict) -> dict:
    """The same figures in the columns of held-out frames."""
    names = ("recall_at_10", "ndcg_at_10", "rank_correlation")
    return {**row, **{f"held_out_{name}": row[name] for name in names}, **dict.fromkeys(names)}


def timings(source: Path, folder: Path) -> list[dict]:
    """Seconds that search takes: embeddings of all patches, decoding all frames, and a second query from the cache."""
    video = nervcodec.open(folder / "a.nerv")
    next(video.frames([0]))
    start = time.perf_counter()
    index = VideoEmbeddings.from_video(video)
    embed_s = time.perf_counter() - start
    start = time.perf_counter()
    for _ in video.frames():
        pass
    decode_s = time.perf_counter() - start
    index = VideoEmbeddings.from_bytes(index.to_bytes(), index.path)
    start = time.perf_counter()
    index.scores(np.ones(384, np.float32))
    ask_s = time.perf_counter() - start
    return [
        {"what": "embeddings of every patch", "seconds": round(embed_s, 4), "bytes": None},
        {"what": "decoding every frame", "seconds": round(decode_s, 4), "bytes": None},
        {"what": "one query from the index", "seconds": round(ask_s, 5), "bytes": len(index.to_bytes())},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", default="3m", help="of fitting, for each of ours")
    parser.add_argument("--quick", action="store_true", help="ten seconds of fitting; results are not saved")
    arguments = parser.parse_args()
    seconds = 10.0 if arguments.quick else parse_duration(arguments.time)
    choose("cpu")  # as encode does: it sets memory and threads for a CPU
    source = clip("bikes.mp4")
    info = scan(source)
    frames = read_segment(read_frames(info), info.frame_count)
    rows = sampled_frames(len(frames), float(info.frame_rate), FPS)
    encoder = load("offline")
    everything = embed_patches(frames, PatchGrid(info.height, info.width, 2, 4), encoder)
    reference = everything[rows]
    queries = encoder.embed_text(fidelity.shipped_queries())
    table = []
    for label, (predicted, size) in (
        ("reference, int8", int8(reference)),
        *((f"PCA {rank}, int8", principal(reference, rank)) for rank in (8, 16, 32, 64)),
        *((f"product quantisation, {parts} parts", product(reference, parts)) for parts in (8, 16, 32)),
    ):
        table.append(agreement(label, fidelity.compare(predicted, reference, queries, info.times_s[rows]), size))
    table += bounds(everything, queries, info.times_s, find_cuts(thumbnails(frames)))
    original = {name: value for name, value in PRESETS["comparable"].items() if name not in ("epochs", "split")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table.append(
            encoded(
                "the original method's head (raw cosine)",
                source,
                folder,
                seconds,
                **{**original, "pixel_warmup": 0.2},
            )
        )
        table.append(encoded("nervcodec, split 6_6_10", source, folder, seconds, split="6_6_10"))
        table.append(encoded("nervcodec", source, folder, seconds))
        times = timings(source, folder)
    print_rows(table)
    print_rows(times)
    if not arguments.quick:
        print(save("retrieval", table, fit_s=seconds, timings=times))


if __name__ == "__main__":
    main()
