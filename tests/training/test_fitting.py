# SPDX-License-Identifier: MIT
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import begun, embeddings, fitted, moving_square, random_embeddings

from nervcodec.device import Hardware, choose
from nervcodec.errors import ConfigError, DivergedError
from nervcodec.events import Observer
from nervcodec.network.field import Inputs
from nervcodec.training import losses
from nervcodec.training.config import FitConfig, parse_schedule
from nervcodec.training.hooks import Hook, ProgressHook
from nervcodec.training.loop import TrainingLoop
from nervcodec.training.optimizers import Muon, Optimizers, orthogonalize
from nervcodec.training.state import DivergenceGuard
from nervcodec.training.step import Stepper


class Recorder(Observer):
    def __init__(self, stop_after=None):
        self.events, self.stop_after, self.requested = [], stop_after, 0

    def step(self, event):
        self.events.append(event)

    def stop_requested(self):
        self.requested += 1
        return self.stop_after is not None and self.requested > self.stop_after


def test_long_fits_get_a_lower_default_learning_rate():
    field = begun(FitConfig(epochs=1)).field
    usual, chosen, adam = (Optimizers(field, *one) for one in (("muon", None), ("muon", 0.02), ("adam", None)))
    assert usual.length_factor(12_000, 0.5) == pytest.approx(0.5)  # of 24,000: sixteen times what the rate suits
    assert usual.length_factor(100, 0.5) == 1  # a short fit
    assert usual.length_factor(0, 0.0) == 1
    assert chosen.length_factor(12_000, 0.5) == adam.length_factor(12_000, 0.5) == 1


def test_rates_are_set_by_the_schedule():
    state = begun(FitConfig(epochs=1, lr_type="constant"))
    Stepper(state, print).take(state.batches.next(), 0.3, measure=False)
    assert state.optimizers.learning_rates() == {"muon_0_0": 0.02, "adam_1_0": 0.02, "adam_1_1": 0.003}
    state.steps = 12_000
    Stepper(state, print).take(state.batches.next(), 0.5, measure=False)
    assert state.optimizers.learning_rates()["muon_0_0"] == pytest.approx(0.01)


def test_cosine_schedule_follows_the_formula():
    factor = parse_schedule("cosine_0.1_1_0.1")
    assert factor(0.0) == 0.0
    assert factor(0.05) == pytest.approx(0.5)
    assert factor(0.1) == pytest.approx(1.0)
    assert factor(0.55) == pytest.approx(0.55)
    assert factor(1.0) == pytest.approx(0.1)
    for done in np.linspace(0.1, 1, 50):
        expected = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))
        assert factor(done) == pytest.approx(expected)


def test_other_schedules():
    assert parse_schedule("constant")(0.7) == 1.0
    factor = parse_schedule("linear_0.2_1_0.5")
    assert [factor(x) for x in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0, 0.5, 1, 0.75, 0.5])
    factor = parse_schedule("step_0.25_0.5")
    assert [factor(x) for x in (0.0, 0.24, 0.25, 0.5, 0.99)] == [1, 1, 0.5, 0.25, 0.125]
    for bad in (
        "",
        "cosine",
        "cosine_1_1_1",
        "cosine_a_1_1",
        "linear",
        "linear_1_1_1",
        "step_0_0.5",
        "constant_1",
        "cosine_-1_1_1",
    ):
        with pytest.raises(ConfigError):
            parse_schedule(bad)


def test_muon_makes_matrices_nearly_orthogonal():
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonalize(torch.randn(3, 20, 50)))
    assert singular.min() > 0.6
    assert singular.max() < 1.3


def test_muon_equals_that_of_torch():
    torch.manual_seed(0)
    shapes = [(20, 50), (50, 20), (20, 50), (8, 8)]
    ours = [torch.nn.Parameter(torch.randn(s)) for s in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    a = Muon(ours, lr=0.02, momentum=0.95)
    b = torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=0.0)
    for step in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        assert (p - q).abs().max() < 0.004  # torch iterates in bfloat16
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


@pytest.mark.slow
def test_the_original_cosine_loss():
    a, b = torch.eye(4)[None, :2], torch.eye(4)[None, 1:3]
    assert losses.cosine_loss(a, b).item() == pytest.approx(1)
    assert losses.cosine_loss(3 * a, a).item() == pytest.approx(0, abs=1e-6)
    config = FitConfig(epochs=300, semantic_loss="cosine", semantic_weight=1.0)
    reference = random_embeddings()
    t, _ = fitted(config, embeddings=reference, semantic=True)
    assert t.field.semantic.mean.abs().sum() == 0
    predicted = embeddings(t.field, torch.arange(0, 8, 2)).detach().numpy()
    assert (predicted * reference).sum(axis=-1).mean() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["l1", "l2", "log-l2", "fusion6", "fusion12"])
