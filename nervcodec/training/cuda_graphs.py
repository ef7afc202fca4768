# SPDX-License-Identifier: MIT
"""Training steps as CUDA graphs: captured once, then replayed with one launch.

A step of a network this small is some hundred kernels of a few microseconds each, so that a GPU would mostly wait for
the next launch. See "CUDA graphs" in PyTorch's notes on CUDA semantics for what can be captured: nothing that
synchronises with the GPU, and nothing that depends on a Python number that changes between steps.
"""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from nervcodec.training.losses import StepTensors

_MAX_PENDING = 8  # steps queued on the GPU; more would delay decisions that depend on time
_WARM_UP = 3  # uncaptured steps of a kind, which allocate everything that outlives a step


class StepGraphs:
    """Runs steps: the first few of a kind kernel by kernel, later ones as a graph.

    Args:
        step: a whole step, from the numbers of a batch (tensors on the GPU) to its losses; must neither read a tensor
            nor depend on a Python value that changes between two steps of a kind.
        generators: returns the random generators that it uses now.
        note: reports that steps cannot be captured.
        stream: where steps run and are captured; None for a new one on the GPU.
    """

    def __init__(
        self,
        step: Callable[..., StepTensors],
        generators: Callable[[], Sequence[torch.Generator]],
        note: Callable[[str], None],
        stream: GraphStream | None = None,
    ):
        self._step, self._generators, self._note, self._stream = step, generators, note, stream or GraphStream()
        self._version: Hashable = None
        self._can_capture = True
        self._counts: Counter[tuple[torch.Size, ...]] = Counter()
        self._captured: dict[tuple[torch.Size, ...], CapturedStep] = {}

    def run(self, batch: Sequence[Tensor], version: Hashable) -> StepTensors:
        """Run one step.

        Args:
            batch: numbers of the batch, on the CPU; steps are of one kind where their shapes are equal.
            version: changes when earlier captures become invalid.
        """
        if version != self._version:
            self.clear()
            self._version = version
        kind = tuple(part.shape for part in batch)
        self._counts[kind] += 1
        if self._can_capture and kind not in self._captured and self._counts[kind] > _WARM_UP:
            self._capture(kind, batch)
        if kind in self._captured:
            return self._captured[kind].replay(batch)
        return self._stream.run(self._step, batch)

    def _capture(self, kind: tuple[torch.Size, ...], batch: Sequence[Tensor]) -> None:
        """Capture a kind of step; if that fails (memory, driver), capture no more."""
        try:
            self._captured[kind] = self._stream.capture(self._step, batch, self._generators())
        except RuntimeError as error:
            self.clear()
            self._can_capture = False
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
            self._note(f"CUDA graphs cannot be used ({reason}); the fit continues, slower")

    def clear(self) -> None:
        """Delete all captures and free their memory."""
        self._captured.clear()
        self._counts.clear()


class GraphStream:
    """One CUDA stream and one memory pool, where all steps of a fit run and are captured."""

    def __init__(self) -> None:
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def run(self, step: Callable[..., StepTensors], batch: Sequence[Tensor]) -> StepTensors:
        """Run a step kernel by kernel."""
        self.stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self.stream):
                return step(*(part.to("cuda") for part in batch))
        finally:
            torch.cuda.current_stream().wait_stream(self.stream)

    def capture(
        self, step: Callable[..., StepTensors], batch: Sequence[Tensor], generators: Sequence[torch.Generator]
    ) -> CapturedStep:
        """Capture a step; see :class:`CapturedStep`."""
        return CapturedStep(self, step, batch, generators)


class CapturedStep:
    """A step as a graph, with inputs and outputs at fixed addresses.

    Args:
        stream: of all steps of a fit, which never run at once and whose outputs are read before the next.
        step: as for :class:`StepGraphs`.
        batch: numbers of the batch used for the capture, which changes no weight.
        generators: random generators that the step uses.

    Raises:
        RuntimeError: it cannot be captured.
    """

    def __init__(
        self,
        stream: GraphStream,
        step: Callable[..., StepTensors],
        batch: Sequence[Tensor],
        generators: Sequence[torch.Generator],
    ):
        self._batch = [part.to("cuda") for part in batch]
        self._pending: deque[torch.cuda.Event] = deque()
        self._graph = torch.cuda.CUDAGraph()
        torch_version = tuple(map(int, torch.__version__.split(".")[:2]))
        if torch_version < (2, 14):  # later versions register generators by themselves
            for generator in generators:
                self._graph.register_generator_state(generator)
        # The garbage collector could destroy another graph during the capture, which would invalidate it.
        gc.collect()
        gc.disable()
        try:
            with torch.cuda.graph(self._graph, stream.pool, stream.stream, "thread_local"):
                self._outputs = step(*self._batch)
        finally:
            gc.enable()

    def replay(self, batch: Sequence[Tensor]) -> StepTensors:
        """Run the step with another batch; the outputs are valid until the next step."""
        for own, part in zip(self._batch, batch, strict=True):
            own.copy_(part, non_blocking=True)
        self._graph.replay()
        self._pending.append(torch.cuda.Event())
        self._pending[-1].record()
        if len(self._pending) > _MAX_PENDING:
            self._pending.popleft().synchronize()
        return self._outputs
