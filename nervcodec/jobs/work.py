# SPDX-License-Identifier: MIT
"""What a worker does, on this machine or another: plain data in, plain data out. Each task reads the source itself.

Torch is imported by the tasks, not by whoever hands them out.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nervcodec import options
from nervcodec.errors import EncoderError, VideoError
from nervcodec.events import Observer
from nervcodec.jobs.failures import is_of_a_source, reason
from nervcodec.options import EncodeOptions

if TYPE_CHECKING:
    from nervcodec.encoding import EncodeReport
    from nervcodec.encoding.basis import Embedded
    from nervcodec.encoding.plan import Equipment, Plan
    from nervcodec.encoding.shared import Shared


@dataclass
class Result:
    """What became of a task.

    Attributes:
        value: what it made; None where it failed.
        failure: why it failed, in words; empty where it did not.
        notes: what it had to say.
    """

    value: Any = None
    failure: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Encoded:
    """A source that one task encoded.

    Attributes:
        container: ``(n,)`` uint8, the file.
        report: of its encode; its path is of no use elsewhere.
    """

    container: np.ndarray
    report: EncodeReport


class _Notes(Observer):
    def __init__(self, notes: list[str]):
        self._notes = notes

    def note(self, text: str) -> None:
        self._notes.append(text)


@dataclass
class EncoderElsewhere:
    """What is known of a semantic encoder where it is not loaded."""

    name: str
    dimension: int

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Nothing."""
        raise EncoderError(f"the {self.name} encoder is loaded by workers only")

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Nothing."""
        raise EncoderError(f"the {self.name} encoder is loaded by workers only")


def look(sources: Sequence[tuple[str, int]]) -> list[str]:
    """Which of some sources this machine does not see as they are: each by its absolute name, and its size."""
    return [path for path, size in sources if size_of(path) != size]


def size_of(path: str) -> int:
    """Bytes of a file; the number of files in a folder; -1 for what is not there."""
    try:
        return len(os.listdir(path)) if os.path.isdir(path) else os.stat(path).st_size
    except OSError:
        return -1


def begin(threads: int, source: Path, wanted: EncodeOptions) -> Result:
    """Look at a source. One whose segments cannot be encoded apart from each other is encoded, whole.

    Returns:
        Of an :class:`Encoded`, or the plan of an encode whose segments are still to be encoded.
    """

    def work(observer: Observer) -> object:
        from nervcodec.encoding import encode_plan
        from nervcodec.encoding.plan import make_plan
        from nervcodec.formats.header import COPY

        if not source.exists():
            raise VideoError(f"{source}: a worker does not see it; all machines must find it under this name")
        plan = make_plan(source, wanted, observer, _equipment(wanted))
        if len(plan.lengths) > 1 and wanted.layer.base != COPY:
            return _sent(plan)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "whole.nerv")
            report = encode_plan(plan, target, observer)
            return Encoded(np.fromfile(target, np.uint8), report)

    return _result(threads, work)


def embed(threads: int, plan: Plan, index: int) -> Result:
    """Embeddings of a segment.

    Returns:
        Of an :class:`Embedded`.
    """

    def work(observer: Observer) -> object:
        from nervcodec.encoding.material import SegmentReader
        from nervcodec.encoding.shared import embed_base_segment

        whole = _received(plan)
        return embed_base_segment(whole, index, SegmentReader(whole, alone=True), observer)

    return _result(threads, work)


def share(threads: int, plan: Plan, known: dict[str, Any] | None) -> Result:
    """What the networks of all segments have in common.

    Args:
        threads: that may be used.
        plan: of the encode.
        known: of that, from a checkpoint; or None.

    Returns:
        Of a :class:`Shared`, and what a checkpoint keeps of it.
    """

    def work(observer: Observer) -> object:
        from nervcodec.encoding.shared import shared_by_all
        from nervcodec.training.checkpoint import Checkpoint
        from nervcodec.training.hooks import ProgressHook

        whole = _received(plan)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Checkpoint(Path(folder, "shared"), "", observer.note)
            checkpoint.shared = known
            shared = shared_by_all(whole, checkpoint, ProgressHook(observer), observer)
            return shared, checkpoint.shared

    return _result(threads, work)


def encode_segment(threads: int, plan: Plan, shared: Shared, index: int, own: Embedded | None) -> Result:
    """Encode a segment.

    Returns:
        Of an :class:`EncodedSegment`, and seconds.
    """

    def work(observer: Observer) -> object:
        from nervcodec.encoding.layered import code_segment
        from nervcodec.encoding.material import SegmentReader, segment
        from nervcodec.encoding.prepare import prepare
        from nervcodec.encoding.task import fit_segment
        from nervcodec.training.hooks import Hook

        whole = _received(plan)
        known = shared if own is None else replace(shared, everything={index: own})
        if whole.planes is not None:
            return code_segment(whole, index, SegmentReader(whole, alone=True), Hook(), known), 0.0
        task, seconds = prepare(whole, segment(whole, index), whole.first_frame(index), index, observer, known)
        return fit_segment(task), seconds

    return _result(threads, work)


def _result(threads: int, work: Callable[[Observer], object]) -> Result:
    """Do a task's work with so many threads; what is wrong with a source is a result, too."""
    from nervcodec.device import use_threads

    use_threads(threads)
    result = Result()
    try:
        result.value = work(_Notes(result.notes))
    except Exception as error:
        if not is_of_a_source(error):
            raise
        result.failure = reason(error)
    return result


@cache
def _equipment_for(device: str, precision: str, encoder: str) -> Equipment:
    """Of this worker, for all of its tasks."""
    from nervcodec.encoding.plan import equip

    return equip(options.from_flat(device=device, precision=precision, encoder=encoder), Observer())


def _equipment(wanted: EncodeOptions) -> Equipment:
    return _equipment_for(wanted.device, wanted.precision, wanted.encoder)


def _sent(plan: Plan) -> Plan:
    """A plan as it travels: without the encoder, which each worker has of its own."""
    encoder = None if plan.encoder is None else EncoderElsewhere(plan.encoder.name, plan.encoder.dimension)
    return replace(plan, encoder=encoder)


def _received(plan: Plan) -> Plan:
    """The same with what this worker has."""
    equipment = _equipment(plan.wanted)
    return replace(plan, encoder=equipment.encoder, hardware=equipment.hardware)