def test_every_kind_of_loss_fits(loss):
    recorder = Recorder()
    _, result = fitted(FitConfig(epochs=100, loss=loss, batch_size=4), recorder)
    assert result.complete
    assert result.steps == 200
    assert recorder.events[-1].psnr_db > 18
    assert recorder.events[-1].fraction == 1.0


@pytest.mark.slow
def test_adam_on_everything_fits_too():
    recorder = Recorder()
    fitted(FitConfig(epochs=400, optimizer="adam", lr=0.01), recorder)
    assert recorder.events[-1].psnr_db > 18


def test_the_semantic_loss_starts_after_the_warm_up():
    t = begun(FitConfig(epochs=10, pixel_warmup=0.5), embeddings=random_embeddings(), semantic=True)
    take = Stepper(t, print).take
    assert [t.semantics_active(x) for x in (0.0, 0.49, 0.5, 1.0)] == [False, False, True, True]
    before = t.field.semantic.hidden.weight.detach().clone()
    assert take(torch.arange(8), 0.3, measure=True).semantic is None
    assert t.field.semantic.hidden.weight.grad is None
    assert torch.equal(t.field.semantic.hidden.weight, before)
    assert take(torch.arange(8), 0.6, measure=True).semantic > 0
    assert t.field.semantic.hidden.weight.grad.abs().sum() > 0
    # A batch whose frames have no reference embedding fits pixels only.
    assert take(torch.tensor([1, 3]), 0.6, measure=True).semantic is None


def test_a_warm_up_of_1_and_more_counts_epochs():
    t = begun(FitConfig(time_s=60, pixel_warmup=2, batch_size=4), embeddings=random_embeddings(), semantic=True)
    take, seen = Stepper(t, print).take, []
    for _ in range(6):  # two steps are an epoch
        seen.append(take(torch.arange(4), 0.0, measure=True).semantic is not None)
    assert seen == [False, False, False, False, True, True]


@pytest.mark.slow
def test_the_semantic_head_learns():
    reference = random_embeddings()
    t, _ = fitted(FitConfig(epochs=150, batch_size=4, pixel_warmup=0.1), embeddings=reference, semantic=True)
    with torch.inference_mode():
        predicted = embeddings(t.field, torch.arange(0, 8, 2)).numpy()
    mean = reference.mean(axis=(0, 1))
    a, b = predicted - mean, reference - mean
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert cosine.mean() > 0.7


def test_the_same_seed_gives_the_same_weights():
    def weights():
        t, _ = fitted(FitConfig(epochs=3, seed=4))
        return torch.cat([p.flatten() for p in t.field.parameters()])

    assert torch.equal(weights(), weights())


@pytest.mark.slow
def test_an_early_stop_keeps_the_averaged_weights():
    recorder = Recorder(stop_after=300)
    t, result = fitted(FitConfig(epochs=600), recorder)
    assert not result.complete
    assert result.steps == 300
    with torch.inference_mode():
        image = t.field.render(Inputs(torch.tensor([0])))[0]
    error = image - torch.from_numpy(moving_square()[0]).float() / 255
    assert error.square().mean() < 0.02


def test_divergence_raises_an_error():
    with pytest.raises(DivergedError, match="diverged"):
        fitted(FitConfig(epochs=500, lr=1e30))


@pytest.mark.parametrize("limit", [1, 3])
def test_a_batch_too_large_for_the_memory_is_split(limit, monkeypatch):
    config = FitConfig(epochs=2, batch_size=8, loss="l2", rounding_share=0.0)
    whole, _ = fitted(config)
    notes, parts = Notes(), begun(config)
    forward = type(parts.field).forward

    def small(self, inputs, with_semantics):
        if len(inputs.frames) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, inputs, with_semantics)

    monkeypatch.setattr(type(parts.field), "forward", small)
    result = TrainingLoop(parts, notes).run()
    assert result.steps == 2  # the schedule is that of whole batches
    assert "batches of 8 are split into parts of" in notes.messages[-1]
    for a, b in zip(whole.field.parameters(), parts.field.parameters(), strict=True):
        # Adam divides by the gradient's size, so where that is nearly nothing, rounding decides; hence the mean.
        assert (a - b).abs().mean() < 2e-4


class Notes(Observer):
    def __init__(self):
        self.messages = []

    def note(self, text):
        self.messages.append(text)


class Spoiler(Hook):
    """Ruins the network once, as a fit that explodes does."""

    def __init__(self, at, value):
        self.at, self.value = at, value

    def stepped(self, state):
        if state.steps == self.at:
            self.at = None
            with torch.no_grad():
                state.field.pixels.project.weight[0] = self.value


