# SPDX-License-Identifier: MIT
"""One step of a fit: learning rates, gradients of a batch, rate control, and the optimizer step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nervcodec.training import losses
from nervcodec.training.config import parse_schedule
from nervcodec.training.cuda_graphs import StepGraphs
from nervcodec.training.losses import StepMetrics, StepTensors
from nervcodec.training.rate_control import encode_weights
from nervcodec.training.state import FitState

_READ_EVERY = 4  # steps between readings of the rate
_MIN_SCHEDULE = 1e-4


class Stepper:
    """Takes the steps of a fit.

    Args:
        state: of the fit.
        note: reports one line for the user.
    """

    def __init__(self, state: FitState, note: Callable[[str], None]):
        self._state, self._note = state, note
        self._schedule = parse_schedule(state.config.lr_type)
        self._pixel_loss = losses.PIXEL[state.config.loss]
        self._graphs = StepGraphs(self._whole_step, self._generators, note) if state.uses_cuda_graphs else None
        self._lambda = torch.zeros((), device=state.hardware.device)  # rate weight, as captured steps read it

    def close(self) -> None:
        """Free GPU memory that steps use."""
        if self._graphs is not None:
            self._graphs.clear()
            self._graphs = None
            self._state.optimizers.clear_gradients()

    def _generators(self) -> list[torch.Generator]:
        return [] if self._state.quantized is None else [self._state.quantized.generator]

    def take(self, samples: Tensor, progress: float, measure: bool) -> StepMetrics | None:
        """One optimizer step; returns its metrics if ``measure`` is set.

        Where the batch exceeds GPU memory, gradients are accumulated over micro-batches of half the size from then on.

        Args:
            samples: ``(B,)`` of the batch.
            progress: fraction of the fit, 0 to 1.
            measure: whether to return metrics.
        """
        state = self._state
        if state.quantized is None and progress > 1 - state.config.rounding_share:
            state.start_quantization()
        by_length = state.optimizers.length_factor(state.steps, progress)
        state.optimizers.set_lr_factor(max(self._schedule(progress), _MIN_SCHEDULE) * state.lr_scale * by_length)
        while True:
            captured = self._graphs is not None and len(samples) <= state.micro_batch_size
            try:
                if captured:
                    results = [self._captured_step(samples, progress)]
                else:
                    results = self._gradients(samples, progress, measure)
                break
            except torch.cuda.OutOfMemoryError:
                if state.micro_batch_size == 1:
                    raise
                self._halve_micro_batches()
        self._control_rate(results[-1].bits, progress)
        if not captured:
            state.optimizers.step()
        state.steps += 1
        return StepMetrics.of(results) if measure else None

    def _control_rate(self, bits: Tensor | None, progress: float) -> None:
        """Update the rate weight."""
        state, quantized = self._state, self._state.quantized
        if quantized is None:
            return
        assert bits is not None, "a step with quantized weights estimates their rate"
        if state.steps % _READ_EVERY == 0:
            state.rate.update(bits.item(), 1 - (1 - progress) / state.config.rounding_share)
        if state.rate.needs_measurement:
            size = encode_weights(state.field, quantized.steps()).size
            quantized.scale_steps(state.rate.calibrate(8 * size / state.parameters))

    def _halve_micro_batches(self) -> None:
        state = self._state
        state.micro_batch_size = -(-state.micro_batch_size // 2)
        if self._graphs is not None:
            self._graphs.clear()
        if state.hardware.device == "cuda":
            torch.cuda.empty_cache()
        size = state.batches.size
        self._note(f"out of GPU memory; batches of {size} are split into parts of {state.micro_batch_size} from here")

    def _batch(self, samples: Tensor, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """Samples, the positions of those with a reference embedding, and the rows of these in the reference."""
        state = self._state
        if state.reference is None or not state.semantics_active(progress):
            return samples, samples[:0], samples[:0]
        rows = state.reference.rows(state.dataset.frames(samples))
        labelled = torch.nonzero(rows >= 0)[:, 0]
        return samples, labelled, rows[labelled]

    def _gradients(self, samples: Tensor, progress: float, measure: bool) -> list[StepTensors]:
        """Gradients of a batch, accumulated over micro-batches."""
        state = self._state
        state.optimizers.clear_gradients()
        return [
            self._add_gradients(*self._batch(part, progress), len(part) / len(samples), state.rate.weight, measure)
            for part in samples.split(state.micro_batch_size)
        ]

    def _captured_step(self, samples: Tensor, progress: float) -> StepTensors:
        """A whole step, as a graph where one of its kind was captured."""
        assert self._graphs is not None
        self._lambda.fill_(self._state.rate.weight)
        return self._graphs.run(self._batch(samples, progress), self._state.optimizers.version)

    def _whole_step(self, samples: Tensor, labelled: Tensor, rows: Tensor) -> StepTensors:
        """A whole step from sample numbers on the network's device, without synchronisation."""
        optimizers = self._state.optimizers
        optimizers.clear_gradients()
        tensors = self._add_gradients(samples, labelled, rows, 1.0, self._lambda, True)
        optimizers.step()
        return tensors

    def _add_gradients(
        self, samples: Tensor, labelled: Tensor, rows: Tensor, share: float, rate_weight: float | Tensor, measure: bool
    ) -> StepTensors:
        """Forward and backward pass of a batch, or of a micro-batch that is a ``share`` of one."""
        state = self._state
        inputs, samples = state.dataset.inputs(samples), samples.to(state.hardware.device)
        with state.hardware.autocast():
            prediction, centred = (state.quantized or state.field)(inputs, len(labelled) > 0)
        target = state.dataset.targets(samples, prediction.dtype)
        loss = pixel = self._pixel_loss(prediction, target, state.dataset.to_images)
        semantic = bits = mse = None
        if centred is not None:
            labelled, rows = labelled.to(samples.device), rows.to(samples.device)
            semantic = self._semantic_loss(centred.index_select(0, labelled), rows, samples.index_select(0, labelled))
            loss = loss + state.config.semantic_weight * semantic
        if state.quantized is not None:
            bits = state.quantized.bits_per_parameter()
            loss = loss + rate_weight * bits
        (loss if share == 1 else loss * share).backward()
        if measure:
            mse = (prediction.detach().float() - target.float()).square().mean()
        return StepTensors(loss, pixel, mse, semantic, bits).detach()

    def _semantic_loss(self, centred: Tensor, rows: Tensor, samples: Tensor) -> Tensor:
        """Semantic loss of predictions ``(L, patches, D)`` with a reference, of which the rows are given."""
        state = self._state
        assert state.reference is not None
        reference = state.dataset.embeddings(state.reference.centred, rows, samples)
        if state.config.semantic_loss == "cosine":
            return losses.cosine_loss(centred, reference)
        return losses.semantic_loss(centred, reference, state.reference.variance)
