# SPDX-License-Identifier: MIT
"""Shapes of parameters from a configuration equal those of the network built from it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nervcodec.network.build import build
from nervcodec.network.config import Geometry, GridConfig, GridShape, PatchConfig, SemanticConfig
from nervcodec.network.shapes import parameter_count, parameter_shapes
from nervcodec.options import PRESETS, from_flat
from nervcodec.sizing import network_config

FRAMES = 5
few = st.integers(1, 4)
geometries = st.builds(Geometry, st.just(FRAMES), st.integers(8, 90), st.integers(8, 90), few, few)


def same_as_built(config):
    with torch.device("meta"):
        field = build(config)
    assert parameter_shapes(config) == {name: tuple(p.shape) for name, p in field.named_parameters()}
    assert parameter_count(config) == sum(p.numel() for p in field.parameters())


def heads(with_codes):
    frames = st.lists(st.integers(0, FRAMES - 1), unique=True).map(sorted).map(tuple) if with_codes else st.just(())
    sizes = st.integers(1, 20)
    return st.builds(SemanticConfig, sizes, sizes, sizes, st.integers(0, 3), few, frames)


@st.composite
def grid_configs(draw):
    geometry = draw(geometries)
    rows, columns = geometry.cells
    grids = [
        draw(st.builds(GridShape, st.just(stage), few, few, st.integers(1, rows << stage), st.integers(1, columns)))
        for stage in (0, 1, 2, *draw(st.lists(st.integers(0, 2), max_size=3)))
    ]
    three = [draw(st.tuples(*[st.integers(low, high)] * 3)) for low, high in ((1, 9), (0, 3), (1, 4))]
    return GridConfig(geometry, tuple(grids), *three, draw(st.none() | heads(with_codes=True)))


@given(grid_configs())
def test_grid_networks_are_counted_as_they_are_built(config):
    same_as_built(config)


@given(
    st.builds(
        PatchConfig, geometries, st.just(1.25), st.integers(1, 9), st.tuples(few, few), st.integers(1, 20),
        st.lists(few, min_size=1, max_size=3).map(tuple), st.floats(1, 4), st.integers(1, 9),
        st.none() | heads(with_codes=False),
    )
)  # fmt: skip
def test_patch_networks_are_counted_as_they_are_built(config):
    same_as_built(config)


@pytest.mark.parametrize("dimension", [None, 512])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_counted_as_they_are_built(preset, dimension):
    geometry = Geometry(132, 640, 1280, 2, 4)
    same_as_built(network_config(from_flat(preset=preset).network, geometry, dimension=dimension, embedded=[0, 20]))