@pytest.mark.slow
@pytest.mark.parametrize("at", [60, 140])  # before and after rounding begins
@pytest.mark.parametrize("value", [math.nan, 1e4])
def test_a_diverged_fit_rolls_back(at, value):
    notes, recorder = Notes(), Recorder()
    state, ticks = begun(FitConfig(epochs=120, batch_size=4)), itertools.count()
    # A clock by which a copy of the weights is taken at every step, that of the spoiled ones among them.
    hooks = [Spoiler(at, value), ProgressHook(recorder)]
    result = TrainingLoop(state, notes, hooks, measure_every_s=0.0, clock=lambda: 10.0 * next(ticks)).run()
    assert result.complete
    assert result.steps == 240
    assert len(notes.messages) >= 1
    assert "back to the last good weights, with 0.5 of the learning rate" in notes.messages[0]
    assert recorder.events[-1].psnr_db > 18
    assert all(torch.isfinite(p).all() for p in state.field.parameters())


def test_weights_ruined_by_the_last_step_are_not_kept():
    state = begun(FitConfig(epochs=20, batch_size=4))
    assert TrainingLoop(state, hooks=[Spoiler(40, math.inf)], measure_every_s=0.0).run().steps == 40
    assert all(torch.isfinite(p).all() for p in state.field.parameters())


def test_rounding_leaves_the_field_as_it_is():
    state, _ = fitted(FitConfig(epochs=30, batch_size=4))
    with torch.inference_mode():
        plain, _ = state.field(Inputs(torch.arange(2)), False)
        rounded, _ = state.quantized(Inputs(torch.arange(2)), False)
        again, _ = state.field(Inputs(torch.arange(2)), False)
    assert not torch.equal(plain, rounded)
    assert torch.equal(plain, again)
    assert state.quantized.field is not state.field
    for a, b in zip(state.quantized.field.parameters(), state.field.parameters(), strict=True):
        assert a is b


def test_time_ends_the_fit_and_the_schedule():
    recorder = Recorder()
    state = begun(FitConfig(time_s=1.0))
    hundredths = itertools.count()  # one goes by whenever the time is asked for
    result = TrainingLoop(state, recorder, [ProgressHook(recorder)], clock=lambda: next(hundredths) / 100).run()
    assert result.complete
    assert 1.0 <= result.elapsed_s < 1.02
    assert 90 <= result.steps <= 100
    assert recorder.events[-1].fraction == 1.0


@pytest.mark.parametrize(
    "bad",
    [
        {"time_s": 0},
        {"time_s": math.nan},
        {"epochs": 0},
        {"loss": "l3"},
        {"optimizer": "sgd"},
        {"lr": 0},
        {"lr_type": "x"},
        {"batch_size": 0},
        {"semantic_weight": -1},
        {"pixel_warmup": -1},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(ConfigError):
        FitConfig(**bad)


def test_time_is_shared_by_length():
    assert FitConfig(time_s=60).with_default_time(4).scaled(0.25).time_s == 15
    assert FitConfig().with_default_time(2, further_s=180).scaled(0.5).time_s == 180
    assert FitConfig().with_default_time(7).time_s == 180 + 6 * 60
    assert FitConfig(epochs=3).with_default_time(2).scaled(0.5) == FitConfig(epochs=3)


def test_choosing_hardware():
    assert choose("cpu", "bf16") == Hardware("cpu", "bf16")
    assert choose("cpu").precision in ("fp32", "bf16")
    if not torch.cuda.is_available():
        assert choose().device == "cpu"
        with pytest.raises(ConfigError, match="CUDA"):
            choose("cuda")


def test_a_copy_of_weights_is_trusted_once_the_next_is_taken():
    weight, guard = torch.nn.Parameter(torch.zeros(1)), DivergenceGuard()
    for tenth in range(60):  # seconds 0 to 6, of which the weights say which
        weight.data[:] = tenth / 10
        guard.save([weight], 30.0, tenth / 10)
    guard.roll_back()
    assert weight.item() == pytest.approx(2.0)  # not 4.0, the last that were copied
    first, early = torch.nn.Parameter(torch.ones(1)), DivergenceGuard()
    early.save([first], 30.0, 0.0)
    assert not early.can_roll_back
    early.save([first], 30.0, 0.1)
    assert early.can_roll_back  # there is no other


def test_a_resumed_fit_keeps_its_batch_size():
    """On another device they may be of another size, and an end in epochs counts them."""
    config = FitConfig(epochs=4, batch_size=2)
    began, other = begun(config), begun(replace(config, batch_size=8))
    began.steps = 6
    other.load_state_dict(began.state_dict())
    assert (other.batches.size, other.micro_batch_size, other.batches.per_epoch) == (2, 2, 4)
    assert other.budget(0.0)[0] == began.budget(0.0)[0] == pytest.approx(6 / 16)
