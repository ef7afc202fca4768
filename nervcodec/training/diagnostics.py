# SPDX-License-Identifier: MIT
"""Diagnostics of a fit: quality by frame and by patch, statistics of gradients, weights and activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nervcodec.network.summary import PARTS, part_of
from nervcodec.training.losses import psnr_db
from nervcodec.training.state import FitState


@dataclass(frozen=True)
class Quality:
    """Quality of some frames as the network renders them now, with quantized weights once quantization has started.

    Attributes:
        psnr_db: ``(n, P)`` by frame and patch; of RGB, not rounded to 8 bits.
        frame_psnr_db: ``(n,)`` of whole frames.
        similarity: ``(m, P)`` cosine of predicted and reference embeddings, of the frames that have one.
    """

    psnr_db: np.ndarray
    frame_psnr_db: np.ndarray
    similarity: np.ndarray


@torch.inference_mode()
def quality(state: FitState, frames: Sequence[int]) -> Quality:
    """Measure some frames, at least one."""
    by_patch, by_frame, similarity = [], [], []
    for frame in frames:
        image, target, centred = predict(state, frame)
        mse = [(a - b).square().mean().item() for a, b in _patches(state, image, target)]
        by_patch.append([psnr_db(value) for value in mse])
        by_frame.append(psnr_db((image - target).square().mean().item()))
        reference = state.reference.by_frame.get(frame) if state.reference is not None else None
        if centred is not None and reference is not None:
            assert state.field.semantic is not None
            cosine = F.cosine_similarity(centred + state.field.semantic.mean, reference, dim=-1)
            similarity.append(cosine.cpu().numpy())
    count = state.field.geometry.patch_rows * state.field.geometry.patch_columns
    return Quality(np.array(by_patch), np.array(by_frame), np.stack(similarity) if similarity else np.empty((0, count)))


@torch.inference_mode()
def predict(state: FitState, frame: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """A frame as the network renders it now.

    Returns:
        Predicted and target images ``(samples, h, w, 3)`` float32 about [0, 1]: one of the whole frame, or one a patch;
        and centred embeddings ``(P, D)`` or None.
    """
    inputs, target = state.dataset.full_frame(frame)
    with_semantics = state.field.semantic is not None
    with state.hardware.autocast():
        packed, centred = (state.quantized or state.field)(inputs, with_semantics)
    centred = None if centred is None else centred.float().flatten(0, 1)
    return state.dataset.to_images(packed).clamp(0, 1), state.dataset.to_images(target), centred


def _patches(state: FitState, image: Tensor, target: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    if len(image) > 1:  # one a patch already
        yield from zip(image, target, strict=True)
        return
    for x, y, width, height in state.field.geometry.patches.boxes():
        yield image[0, y : y + height, x : x + width], target[0, y : y + height, x : x + width]


def evenly_spaced(frames: np.ndarray, count: int) -> list[int]:
    """At most ``count`` of the frames, evenly spaced."""
    positions = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return [int(frames[i]) for i in positions]


def parameters_by_part(field: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Learned parameters by part of the network, as tags name it: ``rgb_head`` for "RGB head"."""
    parts: dict[str, list[nn.Parameter]] = {_tag(part): [] for part in PARTS}
    for name, parameter in field.named_parameters():
        if parameter.requires_grad:
            parts[_tag(part_of(name))].append(parameter)
    return {part: members for part, members in parts.items() if members}


def _tag(part: str) -> str:
    return part.lower().replace(" ", "_")


def gradient_norms(field: nn.Module) -> dict[str, float]:
    """Norm of the latest gradient of each part; 0 where there is none."""
    norms = {}
    for part, members in parameters_by_part(field).items():
        gradients = [p.grad for p in members if p.grad is not None]
        norms[part] = float(torch.stack([g.float().norm() for g in gradients]).norm()) if gradients else 0.0
    return norms


@torch.no_grad()
def weight_statistics(field: nn.Module) -> dict[str, dict[str, float]]:
    """Mean, standard deviation and greatest absolute value of each part's weights."""
    result = {}
    for part, members in parameters_by_part(field).items():
        flat = torch.cat([p.reshape(-1) for p in members])
        result[part] = {"mean": float(flat.mean()), "std": float(flat.std()), "max_abs": float(flat.abs().max())}
    return result


class ActivationStatistics:
    """Statistics of the outputs of a field's modules, collected inside a ``with`` block.

    Attributes:
        by_module: mean, standard deviation and share of zeros by the module's name.
    """

    def __init__(self, field: nn.Module):
        self._field = field
        self.by_module: dict[str, dict[str, float]] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> ActivationStatistics:
        for name, module in self._field.named_children():
            if isinstance(module, nn.ModuleList):
                for number, child in enumerate(module):
                    self._watch(f"{name}_{number}", child)
            else:
                self._watch(name, module)
        return self

    def _watch(self, name: str, module: nn.Module) -> None:
        def record(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                values = output.detach().float()
                zeros = float((values == 0).float().mean())
                self.by_module[name] = {"mean": float(values.mean()), "std": float(values.std()), "zeros": zeros}

        self._handles.append(module.register_forward_hook(record))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
