# SPDX-License-Identifier: MIT
"""Whole steps as CUDA graphs: recorded once, then launched as one.

A step of a network this small is some hundred kernels of a few microseconds each, so that a GPU waits for its next one
most of the time. See "CUDA graphs" in PyTorch's notes on CUDA semantics for what may be recorded: nothing that waits
for the GPU, and nothing that a Python number decides anew in each step.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from nervcodec.fitting.facts import Figures

_AHEAD = 8  # steps that may be waiting for the GPU; with more, what a fit decides by the clock would come too late
_WARM_UP = 3  # steps of a kind that are taken one kernel at a time, so that all that outlives a step is there


class StepGraphs:
    """Takes steps: the first few of a kind kernel by kernel, later ones as a graph.

    Args:
        work: a whole step, from the numbers of a batch (tensors on the GPU) to its figures; must neither read a
            tensor nor depend on a Python value that changes between two steps of a kind.
        generators: of the random numbers that it draws, now.
        begin: takes a step kernel by kernel.
        record: makes a step that can be repeated.
    """

    def __init__(
        self,
        work: Callable[..., Figures],
        generators: Callable[[], Sequence[torch.Generator]],
        begin: Callable[[Callable[..., Figures], Sequence[Tensor]], Figures] | None = None,
        record: Callable[..., RecordedStep] | None = None,
    ):
        self._work, self._generators = work, generators
        self._begin, self._record = begin or beside, record or RecordedStep
        self._version: Hashable = None
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
        if kind not in self._recorded and self._seen[kind] > _WARM_UP:
            self._recorded[kind] = self._record(self._work, numbers, self._generators())
        if kind in self._recorded:
            return self._recorded[kind].repeat(numbers)
        return self._begin(self._work, numbers)

    def forget(self) -> None:
        """Begin anew: drop what was recorded, and its memory."""
        self._recorded.clear()
        self._seen.clear()


def beside(work: Callable[..., Figures], numbers: Sequence[Tensor]) -> Figures:
    """A step kernel by kernel, on a stream of its own, as what is recorded later must have run before."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        figures = work(*(part.to("cuda") for part in numbers))
    torch.cuda.current_stream().wait_stream(stream)
    return figures


class RecordedStep:
    """A step as a graph, with its inputs and figures at fixed places in memory.

    Args:
        work: as for :class:`StepGraphs`.
        numbers: of the batch that it is recorded with; recording changes nothing.
        generators: of the random numbers that it draws.
    """

    def __init__(self, work: Callable[..., Figures], numbers: Sequence[Tensor], generators: Sequence[torch.Generator]):
        self._numbers = [part.to("cuda") for part in numbers]
        self._under_way: deque[torch.cuda.Event] = deque()
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._figures = work(*self._numbers)

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
