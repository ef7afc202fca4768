# SPDX-License-Identifier: MIT
"""Quantization-aware training: quantized weights in the forward pass, learned steps, a rate estimate in the loss.

Rounding passes gradients straight through (Bengio et al. 2013, arXiv:1308.3432); steps are learned as in LSQ (Esser
et al. 2020, arXiv:1902.08153). The rate is that of the values with uniform noise of one step in place of rounding,
under a logistic distribution (after Balle et al. 2017, arXiv:1611.01704).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nervcodec.network.field import Field, Inputs
from nervcodec.network.grid import FeatureGrid

COARSE = 0.4  # initial step over standard deviation: about 3.4 bits a value, for steps that are then learned
FINE = 0.02  # the same for weights fitted without quantization: about 8 bits
_MIN_VALUES = 256  # of a quantized tensor; a smaller one is stored as float16, as its table would cost more
_MIN_DEVIATION = 1e-6
_MIN_PROBABILITY = 1e-9
_RATE_SAMPLES = 20_000  # values of one quantizer whose rate is computed in one step, on a CPU


class _StraightThrough(torch.autograd.Function):
    """Round values to the nearest multiple of a step; the gradient passes unchanged."""

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


class Quantizer(nn.Module, ABC):
    """Rounds values to multiples of learned steps; subclasses define which values share a step.

    Args:
        deviations: ``(n,)`` standard deviations of the values that share a step.
        count: number of values.
        step_ratio: initial step over standard deviation.
        generator: of noise, on the values' device.

    Attributes:
        log_step: ``(n,)``.
        log_scale: ``(n,)``, of the logistic distribution, in steps.
        bits: mean rate of the values of the last forward pass, in bits a value; a scalar with gradients.
    """

    bits: Tensor

    def __init__(self, deviations: Tensor, count: int, step_ratio: float, generator: torch.Generator):
        super().__init__()
        self.count, self.generator, self.calls = count, generator, 0
        self.log_step = nn.Parameter((deviations.clamp(min=_MIN_DEVIATION) * step_ratio).log())
        self.log_scale = nn.Parameter(torch.full_like(self.log_step, math.log(math.sqrt(3) / math.pi / step_ratio)))

    @torch.no_grad()
    def scale_steps(self, factor: float) -> None:
        """Multiply all steps; the estimated distribution of the values does not change."""
        self.log_step.add_(math.log(factor))
        self.log_scale.sub_(math.log(factor))

    @abstractmethod
    def expand(self, per_step: Tensor, subset: slice) -> Tensor:
        """From one number per step to one per value (or a broadcastable shape), for a slice of the last axis."""

    def forward(self, values: Tensor) -> Tensor:
        """The values, or some of them along the first axis, rounded."""
        step = self.log_step.exp()
        self.bits = self._rate(values, step)
        return _StraightThrough.apply(values, self.expand(step, slice(None)))

    def _rate(self, values: Tensor, step: Tensor) -> Tensor:
        """Mean bits a value; on a CPU, of a different subset in each call where there are many values."""
        stride = 1 if values.is_cuda else max(1, min(values.numel() // _RATE_SAMPLES, values.shape[-1]))
        subset = slice(self.calls % stride, None, stride)
        self.calls += 1
        values = values[..., subset]
        noise = torch.rand(values.shape, generator=self.generator, device=values.device)
        noisy = values / self.expand(step, subset) + (noise - 0.5)
        inverse_scale = self.expand(self.log_scale.neg().exp(), subset)
        probability = torch.sigmoid((noisy + 0.5) * inverse_scale) - torch.sigmoid((noisy - 0.5) * inverse_scale)
        return -probability.clamp(min=_MIN_PROBABILITY).log2().mean()


class GridQuantizer(Quantizer):
    """A step for each channel of a grid ``(T, C, H, W)``."""

    def __init__(self, grid: Tensor, step_ratio: float, generator: torch.Generator):
        deviations = grid.detach().square().mean(dim=(0, 2, 3)).sqrt()
        super().__init__(deviations, grid.numel(), step_ratio, generator)

    def expand(self, per_step: Tensor, subset: slice) -> Tensor:
        return per_step.view(-1, 1, 1)


class ConcatenatedQuantizer(Quantizer):
    """A step for each of several tensors, concatenated into one vector to save kernel launches."""

    owner: Tensor

    def __init__(self, tensors: Sequence[Tensor], step_ratio: float, generator: torch.Generator):
        deviations = torch.stack([t.detach().square().mean().sqrt() for t in tensors])
        sizes = [t.numel() for t in tensors]
        super().__init__(deviations, sum(sizes), step_ratio, generator)
        owner = torch.cat([torch.full((size,), number) for number, size in enumerate(sizes)])
        self.register_buffer("owner", owner.to(deviations.device))

    def expand(self, per_step: Tensor, subset: slice) -> Tensor:
        return per_step.index_select(0, self.owner[subset])


class QuantizedField:
    """A field whose weights are quantized in each forward pass.

    It has its own modules over the field's parameters, so that the field itself does not change. A grid is quantized
    where it is read, the entries in time that a batch needs; other tensors whole.

    Args:
        field: with the weights, which stay unquantized in it.
        step_ratio: initial steps over standard deviations.
        seed: of the noise in the rate estimate.

    Attributes:
        field: its own modules over the same parameters.
        generator: of the noise.
    """

    def __init__(self, field: Field, step_ratio: float, seed: int):
        shared = {id(tensor): tensor for tensor in (*field.parameters(), *field.buffers())}
        self.field = copy.deepcopy(field, shared)
        self.generator = generator = torch.Generator(field.device).manual_seed(seed)
        grids = {id(g.values): g for g in self.field.modules() if isinstance(g, FeatureGrid) and g.values.requires_grad}
        self._grids: dict[str, GridQuantizer] = {}
        self._tensors: dict[str, nn.Parameter] = {}
        for name, parameter in self.field.named_parameters():
            if id(parameter) in grids:
                self._grids[name] = GridQuantizer(parameter, step_ratio, generator)
                grids[id(parameter)].quantize_with(self._grids[name].forward)
            elif parameter.requires_grad and parameter.numel() >= _MIN_VALUES:
                self._tensors[name] = parameter
        others = list(self._tensors.values())
        self._concatenated = ConcatenatedQuantizer(others, step_ratio, generator) if others else None

    @property
    def _quantizers(self) -> list[Quantizer]:
        return [*self._grids.values(), *([self._concatenated] if self._concatenated is not None else [])]

    def parameters(self) -> list[nn.Parameter]:
        """Learned parameters of the quantizers."""
        return [p for quantizer in self._quantizers for p in quantizer.parameters()]

    def __call__(self, inputs: Inputs, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        """The field's forward pass with quantized weights."""
        quantized = {}
        if self._concatenated is not None:
            vector = self._concatenated(torch.cat([p.reshape(-1) for p in self._tensors.values()]))
            pieces = vector.split([p.numel() for p in self._tensors.values()])
            quantized = {name: x.view_as(p) for (name, p), x in zip(self._tensors.items(), pieces, strict=True)}
        return functional_call(self.field, quantized, (inputs, with_semantics))

    def scale_steps(self, factor: float) -> None:
        """Multiply the steps of all tensors."""
        if factor != 1:
            for quantizer in self._quantizers:
                quantizer.scale_steps(factor)

    def bits_per_parameter(self) -> Tensor:
        """Estimated rate of the last call, over all parameters: a scalar, with gradients the first time."""
        total = sum(q.count for q in self._quantizers)
        bits = torch.stack([q.bits * (q.count / total) for q in self._quantizers]).sum()
        for quantizer in self._quantizers:
            quantizer.bits = quantizer.bits.detach()  # frees the graph of the step
        return bits

    def steps(self) -> dict[str, np.ndarray]:
        """Quantization steps by tensor name, ``(C,)`` for a grid or ``(1,)``, float32."""
        steps = {name: q.log_step.detach().exp().cpu().numpy() for name, q in self._grids.items()}
        if self._concatenated is not None:
            others = self._concatenated.log_step.detach().exp().cpu().numpy()
            steps.update({name: others[i : i + 1] for i, name in enumerate(self._tensors)})
        return steps

    def state_dict(self) -> dict[str, Any]:
        """Learned parameters and the state of the noise: plain values and tensors."""
        return {
            "parameters": [p.detach() for p in self.parameters()],
            "calls": [q.calls for q in self._quantizers],
            "noise": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), state["parameters"], strict=True):
                parameter.copy_(value)
        for quantizer, calls in zip(self._quantizers, state["calls"], strict=True):
            quantizer.calls = calls
        noise = state["noise"].cpu()
        if noise.shape == self.generator.get_state().shape:  # else it is of another device: the noise restarts
            self.generator.set_state(noise)
