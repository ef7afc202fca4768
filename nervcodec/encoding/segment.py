# SPDX-License-Identifier: MIT
"""A segment before it is encoded, and after: plain data, which can be sent to another process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nervcodec import metrics, sizing
from nervcodec.device import Hardware
from nervcodec.encoding.basis import Basis
from nervcodec.encoding.joint import SharedNetwork
from nervcodec.formats.fields import from_json, to_json
from nervcodec.formats.header import Segment
from nervcodec.formats.weights import read_tables
from nervcodec.network.config import NetworkConfig
from nervcodec.network.shapes import parameter_count, per_segment_parameter_count
from nervcodec.training.config import FitConfig, SizeGoal
from nervcodec.training.datasets import SegmentData


@dataclass(frozen=True)
class CodedBase:
    """The base layer of a segment.

    Attributes:
        stream: ``(n,)`` uint8, OBUs without temporal delimiters.
        psnr_db: ``(N,)`` of each frame.
        crf: it was coded at.
    """

    stream: np.ndarray
    psnr_db: np.ndarray
    crf: float

    def to_facts(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        arrays = {"stream": torch.from_numpy(self.stream.copy()), "psnr_db": torch.from_numpy(self.psnr_db.copy())}
        return {**vars(self), **arrays}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> CodedBase:
        """The inverse of :meth:`to_facts`."""
        return cls(**{**facts, "stream": facts["stream"].numpy(), "psnr_db": facts["psnr_db"].numpy()})


@dataclass(frozen=True)
class SegmentTask:
    """Everything the fit of one segment depends on; it can be sent to another process.

    Attributes:
        index, count: which segment of how many, from 0.
        first_frame: number of its first frame.
        data: frames and embeddings.
        network: configuration of the network.
        fit: settings, with the segment's share of the time.
        goal: what the stored weights should take, or None; embeddings in a basis of all are beside it.
        hardware: device and precision.
        precision: as it was asked for, in case the fit goes on on the CPU.
        basis: that its embeddings are stored in with those of all segments; None for one of its own.
        shared: what its network has in common with those of all segments; None where it has all its own.
    """

    index: int
    count: int
    first_frame: int
    data: SegmentData
    network: NetworkConfig
    fit: FitConfig
    goal: SizeGoal | None
    hardware: Hardware
    precision: str = "auto"
    basis: Basis | None = None
    shared: SharedNetwork | None = None

    @property
    def embedded(self) -> tuple[int, ...]:
        """Frames, counted from the segment's first, that have embeddings."""
        return () if self.data.embedded_frames is None else tuple(self.data.embedded_frames.tolist())

    @property
    def expected_bpp(self) -> float:
        """Bits per pixel that the weights will take, about."""
        count = parameter_count if self.shared is None else per_segment_parameter_count
        expected_bytes = count(self.network) * sizing.BITS_PER_PARAMETER / 8
        return metrics.rate_bpp(expected_bytes, *self.data.frames.shape[:3])


@dataclass(frozen=True)
class EncodedSegment:
    """One segment, fitted and quantised.

    Attributes:
        segment: as the header lists it.
        stream: ``(n,)`` uint8, what is said of its frames and its weights; empty where its network has none.
        entropy_bytes: empirical entropy of the quantised weights.
        psnr_db: ``(N,)`` of each frame, decoded from the stored integers.
        parameters, steps, elapsed_s: of the fit.
        complete: False where the fit was stopped early.
        fell_back: the GPU's memory did not hold it, so it was fitted on the CPU.
        base: its base layer, or None.
    """

    segment: Segment
    stream: np.ndarray
    entropy_bytes: float
    psnr_db: np.ndarray
    parameters: int
    steps: int
    elapsed_s: float
    complete: bool = True
    fell_back: bool = False
    base: CodedBase | None = None

    @property
    def embedded_frames(self) -> tuple[int, ...]:
        """Frames, counted from the segment's first, whose embeddings were fitted."""
        return read_tables(self.stream, self.segment.frame_count).embedded if self.stream.size else ()

    def to_facts(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        return {
            "segment": json.dumps(to_json(self.segment)),
            "stream": torch.from_numpy(self.stream.copy()),
            "entropy_bytes": self.entropy_bytes,
            "psnr_db": torch.from_numpy(self.psnr_db.copy()),
            "parameters": self.parameters,
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
            "base": None if self.base is None else self.base.to_facts(),
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> EncodedSegment:
        """The inverse of :meth:`to_facts`."""
        stream, psnr_db = facts["stream"].numpy(), facts["psnr_db"].numpy()
        segment = from_json(Segment, json.loads(facts["segment"]), "segment")
        base = None if facts["base"] is None else CodedBase.from_facts(facts["base"])
        return cls(**{**facts, "segment": segment, "stream": stream, "psnr_db": psnr_db, "base": base})
