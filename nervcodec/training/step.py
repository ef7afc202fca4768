# SPDX-License-Identifier: MIT
"""One step of a fit: rates, gradients of a batch, the price of bits, and the move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nervcodec.training import losses
from nervcodec.training.config import parse_schedule
from nervcodec.training.cuda_graphs import StepGraphs
from nervcodec.training.losses import Figures, StepFacts
from nervcodec.training.rate_control import coded
from nervcodec.training.state import FitState

_READ_EVERY = 4  # steps between readings of the rate
_LEAST_FACTOR = 1e-4  # of the schedule


class Stepper:
    """Takes the steps of a fit.

    Args:
        state: of the fit.
        note: told of what a user should know.
    """

    def __init__(self, state: FitState, note: Callable[[str], None]):
        self._state, self._note = state, note
        self._schedule = parse_schedule(state.config.lr_type)
        self._pixel_loss = losses.PIXEL[state.config.loss]
        self._graphs = StepGraphs(self._whole, self._generators, note) if state.is_recorded else None
        self._price = torch.zeros((), device=state.hardware.device)  # of a bit, for steps that are recorded

    def close(self) -> None:
        """Let go of what steps have left on a GPU."""
        if self._graphs is not None:
            self._graphs.forget()
            self._graphs = None
            self._state.optimizers.clear_gradients()

    def _generators(self) -> list[torch.Generator]:
        return [] if self._state.rounded is None else [self._state.rounded.generator]

    def take(self, units: Tensor, done: float, measure: bool) -> StepFacts | None:
        """One optimiser step; says what it came to where ``measure`` asks for it.

        Where a GPU's memory does not hold the batch, gradients are added up over halves of it from then on.

        Args:
            units: ``(B,)`` of the batch.
            done: fraction of the fit, 0 to 1.
            measure: whether figures are wanted.
        """
        state = self._state
        if state.rounded is None and done > 1 - state.config.rounding_share:
            state.begin_rounding()
        by_length = state.optimizers.length_factor(state.steps, done)
        state.optimizers.set_rate(max(self._schedule(done), _LEAST_FACTOR) * state.lr_scale * by_length)
        while True:
            recorded = self._graphs is not None and len(units) <= state.part_size
            try:
                figures = [self._recorded(units, done)] if recorded else self._gradients(units, done, measure)
                break
            except torch.cuda.OutOfMemoryError:
                if state.part_size == 1:
                    raise
                self._use_smaller_parts()
        self._follow_rate(figures[-1].bits, done)
        if not recorded:
            state.optimizers.step()
        state.steps += 1
        return StepFacts.mean([StepFacts.of(part) for part in figures]) if measure else None

    def _follow_rate(self, bits: Tensor | None, done: float) -> None:
        """Let the price of bits follow the rate."""
        state, rounded = self._state, self._state.rounded
        if rounded is None:
            return
        assert bits is not None, "where weights are rounded, a step says what they take"
        if state.steps % _READ_EVERY == 0:
            state.rate.read(bits.item(), 1 - (1 - done) / state.config.rounding_share)
        if state.rate.wants_measure:
            rounded.widen(state.rate.calibrate(8 * coded(state.field, rounded.steps()).size / state.parameters))

    def _use_smaller_parts(self) -> None:
        state = self._state
        state.part_size = -(-state.part_size // 2)
        if self._graphs is not None:
            self._graphs.forget()
        if state.hardware.device == "cuda":
            torch.cuda.empty_cache()
        size = state.batches.size
        self._note(f"out of GPU memory; batches of {size} go in parts of {state.part_size} from here")

    def _batch(self, units: Tensor, done: float) -> tuple[Tensor, Tensor, Tensor]:
        """A batch's units, which of them, by place, have a reference to fit, and the rows of those in the reference."""
        state = self._state
        if state.reference is None or not state.semantics_active(done):
            return units, units[:0], units[:0]
        rows = state.reference.rows(state.units.frames(units))
        labelled = torch.nonzero(rows >= 0)[:, 0]
        return units, labelled, rows[labelled]

    def _gradients(self, units: Tensor, done: float, measure: bool) -> list[Figures]:
        """Gradients of a batch, added up over its parts."""
        state = self._state
        state.optimizers.clear_gradients()
        return [
            self._add_gradients(*self._batch(part, done), len(part) / len(units), state.rate.weight, measure)
            for part in units.split(state.part_size)
        ]

    def _recorded(self, units: Tensor, done: float) -> Figures:
        """A whole step, as a graph where there is one of its kind."""
        assert self._graphs is not None
        self._price.fill_(self._state.rate.weight)
        return self._graphs.take(self._batch(units, done), self._state.optimizers.version)

    def _whole(self, units: Tensor, labelled: Tensor, rows: Tensor) -> Figures:
        """A whole step, from numbers where the network runs, of which nothing is read."""
        optimizers = self._state.optimizers
        optimizers.clear_gradients()
        figures = self._add_gradients(units, labelled, rows, 1.0, self._price, True)
        optimizers.step()
        return figures

    def _add_gradients(
        self, units: Tensor, labelled: Tensor, rows: Tensor, share: float, price: float | Tensor, measure: bool
    ) -> Figures:
        """Forward and backward pass of a batch, or of a part that is a ``share`` of one."""
        state = self._state
        inputs, units = state.units.inputs(units), units.to(state.hardware.device)
        with state.hardware.autocast():
            prediction, centred = (state.rounded or state.field)(inputs, len(labelled) > 0)
        target = state.units.targets(units, prediction.dtype)
        loss = pixel = self._pixel_loss(prediction, target, state.units.images)
        semantic = bits = mse = None
        if centred is not None:
            labelled, rows = labelled.to(units.device), rows.to(units.device)
            semantic = self._semantic_loss(centred.index_select(0, labelled), rows, units.index_select(0, labelled))
            loss = loss + state.config.semantic_weight * semantic
        if state.rounded is not None:
            bits = state.rounded.bits_per_parameter()
            loss = loss + price * bits
        (loss if share == 1 else loss * share).backward()
        if measure:
            mse = (prediction.detach().float() - target.float()).square().mean()
        return Figures(loss, pixel, mse, semantic, bits).detached()

    def _semantic_loss(self, centred: Tensor, rows: Tensor, units: Tensor) -> Tensor:
        """Of predictions whose reference is known: rows of it, and the units that they are of."""
        state = self._state
        assert state.reference is not None
        reference = state.units.embeddings(state.reference.centred, rows, units)
        if state.config.semantic_loss == "cosine":
            return losses.cosine_loss(centred, reference)
        return losses.semantic_loss(centred, reference, state.reference.variance)
