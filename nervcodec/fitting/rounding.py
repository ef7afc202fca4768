# SPDX-License-Identifier: MIT
"""Quantisation that the fit knows about: rounded weights in the forward pass, learned steps, a price for bits.

Rounding passes gradients straight through (Bengio et al. 2013, arXiv:1308.3432); steps are learned as in LSQ (Esser
et al. 2020, arXiv:1902.08153). The rate is that of the values with uniform noise of one step in place of rounding,
under a logistic distribution (after Balle et al. 2017, arXiv:1611.01704).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nervcodec.network.field import Field
from nervcodec.network.grids import FeatureGrid

SMALL = 256  # tensors of fewer values are stored as float16: their table line would cost more than it saves
COARSE = 0.4  # first step over standard deviation: about 3.4 bits a value, for steps that are then learned
FINE = 0.07  # the same for weights that were fitted without rounding: about 6 bits
_SMALLEST_DEVIATION = 1e-6
_LEAST_PROBABILITY = 1e-9
_ASKED = 20_000  # values whose rate is computed, of one tensor in one step


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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        (error,) = ctx.saved_tensors
        return gradient, (gradient * error).sum_to_size(ctx.step_shape)


class Rounding(nn.Module):
    """Rounds one tensor to multiples of learned steps.

    Args:
        values: the tensor.
        coarseness: first step over standard deviation.
        by_channel: a step for each index of the second axis, not one for the tensor.
        generator: of noise, on the values' device.

    Attributes:
        log_step: ``(C,)`` or ``(1,)``.
        log_scale: of the logistic distribution, in steps, of the same shape.
        count: values in the tensor.
        bits: mean rate of the values that passed last, in bits a value; a scalar with gradients.
    """

    bits: Tensor

    def __init__(self, values: Tensor, coarseness: float, by_channel: bool, generator: torch.Generator):
        super().__init__()
        self.generator, self.calls = generator, 0
        self.count = values.numel()
        rows = values.detach().float()
        rows = rows.transpose(0, 1).flatten(1) if by_channel else rows.reshape(1, -1)
        self.shape = (-1, *([1] * (values.ndim - 2))) if by_channel else (1,)
        deviation = rows.square().mean(dim=1).sqrt().clamp(min=_SMALLEST_DEVIATION)
        self.log_step = nn.Parameter((deviation * coarseness).log())
        self.log_scale = nn.Parameter(torch.full_like(self.log_step, math.log(math.sqrt(3) / math.pi / coarseness)))

    def forward(self, values: Tensor) -> Tensor:
        """The values, or some of them along the first axis, rounded."""
        step = self.log_step.exp().view(self.shape)
        self.bits = self._rate(values, step)
        return _StraightThrough.apply(values, step)

    def _rate(self, values: Tensor, step: Tensor) -> Tensor:
        """Mean bits a value; of large tensors a part is asked, another one each time."""
        if values.numel() > _ASKED:
            stride = min(values.numel() // _ASKED, values.shape[-1])
            values = values[..., self.calls % stride :: stride]
            self.calls += 1
        noise = torch.rand(values.shape, generator=self.generator, device=values.device)
        noisy = values / step + (noise - 0.5)
        tightness = self.log_scale.neg().exp().view(self.shape)
        probability = torch.sigmoid((noisy + 0.5) * tightness) - torch.sigmoid((noisy - 0.5) * tightness)
        return -probability.clamp(min=_LEAST_PROBABILITY).log2().mean()


class RoundedField:
    """A field whose weights are rounded whenever it is called.

    Grids are rounded where they are read, a few moments in time for each batch; everything else whole.

    Args:
        field: with the weights to round, which stay unrounded in it.
        coarseness: first steps over standard deviations.
        seed: of the noise that stands for rounding in the rate.
    """

    def __init__(self, field: Field, coarseness: float, seed: int):
        self.field = field
        generator = torch.Generator(field.device).manual_seed(seed)
        grids = {id(grid.values): grid for grid in field.modules() if isinstance(grid, FeatureGrid)}
        self.roundings: dict[str, Rounding] = {}
        self._whole: dict[str, nn.Parameter] = {}
        for name, parameter in field.named_parameters():
            if parameter.numel() < SMALL or not parameter.requires_grad:
                continue
            grid = grids.get(id(parameter))
            rounding = Rounding(parameter, coarseness, grid is not None, generator).to(parameter.device)
            self.roundings[name] = rounding
            if grid is not None:
                grid.rounding = rounding.forward
            else:
                self._whole[name] = parameter

    def parameters(self) -> list[nn.Parameter]:
        """What the fit learns about rounding."""
        return [p for rounding in self.roundings.values() for p in rounding.parameters()]

    def __call__(self, units: Tensor, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        """As the field's own forward pass, with rounded weights."""
        rounded = {name: self.roundings[name](p) for name, p in self._whole.items()}
        return functional_call(self.field, rounded, (units, with_semantics))

    def bits_per_parameter(self) -> Tensor:
        """Rate of the weights that the last call used, over all parameters: a scalar with gradients."""
        total = sum(r.count for r in self.roundings.values())
        return torch.stack([r.bits * (r.count / total) for r in self.roundings.values()]).sum()

    def steps(self) -> dict[str, np.ndarray]:
        """Steps by tensor name, ``(C,)`` or ``(1,)`` float32."""
        return {name: r.log_step.detach().exp().cpu().numpy() for name, r in self.roundings.items()}

    def detach(self) -> None:
        """Leave the field as it was: grids are read unrounded again."""
        for grid in self.field.modules():
            if isinstance(grid, FeatureGrid):
                grid.rounding = None
