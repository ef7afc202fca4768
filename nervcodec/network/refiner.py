# SPDX-License-Identifier: MIT
"""The ``refiner``: what a video's own network adds to a base layer.

::

    planes of the frame, luma of its neighbours, at 1/4 -+-> blocks -> what the planes lack -> + the frame's planes
    feature grids at 1/4 --------------------------------+
    codes of each patch -> semantic head: it sees nothing of the base, so search decodes none of it

It gives planes again, 10 bits a sample, which become RGB as the base's own would. After the loop filters that are
fitted to one video (Lam et al. 2020, arXiv:2003.13462), here with the frames before and after.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nervcodec.colour import STEP, Window
from nervcodec.formats.header import PlaneFormat
from nervcodec.network.blocks import Pointwise, ResidualBlock
from nervcodec.network.colour import to_rgb, to_rgb8
from nervcodec.network.config import CELL, STAGES, RefinerConfig
from nervcodec.network.field import Field
from nervcodec.network.grids import FeatureGrid
from nervcodec.network.heads import semantic_head
from nervcodec.network.inputs import Inputs
from nervcodec.network.planes import BaseFrames, Cells, PlaneLayout
from nervcodec.network.shapes import REFINED, SEEN
from nervcodec.network.timeline import Timeline

_LAST = STAGES - 1
_SPREAD = 4.0  # what is seen is brought to a standard deviation of about 1
_GAIN = 0.02  # of the last matrix: a fit begins at about the base


class Refiner(Field):
    """See the module's docstring; sizes come from :class:`RefinerConfig`."""

    rounded_from = 64  # in a network of one or two thousand parameters every byte counts

    def __init__(self, config: RefinerConfig):
        super().__init__()
        self.config, self.geometry = config, config.geometry
        self.cells = rows, columns = config.geometry.cells
        self.semantic = semantic_head(config, 0)
        if not config.width:
            return
        self.grids = nn.ModuleList(
            FeatureGrid(
                shape, rows << _LAST, columns << _LAST, Timeline.even(shape.times, self.geometry.frames, config.cuts)
            )
            for shape in config.grids
        )
        self.enter = Pointwise(SEEN + sum(g.channels for g in config.grids), config.width)
        self.blocks = nn.Sequential(*(ResidualBlock(config.width, config.expansion) for _ in range(config.depth)))
        self.pixels = Pointwise(config.width, REFINED, gain=_GAIN)

    @property
    def device(self) -> torch.device:
        """Where the parameters are; a base that nothing is added to runs where its planes are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def around(self) -> int:
        return 1 if self.config.changes_base else 0

    @property
    def halo(self) -> int:
        """Cells around a window that its pixels depend on; chroma between two samples needs one in any case."""
        return max(1, -(-self.reach // (1 << _LAST)))

    @property
    def reach(self) -> int:
        """Positions at 1/4 on each side that one output depends on."""
        return ResidualBlock.reach * self.config.depth

    def _cells(self, inputs: Inputs) -> tuple[Cells, ...]:
        """What has to be computed: the whole frame, a window and what its pixels depend on, or parts as they are."""
        return inputs.parts or (inputs.cells(self.cells, self.halo),)

    def _base(self, inputs: Inputs) -> BaseFrames:
        assert inputs.base is not None, "a refiner is shown a base layer"
        return inputs.base

    def forward(self, inputs: Inputs, with_semantics: bool) -> tuple[Tensor, Tensor | None]:
        """See :class:`PlaneLayout` for the layout of what is predicted."""
        base, cells = self._base(inputs), self._cells(inputs)
        frames = inputs.frames.to(base.y.device)
        layout = PlaneLayout(base.format)
        packed = layout.pack(*base.at(frames, cells))
        if self.config.width:
            packed = packed + self._lacking(packed, base, frames, cells)
        centred = None
        if with_semantics:
            assert self.semantic is not None
            centred = self.semantic(None, frames)
        return packed, centred

    def _lacking(self, packed: Tensor, base: BaseFrames, frames: Tensor, cells: tuple[Cells, ...]) -> Tensor:
        """What blocks find missing, ``(B, h, w, 24)``."""
        layout, last = PlaneLayout(base.format), self.geometry.frames - 1
        around = [layout.luma(base.luma((frames + step).clamp(0, last), cells)) for step in (-1, 1)]
        seen = [torch.cat([packed, *around], dim=-1) * _SPREAD]
        seen += [_features(grid, frames, cells) for grid in self.grids]
        return self.pixels(self.blocks(self.enter(torch.cat(seen, dim=-1))))

    def _planes(self, inputs: Inputs) -> tuple[tuple[Tensor, Tensor, Tensor], PlaneFormat, Window]:
        """Samples that hold what is asked for, what they stand for, and where in them it lies."""
        base, ((top, _, left, _),) = self._base(inputs), self._cells(inputs)
        window = Window(0, 0, self.geometry.height, self.geometry.width)
        if inputs.windows:
            (asked,) = inputs.windows
            window = Window(asked.y, asked.x, asked.height, asked.width)
        if not self.config.width:
            return base.at(inputs.frames), base.format, window
        packed, _ = self(inputs, with_semantics=False)
        layout = PlaneLayout(base.format).refined()
        return layout.samples(packed), layout.format, window.moved(-top * CELL, -left * CELL)

    def render(self, inputs: Inputs) -> Tensor:
        planes, form, window = self._planes(inputs)
        return to_rgb(planes, form, window).float().div_(STEP * 255)

    def shown(self, inputs: Inputs) -> Tensor:
        planes, form, window = self._planes(inputs)
        return to_rgb8(planes, form, window)

    def coefficients(self, inputs: Inputs) -> Tensor:
        assert self.semantic is not None
        return self.semantic.coefficients(None, inputs.frames.to(self.device))


def _features(grid: nn.Module, frames: Tensor, cells: tuple[Cells, ...]) -> Tensor:
    """A grid's features, ``(B, h, w, channels)``, in one window for all frames or one each."""
    windows = [tuple(edge << _LAST for edge in one) for one in cells]
    each = frames.split(1) if len(windows) > 1 else [frames]
    parts = [grid(some, window) for some, window in zip(each, windows, strict=True)]
    return torch.cat(parts).permute(0, 2, 3, 1)
