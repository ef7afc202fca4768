# SPDX-License-Identifier: MIT
"""Optimizers of a fit: Muon for matrices and Adam for the other parameters, or Adam for all.

Muon orthogonalises the momentum of a matrix before each step, with a quintic Newton-Schulz iteration (K. Jordan et al.
2024, "Muon: an optimizer for hidden layers in neural networks"). ``torch.optim.Muon`` processes one matrix at a time;
the networks here have many small matrices of few shapes, and batching equal shapes halves the time of a step on a CPU
(5.8 ms against 11.7).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nervcodec.errors import ConfigError
from nervcodec.network.field import Field
from nervcodec.network.grid import FeatureGrid
from nervcodec.network.layers import Pointwise
from nervcodec.training.config import ADAM, ADAM_LR, MUON, MUON_LR

_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5
_TINY = 1e-7
_GRID_LR, _OTHER_LR, _STEP_LR = 1.0, 0.15, 1.0  # factors on Muon's learning rate
_USUAL_STEPS, _LENGTH_POWER = 1500, 0.25  # steps that Muon's default rate suits; exponent of its decay beyond


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring the singular values of each matrix near 1.

    Args:
        matrices: ``(N, r, c)`` float32 with r <= c.

    Returns:
        ``(N, r, c)`` float32; singular values lie between about 0.7 and 1.2.
    """
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + _TINY)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for 2-D parameters.

    Args:
        parameters: matrices.
        lr: step size; each update has singular values near lr x sqrt(max(1, rows / columns)). A group may
            have a scalar tensor instead.
        momentum: of the moving average of gradients.

    Raises:
        ValueError: a parameter is not a matrix.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        if any(p.ndim != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon takes matrices only")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever passed here
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                state["mean"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(state["mean"], group["momentum"])
                update = update.mT if update.shape[0] > update.shape[1] else update
                by_shape[update.shape].append((parameter, update))
            for members in by_shape.values():
                updates = orthogonalize(torch.stack([update for _, update in members]))
                for (parameter, _), update in zip(members, updates, strict=True):
                    rows, columns = parameter.shape
                    update, factor = update.mT if rows > columns else update, max(1.0, rows / columns) ** 0.5
                    if isinstance(group["lr"], Tensor):
                        parameter.addcmul_(update, group["lr"], value=-factor)
                    else:
                        parameter.add_(update, alpha=-group["lr"] * factor)


class Optimizers:
    """One or two optimizers that share a learning rate schedule.

    Args:
        field: with the parameters.
        kind: ``muon``, ``adam``, or None for Muon where the network has matrices.
        lr: learning rate; None for the default.
        capturable: keep learning rates on the GPU, so that steps can be captured as CUDA graphs.

    Attributes:
        version: goes up whenever optimizer state is reallocated, which invalidates captured steps.

    Raises:
        ConfigError: Muon for a network without matrices.
    """

    def __init__(self, field: Field, kind: str | None, lr: float | None, capturable: bool = False):
        roles = parameter_roles(field)
        has_matrices = any(isinstance(module, Pointwise) for module in field.modules())
        kind = kind or (MUON if has_matrices else ADAM)
        self.kind, self._is_explicit, self._capturable, self.version = kind, lr is not None, capturable, 0
        self._lr = lr or (ADAM_LR if kind == ADAM else MUON_LR)
        if kind == ADAM:
            parameters = [p for role in roles.values() for p in role]
            self._adam = torch.optim.Adam(parameters, lr=self._lr, betas=(0.9, 0.999), fused=True)
            self.all: list[torch.optim.Optimizer] = [self._adam]
        else:
            if not has_matrices:
                raise ConfigError("this network has no matrices for Muon; use the optimizer adam")
            groups = [
                {"params": roles["grids"], "lr": _GRID_LR * self._lr},
                {"params": roles["others"] + roles["semantic"], "lr": _OTHER_LR * self._lr},
            ]
            self._adam = torch.optim.Adam([g for g in groups if g["params"]], betas=(0.9, 0.99), fused=True)
            self.all = [*([Muon(roles["matrices"], lr=self._lr)] if roles["matrices"] else []), self._adam]
        # The first steps of a kind run uncaptured on purpose, so torch's warning is misleading.
        self._adam._warned_capturable_if_run_uncaptured = True
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["base_lr"] = group["lr"]
        self._update_lr_storage()

    def _update_lr_storage(self) -> None:
        """Store learning rates as numbers, or as scalars on the GPU for captured steps."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                lr = float(group["lr"])
                group["lr"] = torch.tensor(lr, device="cuda") if self._capturable else lr
                if "capturable" in group:
                    group["capturable"] = self._capturable
        self.version += 1

    def add_quantization_steps(self, parameters: list[nn.Parameter]) -> None:
        """Also optimize the parameters of the quantizers."""
        lr = self._lr if self.kind == ADAM else _STEP_LR * self._lr
        self._adam.add_param_group({"params": parameters, "lr": lr, "base_lr": lr})
        self._update_lr_storage()

    def length_factor(self, steps: int, progress: float) -> float:
        """Factor on Muon's default learning rate: below 1 for a fit of many steps, as its speed so far predicts."""
        if self._is_explicit or self.kind == ADAM or not steps or progress <= 0:
            return 1.0
        return min(1.0, (_USUAL_STEPS * progress / steps) ** _LENGTH_POWER)

    def set_lr_factor(self, factor: float) -> None:
        """Set all learning rates to a multiple of their initial values."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                lr = group["base_lr"] * factor
                if self._capturable:
                    group["lr"].fill_(lr)
                else:
                    group["lr"] = lr

    def clear_gradients(self) -> None:
        """Delete all gradients."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for optimizer in self.all:
            optimizer.step()

    def reset(self) -> None:
        """Delete momentum and variance."""
        for optimizer in self.all:
            optimizer.state.clear()
        self.version += 1

    def learning_rates(self) -> dict[str, float]:
        """Learning rates by ``OPTIMIZER_NUMBER_GROUP``."""
        return {
            f"{type(optimizer).__name__.lower()}_{number}_{group}": float(settings["lr"])
            for number, optimizer in enumerate(self.all)
            for group, settings in enumerate(optimizer.param_groups)
        }

    def state_dict(self) -> list[dict[str, Any]]:
        """Everything that later steps depend on."""
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Continue from a :meth:`state_dict`."""
        for optimizer, own in zip(self.all, state, strict=True):
            optimizer.load_state_dict(own)
        self._update_lr_storage()


def parameter_roles(field: Field) -> dict[str, list[nn.Parameter]]:
    """Learned parameters by role: ``matrices``, ``grids``, ``semantic``, ``others``."""
    semantic = list(field.semantic.parameters()) if field.semantic is not None else []
    grids = [m.values for m in field.modules() if isinstance(m, FeatureGrid) and m.values.requires_grad]
    matrices = {id(module.weight) for module in field.modules() if isinstance(module, Pointwise)}
    taken = {id(p) for p in [*semantic, *grids]}
    rest = [p for name, p in field.named_parameters() if id(p) not in taken and name not in field.frozen]
    return {
        "matrices": [p for p in rest if id(p) in matrices],
        "grids": grids,
        "semantic": [p for p in semantic if p.requires_grad],
        "others": [p for p in rest if id(p) not in matrices],
    }
