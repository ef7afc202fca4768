# SPDX-License-Identifier: MIT
"""One video of two segments in two files: each network whole, and with the parameters that both share stored once.

These networks are random and put together by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nervcodec import sizing
from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import QuantizedTensor, quantize_tensor
from nervcodec.formats.container import Writer
from nervcodec.formats.header import STREAM, FitRecord, Header, Segment, SemanticHeader, TensorCode, VideoHeader
from nervcodec.network.build import build, to_arrays
from nervcodec.network.config import Geometry, GridConfig, SemanticConfig, frame_tables, network_to_json
from nervcodec.network.shapes import is_per_segment

FRAMES, EMBEDDED = (9, 6), ((0, 3, 7), (1, 4))
SHARED = "shared/"
Tensors = dict[str, QuantizedTensor | np.ndarray]


@dataclass(frozen=True)
class Part:
    """A segment: its network's configuration and all its parameters, as they are stored."""

    config: GridConfig
    tables: Tensors
    parameters: Tensors

    def of(self, own: bool) -> Tensors:
        """Those of the segment alone, or those that are shared."""
        return {name: t for name, t in self.parameters.items() if is_per_segment(self.config, name) == own}


def parts() -> list[Part]:
    """Two segments whose shared parameters are the same."""
    found: list[Part] = []
    rng = np.random.default_rng(2)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        for frames, embedded in zip(FRAMES, EMBEDDED, strict=True):
            geometry = Geometry(frames, 40, 56, 2, 3)
            outlook = sizing.SegmentTraits(pace=tuple(rng.integers(0, 20, frames - 1).tolist()))
            config = sizing.grid_config(geometry, 9_000, SemanticConfig(16, rank=4, code_frames=embedded), outlook)
            parameters: Tensors = {}
            for name, array in to_arrays(build(config)).items():
                values = array + rng.normal(size=array.shape, scale=0.3).astype(np.float32)
                parameters[name] = quantize_tensor(values, np.array([0.05])) if array.size >= 256 else values
            if found:
                parameters |= found[0].of(own=False)
            found.append(Part(config, dict(frame_tables(config, embedded).tensors()), parameters))
    return found


def save(target: Path, streams: dict[str, Tensors], configs: list[GridConfig]) -> Path:
    """A container with streams by the prefix of their arrays; one of them may be :data:`SHARED`."""
    count = sum(FRAMES)
    with Writer(target) as writer:
        for prefix, tensors in streams.items():
            writer.add(f"{prefix}weights", bitstream.encode(tensors), TensorCode(STREAM))
        starts = (0, FRAMES[0])
        writer.finish(
            Header(
                video=VideoHeader(56, 40, (25, 1), count, count / 25, "by hand.mp4"),
                patch_grid=(2, 3),
                segments=tuple(
                    Segment(start, frames, network_to_json(config), f"{number}/")
                    for number, (start, frames, config) in enumerate(zip(starts, FRAMES, configs, strict=True))
                ),
                tensors=writer.tensors,
                fit=FitRecord(10.0, 0.0, 0),
                tool="nervcodec tests",
                semantic=SemanticHeader("offline", 16, 8.3333),
                shared=SHARED if SHARED in streams else None,
            )
        )
    return target


def apart(target: Path) -> Path:
    """Each segment with all its parameters."""
    found = parts()
    whole = {f"{number}/": {**part.tables, **part.parameters} for number, part in enumerate(found)}
    return save(target, whole, [part.config for part in found])


def together(target: Path, change=lambda streams: None) -> Path:
    """The same with shared parameters; ``change`` may move what the streams hold before they are written."""
    found = parts()
    streams = {f"{number}/": {**part.tables, **part.of(own=True)} for number, part in enumerate(found)}
    streams[SHARED] = found[0].of(own=False)
    change(streams)
    return save(target, streams, [part.config for part in found])
