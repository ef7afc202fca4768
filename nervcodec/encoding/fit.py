# SPDX-License-Identifier: MIT
"""A network fitted to a segment's task; on the CPU where the GPU's memory is too small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from nervcodec.device import choose
from nervcodec.encoding.joint import SharedNetwork
from nervcodec.encoding.segment import SegmentTask
from nervcodec.network.build import build
from nervcodec.network.config import GridConfig
from nervcodec.network.field import Field
from nervcodec.training.hooks import Hook
from nervcodec.training.loop import Evaluator, FitResult, TrainingLoop
from nervcodec.training.state import FitState

Fitted = TypeVar("Fitted")


def where_it_fits(fit: Callable[[SegmentTask], Fitted], task: SegmentTask, hooks: Hook) -> tuple[Fitted, SegmentTask]:
    """What a function makes of a task, and the task as it was done: that one, or the same on the CPU.

    Args:
        fit: makes something of the task; called again where a GPU's memory is too small for it.
        task: as it is asked for.
        hooks: told of the way out.
    """
    try:
        return fit(task), task
    except torch.cuda.OutOfMemoryError:
        hooks.note("the GPU's memory does not hold this fit at any batch size; it goes on on the CPU")
    on_cpu = replace(task, hardware=choose("cpu", task.precision))
    return fit(on_cpu), on_cpu


def fitted(
    task: SegmentTask, hooks: Hook, resumed: dict[str, Any] | None, judge: Evaluator | None = None
) -> tuple[Field, FitResult]:
    """The task's network, from random weights or where a fit was left.

    Args:
        task: whose network, data, settings and goal count.
        hooks: told of what happens.
        resumed: the state to go on from, or None.
        judge: needed where the settings name a PSNR to reach.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.fit.seed + task.index)
        field = build(task.network)
    if task.shared is not None:
        _begin_from(field, task.shared, task.first_frame)
    state = FitState(field, task.data, task.fit, task.hardware, task.goal)
    if resumed is not None:
        state.load_state_dict(resumed)
    return field, TrainingLoop(state, hooks, judge).run()


@torch.no_grad()
def _begin_from(field: Field, shared: SharedNetwork, first: int) -> None:
    """Give a field what is shared, and let the rest begin where the sample came to."""
    assert isinstance(field.config, GridConfig)
    field.freeze({name: torch.from_numpy(values) for name, values in shared.weights().items()})
    for name, values in shared.beginning(field.config, first).items():
        field.get_parameter(name).copy_(torch.from_numpy(values))
