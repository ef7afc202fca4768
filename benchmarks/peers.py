# SPDX-License-Identifier: MIT
"""Networks that nervcodec is measured against, rebuilt from the shapes their authors give."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nervcodec.options import PRESETS

# What both peers below do not have: weights rounded within the fit.
_AS_PUBLISHED = {"encoder": "none", "rounding_share": 0.0, "lr": 0.001, "lr_type": "cosine_0.1_1_0.1"}

# The original dual-head method's `comparable` preset, as options of `nervcodec.encode`: pixels only, all frames fitted,
# and a budget in seconds.
COMPARABLE = {
    **{name: value for name, value in PRESETS["comparable"].items() if name not in ("epochs", "split")},
    "encoder": "none",
}

# A full-frame NeRV (Chen et al. 2021, arXiv:2110.13903) for 640 x 1280: the patch network with one patch.
FULL_FRAME_NERV = {
    **_AS_PUBLISHED,
    "embed": "pe_1.25_80",
    "patches": (1, 1),
    "fc_dim": 72,
    "fc_hw": (4, 8),
    "strides": (5, 4, 4, 2),
    "reduce": 1.5,
    "lower_width": 24,
    "batch_size": 1,
    "loss": "l2",
}


class HnervDecoder(nn.Module):
    """The decoder of HNeRV's 1.5 M network for 640 x 1280 (Chen et al. 2023, arXiv:2304.02633).

    Layer shapes: 1x1 16->68; convolution and pixel shuffle 1x1 68->1425 (x5), 3x3 57->768 (x4), 5x5 48->640 (x4),
    5x5 40->132 (x2), 5x5 33->112 (x2), each with GELU; 3x3 28->3. It takes the 16 x 2 x 4 embedding of a frame.
    """

    embedding = (16, 2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(16, 68, 1)
        shapes = [(68, 1425, 1, 5), (57, 768, 3, 4), (48, 640, 5, 4), (40, 132, 5, 2), (33, 112, 5, 2)]
        self.blocks = nn.ModuleList(nn.Conv2d(a, b, k, padding=k // 2) for a, b, k, _ in shapes)
        self.factors = [factor for *_, factor in shapes]
        self.head = nn.Conv2d(28, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 16, 2, 4)`` to ``(B, 3, 640, 1280)``."""
        x = F.gelu(self.stem(x))
        for convolution, factor in zip(self.blocks, self.factors, strict=True):
            x = F.gelu(F.pixel_shuffle(convolution(x), factor))
        return 0.5 * F.tanh(self.head(x)) + 0.5
