# SPDX-License-Identifier: MIT
"""The network over a base layer: windows, neighbours, layout, and a fit that helps."""

import numpy as np
import pytest
import torch

from nervcodec.colour import to_rgb
from nervcodec.coordinates import Window
from nervcodec.device import choose
from nervcodec.errors import ContainerError
from nervcodec.fitting.config import FitConfig
from nervcodec.fitting.loop import Loop
from nervcodec.fitting.segment import BaseData, SegmentData
from nervcodec.fitting.state import FitState
from nervcodec.formats.header import PlaneFormat
from nervcodec.network.build import build, from_arrays, head_from_arrays, to_arrays
from nervcodec.network.config import Geometry, GridShape, RefinerConfig, SemanticConfig
from nervcodec.network.inputs import Inputs
from nervcodec.network.planes import BaseFrames, PlaneLayout
from nervcodec.network.shapes import parameter_shapes

GEOMETRY = Geometry(5, 75, 101, 2, 4)
SEMANTIC = SemanticConfig(12, rank=4, code_frames=(0, 3))
FORMAT = PlaneFormat(10)
CONFIGS = [
    RefinerConfig(GEOMETRY, 16, 2, 2, semantic=SEMANTIC),
    RefinerConfig(GEOMETRY, 8, 1, 2, (GridShape(2, 3, 2, 5, 7),), cuts=(3,)),
    RefinerConfig(GEOMETRY, semantic=SEMANTIC),
    RefinerConfig(GEOMETRY),
]


