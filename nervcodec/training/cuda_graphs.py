# SPDX-License-Identifier: MIT
"""Whole steps as CUDA graphs: recorded once, then launched as one.

A step of a network this small is some hundred kernels of a few microseconds each, so that a GPU waits for its next one
most of the time. See "CUDA graphs" in PyTorch's notes on CUDA semantics for what may be recorded: nothing that waits
for the GPU, and nothing that a Python number decides anew in each step.
"""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from nervcodec.training.losses import Figures

_AHEAD = 8  # steps that may be waiting for the GPU; with more, what a fit decides by the clock would come too late
_WARM_UP = 3  # steps of a kind that are taken one kernel at a time, so that all that outlives a step is there


def _version() -> tuple[int, ...]:
    """Of torch."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2])


class StepGraphs:
    """Takes steps: the first few of a kind kernel by kernel, later ones as a graph.

    Args:
        work: a whole step, from the numbers of a batch (tensors on the GPU) to its figures; must neither read a
            tensor nor depend on a Python value that changes between two steps of a kind.
        generators: of the random numbers that it draws, now.
        note: told where steps cannot be recorded.
        place: where steps are taken and recorded; None for the GPU.
    """

    def __init__(
        self,
        work: Callable[..., Figures],
        generators: Callable[[], Sequence[torch.Generator]],
        note: Callable[[str], None],
        place: Place | None = None,
    ):
        self._work, self._generators, self._note, self._place = work, generators, note, place or Place()
        self._version: Hashable = None
        self._records = True
        self._seen: Counter[tuple[torch.Size, ...]] = Counter()
        self._recorded: dict[tuple[torch.Size, ...], RecordedStep] = {}

    def take(self, numbers: Sequence[Tensor], version: Hashable) -> Figures:
        """One step.

        Args:
            numbers: of the batch, on the CPU; steps are of a kind where these are alike in shape.
            version: changes where graphs that were recorded no longer hold.
        """
        if version != self._version:
            self.forget()
            self._version = version
        kind = tuple(part.shape for part in numbers)
        self._seen[kind] += 1
        if self._records and kind not in self._recorded and self._seen[kind] > _WARM_UP:
            self._try(kind, numbers)
        if kind in self._recorded:
            return self._recorded[kind].repeat(numbers)
        return self._place.step(self._work, numbers)

    def _try(self, kind: tuple[torch.Size, ...], numbers: Sequence[Tensor]) -> None:
        """Record a kind of step; where that fails, for want of memory or by what a driver cannot do, record no more."""
        try:
            self._recorded[kind] = self._place.record(self._work, numbers, self._generators())
        except RuntimeError as error:
            self.forget()
            self._records = False
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
            self._note(f"the GPU cannot repeat a step as a whole ({reason}); the fit goes on, slower")

    def forget(self) -> None:
        """Begin anew: drop what was recorded, and its memory."""
        self._recorded.clear()
        self._seen.clear()


class Place:
    """Where on a GPU steps are taken before they are recorded, and recorded: one stream and one pool of memory."""

    def __init__(self) -> None:
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def step(self, work: Callable[..., Figures], numbers: Sequence[Tensor]) -> Figures:
        """A step kernel by kernel."""
        self.stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self.stream):
                return work(*(part.to("cuda") for part in numbers))
        finally:
            torch.cuda.current_stream().wait_stream(self.stream)

    def record(
        self, work: Callable[..., Figures], numbers: Sequence[Tensor], generators: Sequence[torch.Generator]
    ) -> RecordedStep:
        """A step that can be repeated.

        Raises:
            RuntimeError: it cannot be recorded.
        """
        return RecordedStep(self, work, numbers, generators)


class RecordedStep:
    """A step as a graph, with its inputs and figures at fixed places in memory.

    Args:
        place: of all steps of a fit, which never run at once and whose figures are read before the next.
        work: as for :class:`StepGraphs`.
        numbers: of the batch that it is recorded with; recording changes nothing.
        generators: of the random numbers that it draws.

    Raises:
        RuntimeError: it cannot be recorded.
    """

    def __init__(
        self,
        place: Place,
        work: Callable[..., Figures],
        numbers: Sequence[Tensor],
        generators: Sequence[torch.Generator],
    ):
        self._numbers = [part.to("cuda") for part in numbers]
        self._under_way: deque[torch.cuda.Event] = deque()
        self._graph = torch.cuda.CUDAGraph()
        if _version() < (2, 14):  # from then on a graph finds by itself what it draws from
            for generator in generators:
                self._graph.register_generator_state(generator)
        # What the collector finds meanwhile may be another graph, whose end would spoil this one.
        gc.collect()
        gc.disable()
        try:
            with torch.cuda.graph(self._graph, place.pool, place.stream, "thread_local"):
                self._figures = work(*self._numbers)
        finally:
            gc.enable()

    def repeat(self, numbers: Sequence[Tensor]) -> Figures:
        """The step with another batch; figures hold until the next."""
        for own, part in zip(self._numbers, numbers, strict=True):
            own.copy_(part, non_blocking=True)
        self._graph.replay()
        self._under_way.append(torch.cuda.Event())
        self._under_way[-1].record()
        if len(self._under_way) > _AHEAD:
            self._under_way.popleft().synchronize()
        return self._figures
