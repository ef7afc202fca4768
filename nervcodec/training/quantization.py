# SPDX-License-Identifier: MIT
"""Quantisation that the fit knows about: rounded weights in the forward pass, learned steps, a price for bits.

Rounding passes gradients straight through (Bengio et al. 2013, arXiv:1308.3432); steps are learned as in LSQ (Esser
et al. 2020, arXiv:1902.08153). The rate is that of the values with uniform noise of one step in place of rounding,
under a logistic distribution (after Balle et al. 2017, arXiv:1611.01704).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nervcodec.network.field import Field, Inputs
from nervcodec.network.grid import FeatureGrid

COARSE = 0.4  # first step over standard deviation: about 3.4 bits a value, for steps that are then learned
FINE = 0.02  # the same for weights that were fitted without rounding: about 8 bits
_ROUNDED_FROM = 256  # values of a tensor; a smaller one is stored as float16, as its table would cost more
_SMALLEST_DEVIATION = 1e-6
_LEAST_PROBABILITY = 1e-9
_ASKED = 20_000  # values whose rate is computed, of one group in one step


class _StraightThrough(torch.autograd.Function):
    """Values to the nearest multiple of a step; the gradient passes as if nothing had happened."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor) -> Tensor:
        steps = values / step
        rounded = steps.round()
        ctx.save_for_backward(rounded - steps)
        ctx.step_shape = step.shape
        return rounded * step

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (error,) = ctx.saved_tensors
        return gradient, (gradient * error).sum_to_size(ctx.step_shape)