def planes(depth=10, frames=5, seed=0):
    random = np.random.default_rng(seed)
    kind, most = (np.uint16, 1023) if depth == 10 else (np.uint8, 255)
    sizes = (GEOMETRY.height, GEOMETRY.width), *[(-(-GEOMETRY.height // 2), -(-GEOMETRY.width // 2))] * 2
    return tuple(random.integers(0, most + 1, (frames, *size)).astype(kind) for size in sizes)


def field_of(config):
    torch.manual_seed(1)
    field = build(config).eval().requires_grad_(False)
    for name, parameter in field.named_parameters():
        if name.startswith("pixels"):
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return field


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_are_those_of_the_configuration(config):
    assert {n: tuple(p.shape) for n, p in build(config).named_parameters()} == parameter_shapes(config)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("depth", [8, 10])
def test_a_window_is_that_of_the_whole_frame(config, depth):
    field, base = field_of(config), BaseFrames.of(planes(depth), PlaneFormat(depth))
    frames = torch.tensor([0, 2, 4])
    whole = field.shown(Inputs(frames, base=base))
    assert whole.shape == (3, 75, 101, 3)
    windows = [*GEOMETRY.patches.windows(), Window(0.3, 0.7, 17, 11, 25, 37)]
    for window in windows:
        part = field.shown(Inputs(frames, (window,), base))
        cut = whole[:, window.y : window.y + window.height, window.x : window.x + window.width]
        # sums of another order may fall on the other side of a half
        assert (part.int() - cut.int()).abs().max() <= (1 if config.width else 0)


def test_without_a_network_the_base_is_shown_as_it_is():
    coded = planes(8)
    field, base = field_of(CONFIGS[3]), BaseFrames.of(coded, PlaneFormat(8))
    rgb = torch.from_numpy(to_rgb(coded, PlaneFormat(8)))
    shown = field.render(Inputs(torch.arange(5), base=base))
    assert torch.allclose(shown, rgb.float() / (64 * 255))


def test_an_untrained_network_changes_next_to_nothing():
    coded = planes()
    base = BaseFrames.of(coded, FORMAT)
    torch.manual_seed(0)
    mild = tuple((p // 4 + 384) for p in coded)  # colours that exist
    base = BaseFrames.of(mild, FORMAT)
    one, other = build(CONFIGS[0]), build(CONFIGS[3])
    frames = torch.arange(5)
    with torch.no_grad():
        changed = one.shown(Inputs(frames, base=base)).int() - other.shown(Inputs(frames, base=base)).int()
    assert changed.float().abs().mean() < 4


@pytest.mark.parametrize("depth", [8, 10])
def test_the_layout_gives_samples_back(depth):
    cells = (0, 5, 0, 7)
    base = BaseFrames.of(planes(depth), PlaneFormat(depth))
    layout = PlaneLayout(base.format)
    there = base.at(torch.arange(5), [cells])
    for plane, again in zip(there, layout.samples(layout.pack(*there)), strict=True):
        assert torch.equal(plane.to(torch.int16), again)


def test_the_layout_weighs_errors_as_rgb_does():
    """Noise on planes: its square in the layout is about its square in RGB."""
    random = torch.Generator().manual_seed(0)
    size = (1, 96, 160)
    still = [torch.full(size, 512.0), torch.full((1, 48, 80), 512.0), torch.full((1, 48, 80), 512.0)]
    for moved in range(3):
        noisy = [p + 40 * torch.randn(p.shape, generator=random) * (i == moved) for i, p in enumerate(still)]
        noisy = [p.round().to(torch.int16) for p in noisy]
        calm = [p.to(torch.int16) for p in still]
        layout = PlaneLayout(FORMAT)
        in_layout = (layout.pack(*noisy) - layout.pack(*calm)).square().mean()
        rgb = [torch.from_numpy(to_rgb([q.numpy() for q in p], FORMAT)) / (64 * 255) for p in (noisy, calm)]
        in_rgb = (rgb[0] - rgb[1]).square().mean()
        assert 0.6 < in_layout / in_rgb < 1.7, moved


def test_neighbours_stop_at_the_ends():
    """The first frame has itself for its neighbour: what comes before the segment is not known."""
    field = field_of(CONFIGS[0])
    coded = planes()
    whole = BaseFrames.of(coded, FORMAT)
    part = BaseFrames.of(tuple(p[:2] for p in coded), FORMAT)
    assert torch.equal(
        field.shown(Inputs(torch.tensor([0]), base=whole)), field.shown(Inputs(torch.tensor([0]), base=part))
    )
    late = BaseFrames.of(tuple(p[3:] for p in coded), FORMAT, first=3)
    assert torch.equal(
        field.shown(Inputs(torch.tensor([4]), base=whole)), field.shown(Inputs(torch.tensor([4]), base=late))
    )


def test_the_semantic_head_stands_alone():
    field = field_of(CONFIGS[0])
    arrays = to_arrays(field)
    head = head_from_arrays(CONFIGS[0], {n: a for n, a in arrays.items() if n.startswith("semantic.")})
    frames = torch.arange(5)
    assert torch.equal(field.coefficients(Inputs(frames)), head.coefficients(None, frames))
    with pytest.raises(ContainerError, match="expected"):
        from_arrays(CONFIGS[3], arrays)


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 8, "grids": (GridShape(0, 2, 2, 2, 2),)},
        {"depth": 2},
        {"width": 8, "expansion": 0},
        {"width": 8, "grids": (GridShape(2, 2, 2, 300, 2),)},
        {"semantic": SemanticConfig(12)},
        {"semantic": SemanticConfig(12, code_frames=(0, 7))},
        {"cuts": (9,)},
    ],
)
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        RefinerConfig(GEOMETRY, **wrong)


def test_a_fit_brings_back_what_a_blur_took():
    """A base that lost contrast in its details gets them back: the error falls by a third and more."""
    random = np.random.default_rng(0)
    coarse = random.integers(300, 700, (5, 19, 26))
    y = np.kron(coarse, np.ones((1, 4, 4)))[:, :75, :101].astype(np.uint16)
    chroma = np.full((5, 38, 51), 512, np.uint16)
    blurred = ((y + np.roll(y, 1, 1) + np.roll(y, 1, 2) + np.roll(y, (1, 1), (1, 2))) // 4).astype(np.uint16)
    base = BaseData((blurred, chroma, chroma), FORMAT, (y, chroma, chroma), FORMAT)
    config = RefinerConfig(GEOMETRY, 16, 1)
    torch.manual_seed(0)
    field = build(config)
    data = SegmentData(np.zeros((5, 75, 101, 3), np.uint8), base=base)
    state = FitState(field, data, FitConfig(epochs=60, rate_weight=0.001, batch_size=1), choose("cpu", "fp32"))
    units = torch.arange(5)
    before = state.units.targets(units) - PlaneLayout(FORMAT).pack(
        *BaseFrames.of(base.coded, FORMAT).at(units, [(0, 5, 0, 7)])
    )
    Loop(state).run()
    with torch.no_grad():
        after = state.units.targets(units) - field(state.units.inputs(units), False)[0]
    assert after.square().mean() < 0.66 * before.square().mean()
    assert state.units.images(state.units.targets(units)).shape == (5, 75, 101, 3)
