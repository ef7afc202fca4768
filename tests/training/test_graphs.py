# SPDX-License-Identifier: MIT
"""CUDA graphs, replaced on a CPU: which steps are captured, and that captured steps equal uncaptured ones."""

import pytest
import torch
from fits import begun, random_embeddings

from nervcodec.training.config import FitConfig
from nervcodec.training.cuda_graphs import StepGraphs
from nervcodec.training.loop import TrainingLoop
from nervcodec.training.losses import StepTensors
from nervcodec.training.step import Stepper


class Cpu:
    """In place of a GPU."""

    def run(self, step, batch):
        return step(*batch)

    def capture(self, *arguments):
        return Again(*arguments)


class Again:
    """In place of a graph: the work itself, on the tensors it was recorded with."""

    made = 0

    def __init__(self, work, numbers, generators):
        type(self).made += 1
        self.work, self.numbers, self.generators = work, [part.clone() for part in numbers], generators

    def replay(self, numbers):
        for own, part in zip(self.numbers, numbers, strict=True):
            own.copy_(part)
        return self.work(*self.numbers)


def graphs(work, generators=list):
    Again.made = 0
    return StepGraphs(work, generators, print, Cpu())


def test_the_fourth_step_of_a_kind_is_captured():
    seen = []

    def work(units, labelled):
        seen.append((units.tolist(), labelled.tolist()))
        return StepTensors(units.sum(), units.sum())

    steps = graphs(work)
    for number in range(5):
        figures = steps.run((torch.tensor([number, 1]), torch.tensor([0])), 1)
        assert figures.loss.item() == number + 1
        assert Again.made == (number >= 3)
    assert seen == [([number, 1], [0]) for number in range(5)]
    for made in (1, 1, 1, 2, 2):  # a batch of another size is of another kind
        steps.run((torch.tensor([7]), torch.tensor([0])), 1)
        assert Again.made == made
    for made in (2, 2, 2, 3):  # and so is one whose graph no longer holds
        steps.run((torch.tensor([7]), torch.tensor([0])), 2)
        assert Again.made == made


@pytest.mark.parametrize("with_semantics", [False, True])
def test_captured_steps_equal_uncaptured_ones(with_semantics):
    def weights(record):
        config = FitConfig(epochs=20, batch_size=3, lr=0.01, optimizer="adam", pixel_warmup=0.2, rounding_share=0.5)
        state = begun(config, embeddings=random_embeddings() if with_semantics else None, semantic=with_semantics)
        stepper, facts = Stepper(state, print), []
        if record:
            stepper._graphs = graphs(stepper._whole_step, stepper._generators)
        for number in range(40):
            facts.append(stepper.take(state.batches.next(), number / 40, measure=True))
        assert Again.made >= 2 * record
        return torch.cat([p.flatten() for p in state.field.parameters()]), [fact.loss for fact in facts]

    (plain, losses), (recorded, same) = weights(False), weights(True)
    assert same == pytest.approx(losses, rel=1e-4)
    assert torch.allclose(plain, recorded, atol=2e-4)


def test_a_failed_capture_is_noted_and_steps_run_uncaptured():
    messages = []

    class Small(Cpu):
        def capture(self, *_):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    steps = StepGraphs(lambda units: StepTensors(units.sum(), units.sum()), list, messages.append, Small())
    for number in range(9):
        assert steps.run((torch.tensor([number]),), 1).loss.item() == number
    assert len(messages) == 1
    assert "CUDA out of memory" in messages[0]


def test_graphs_are_freed_at_the_end_of_a_fit():
    state = begun(FitConfig(epochs=8, batch_size=4))
    loop = TrainingLoop(state)
    loop._stepper._graphs = graphs(loop._stepper._whole_step, loop._stepper._generators)
    kept = loop._stepper._graphs._captured
    loop.run()
    assert Again.made
    assert not kept
    assert loop._stepper._graphs is None
    assert all(p.grad is None for p in state.field.parameters())