class Rounding(nn.Module, ABC):
    """Rounds values to multiples of learned steps; which step a value has is for a subclass to say.

    Args:
        deviations: ``(n,)`` standard deviations of the values that share a step.
        count: number of values.
        coarseness: first step over standard deviation.
        generator: of noise, on the values' device.

    Attributes:
        log_step: ``(n,)``.
        log_scale: ``(n,)``, of the logistic distribution, in steps.
        bits: mean rate of the values that passed last, in bits a value; a scalar with gradients.
    """

    bits: Tensor

    def __init__(self, deviations: Tensor, count: int, coarseness: float, generator: torch.Generator):
        super().__init__()
        self.count, self.generator, self.calls = count, generator, 0
        self.log_step = nn.Parameter((deviations.clamp(min=_SMALLEST_DEVIATION) * coarseness).log())
        self.log_scale = nn.Parameter(torch.full_like(self.log_step, math.log(math.sqrt(3) / math.pi / coarseness)))

    @torch.no_grad()
    def widen(self, factor: float) -> None:
        """Multiply all steps; the distribution of the values stays what it is."""
        self.log_step.add_(math.log(factor))
        self.log_scale.sub_(math.log(factor))

    @abstractmethod
    def spread(self, per_step: Tensor, part: slice) -> Tensor:
        """From one number a step to one a value (or what broadcasts to it), for a part of the values' last axis."""

    def forward(self, values: Tensor) -> Tensor:
        """The values, or some of them along the first axis, rounded."""
        step = self.log_step.exp()
        self.bits = self._rate(values, step)
        return _StraightThrough.apply(values, self.spread(step, slice(None)))

    def _rate(self, values: Tensor, step: Tensor) -> Tensor:
        """Mean bits a value; on a CPU a part is asked where there are many, another one each time."""
        stride = 1 if values.is_cuda else max(1, min(values.numel() // _ASKED, values.shape[-1]))
        part = slice(self.calls % stride, None, stride)
        self.calls += 1
        values = values[..., part]
        noise = torch.rand(values.shape, generator=self.generator, device=values.device)
        noisy = values / self.spread(step, part) + (noise - 0.5)
        tightness = self.spread(self.log_scale.neg().exp(), part)
        probability = torch.sigmoid((noisy + 0.5) * tightness) - torch.sigmoid((noisy - 0.5) * tightness)
        return -probability.clamp(min=_LEAST_PROBABILITY).log2().mean()


class GridRounding(Rounding):
    """A step for each channel of a grid ``(T, C, H, W)``."""

    def __init__(self, grid: Tensor, coarseness: float, generator: torch.Generator):
        deviations = grid.detach().square().mean(dim=(0, 2, 3)).sqrt()
        super().__init__(deviations, grid.numel(), coarseness, generator)

    def spread(self, per_step: Tensor, part: slice) -> Tensor:
        return per_step.view(-1, 1, 1)


class FlatRounding(Rounding):
    """A step for each of several tensors, joined into one vector: a few operations in place of a few for each."""

    owner: Tensor

    def __init__(self, tensors: list[Tensor], coarseness: float, generator: torch.Generator):
        deviations = torch.stack([t.detach().square().mean().sqrt() for t in tensors])
        sizes = [t.numel() for t in tensors]
        super().__init__(deviations, sum(sizes), coarseness, generator)
        owner = torch.cat([torch.full((size,), number) for number, size in enumerate(sizes)])
        self.register_buffer("owner", owner.to(deviations.device))

    def spread(self, per_step: Tensor, part: slice) -> Tensor:
        return per_step.index_select(0, self.owner[part])


class RoundedField:
    """A field whose weights are rounded whenever it is called.

    It has modules of its own over the field's parameters: the field itself stays as it is. Grids are rounded where
    they are read, a few moments in time for each batch; everything else whole.

    Args:
        field: with the weights to round, which stay unrounded in it.
        coarseness: first steps over standard deviations.
        seed: of the noise that stands for rounding in the rate.

    Attributes:
        field: its own modules over the same parameters.
    """

    def __init__(self, field: Field, coarseness: float, seed: int):
        shared = {id(tensor): tensor for tensor in (*field.parameters(), *field.buffers())}
        self.field = copy.deepcopy(field, shared)
        self.generator = generator = torch.Generator(field.device).manual_seed(seed)
        grids = {id(g.values): g for g in self.field.modules() if isinstance(g, FeatureGrid) and g.values.requires_grad}
        self.grids: dict[str, GridRounding] = {}
        self.whole: dict[str, nn.Parameter] = {}
        for name, parameter in self.field.named_parameters():
            if id(parameter) in grids:
                self.grids[name] = GridRounding(parameter, coarseness, generator)
                grids[id(parameter)].round_with(self.grids[name].forward)
            elif parameter.requires_grad and parameter.numel() >= _ROUNDED_FROM:
                self.whole[name] = parameter
        self.flat = FlatRounding(list(self.whole.values()), coarseness, generator) if self.whole else None

    @property
    def _roundings(self) -> list[Rounding]:
        return [*self.grids.values(), *([self.flat] if self.flat is not None else [])]

    def parameters(self) -> list[nn.Parameter]:
        """What the fit learns about rounding."""
        return [p for rounding in self._roundings for p in rounding.parameters()]

    def __call__(self, inputs: Inputs, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        """As the field's own forward pass, with rounded weights."""
        rounded = {}
        if self.flat is not None:
            joined = self.flat(torch.cat([p.reshape(-1) for p in self.whole.values()]))
            pieces = joined.split([p.numel() for p in self.whole.values()])
            rounded = {name: x.view_as(p) for (name, p), x in zip(self.whole.items(), pieces, strict=True)}
        return functional_call(self.field, rounded, (inputs, with_semantics))

    def widen(self, factor: float) -> None:
        """Multiply the steps of all tensors."""
        if factor != 1:
            for rounding in self._roundings:
                rounding.widen(factor)

    def bits_per_parameter(self) -> Tensor:
        """Rate of the weights that the last call used, over all parameters: a scalar, with gradients the first time."""
        total = sum(r.count for r in self._roundings)
        bits = torch.stack([r.bits * (r.count / total) for r in self._roundings]).sum()
        for rounding in self._roundings:
            rounding.bits = rounding.bits.detach()  # what gradients need of a step goes with the step
        return bits

    def steps(self) -> dict[str, np.ndarray]:
        """Steps by tensor name, ``(C,)`` for a grid or ``(1,)``, float32."""
        found = {name: r.log_step.detach().exp().cpu().numpy() for name, r in self.grids.items()}
        if self.flat is not None:
            of_whole = self.flat.log_step.detach().exp().cpu().numpy()
            found.update({name: of_whole[i : i + 1] for i, name in enumerate(self.whole)})
        return found

    def state(self) -> dict[str, Any]:
        """What rounding has learned, and where its noise is: plain values and tensors."""
        return {
            "parameters": [p.detach() for p in self.parameters()],
            "calls": [r.calls for r in self._roundings],
            "noise": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        with torch.no_grad():
            for parameter, own in zip(self.parameters(), state["parameters"], strict=True):
                parameter.copy_(own)
        for rounding, calls in zip(self._roundings, state["calls"], strict=True):
            rounding.calls = calls
        noise = state["noise"].cpu()
        if noise.shape == self.generator.get_state().shape:  # else it is a GPU's, or a CPU's: noise begins anew
            self.generator.set_state(noise)
