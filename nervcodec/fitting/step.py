# SPDX-License-Identifier: MIT
"""One step of a fit: rates, gradients of a batch, the price of bits, and the move."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nervcodec.fitting import losses
from nervcodec.fitting.facts import StepFacts
from nervcodec.fitting.rate_control import coded
from nervcodec.fitting.schedule import parse_schedule
from nervcodec.fitting.state import FitState

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
            state.optimizers.clear_gradients()
            try:
                parts = units.split(state.part_size)
                facts = [self._add_gradients(part, len(part) / len(units), done, measure) for part in parts]
                break
            except torch.cuda.OutOfMemoryError:
                if state.part_size == 1:
                    raise
                self._use_smaller_parts()
        self._follow_rate(done)
        state.optimizers.step()
        state.steps += 1
        return StepFacts.mean([f for f in facts if f is not None]) if measure else None

    def _follow_rate(self, done: float) -> None:
        """Let the price of bits follow the rate."""
        state, rounded = self._state, self._state.rounded
        if rounded is None:
            return
        if state.steps % _READ_EVERY == 0:
            state.rate.read(rounded.bits_per_parameter().item(), 1 - (1 - done) / state.config.rounding_share)
        if state.rate.wants_measure:
            rounded.widen(state.rate.calibrate(8 * coded(state.field, rounded.steps()).size / state.parameters))

    def _use_smaller_parts(self) -> None:
        state = self._state
        state.part_size = -(-state.part_size // 2)
        if state.hardware.device == "cuda":
            torch.cuda.empty_cache()
        size = state.batches.size
        self._note(f"out of GPU memory; batches of {size} go in parts of {state.part_size} from here")

    def _add_gradients(self, units: Tensor, share: float, done: float, measure: bool) -> StepFacts | None:
        """Forward and backward pass of a batch, or of a part that is a ``share`` of one."""
        state = self._state
        rows = None
        if state.reference is not None and state.semantics_active(done):
            rows = state.reference.rows(state.units.frames(units))
            rows = rows if bool((rows >= 0).any()) else None
        inputs, units = state.units.inputs(units), units.to(state.hardware.device)
        with state.hardware.autocast():
            prediction, centred = (state.rounded or state.field)(inputs, rows is not None)
        prediction = state.units.compared(prediction)
        target = state.units.targets(units, prediction.dtype)
        loss = pixel = self._pixel_loss(prediction, target, state.units.images)
        semantic = bits = None
        if rows is not None and centred is not None:
            semantic = self._semantic_loss(centred, rows.to(state.hardware.device), units)
            loss = loss + state.config.semantic_weight * semantic
        if state.rounded is not None:
            bits = state.rounded.bits_per_parameter()
            loss = loss + state.rate.weight * bits
        (loss if share == 1 else loss * share).backward()
        if not measure:
            return None
        mse = (prediction.detach().float() - target.float()).square().mean().item()
        return StepFacts(
            mse=mse if math.isfinite(loss.item()) else math.nan,
            loss=loss.item(),
            pixel=pixel.item(),
            semantic=None if semantic is None else semantic.item(),
            bits=None if bits is None else bits.item(),
        )

    def _semantic_loss(self, centred: Tensor, rows: Tensor, units: Tensor) -> Tensor:
        """Of the frames of a batch that have a reference; ``rows`` is -1 for those without."""
        state, labelled = self._state, rows >= 0
        assert state.reference is not None
        reference = state.units.embeddings(state.reference.centred, rows.clamp(min=0), units)
        if state.config.semantic_loss == "cosine":
            return losses.cosine_loss(centred, reference, labelled)
        return losses.semantic_loss(centred, reference, labelled, state.reference.variance)
