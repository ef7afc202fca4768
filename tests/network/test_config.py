# SPDX-License-Identifier: MIT
"""Configurations of networks in the header, and frame tables in the stream of weights."""

import json
from dataclasses import replace

import pytest
from test_network import patch_config

from nervcodec import sizing
from nervcodec.errors import ContainerError
from nervcodec.formats.weights import FrameTables
from nervcodec.network.build import build
from nervcodec.network.config import (
    Geometry,
    HeadOnlyConfig,
    SemanticConfig,
    frame_tables,
    network_from_json,
    network_to_json,
    with_frame_tables,
)
from nervcodec.network.shapes import parameter_shapes


def test_frame_tables_are_stored_apart_from_the_configuration():
    semantic = SemanticConfig(16, rank=4, code_frames=(0, 2, 5))
    geometry = Geometry(6, 48, 64, 2, 4)
    config = sizing.grid_config(geometry, 30_000, semantic, sizing.SegmentTraits(pace=(1, 0, 99, 3, 2), cuts=(3,)))
    data = json.loads(json.dumps(network_to_json(config)))
    assert not {"pace", "code_frames"} & {*data, *data["semantic"]}
    assert data["semantic"]["codes"] == 3
    from_header = network_from_json(data)
    assert parameter_shapes(from_header) == parameter_shapes(config)
    assert from_header != config
    tables = frame_tables(config, semantic.code_frames)
    assert tables == FrameTables((0, 2, 5), (1, 0, 99, 3, 2))
    assert with_frame_tables(from_header, tables) == config
    with pytest.raises(ContainerError, match="has frame tables"):
        with_frame_tables(config, tables)
    for other, message in (
        (FrameTables((0, 2), tables.pace), "2 frames with embeddings for 3 semantic codes"),
        (FrameTables((), tables.pace), "0 frames with embeddings for 3 semantic codes"),
        (FrameTables((0, 2, 6), tables.pace), "a code frame is out of range"),
        (FrameTables((0, 2, 5), (1, 2)), "pace does not go from frame to frame"),
    ):
        with pytest.raises(ContainerError, match=message):
            with_frame_tables(from_header, other)
    with pytest.raises(ContainerError, match="a pace for a network that has none"):
        with_frame_tables(patch_config(48, 64), FrameTables((), (1,) * 5))
    with pytest.raises(ContainerError, match="without a semantic head"):
        with_frame_tables(replace(from_header, semantic=None), tables)
    with pytest.raises(ValueError, match="not known"):
        build(from_header)


def test_geometry_and_grids_are_lists_of_whole_numbers():
    data = {"kind": "grid", "geometry": [6, 48, 64, 2, 4], "grids": [[stage, 4, 2, 1, 1] for stage in range(3)]}
    data |= {"widths": [20, 12, 8], "depths": [1, 1, 1], "expansions": [4, 4, 2]}
    assert network_from_json(data).geometry == Geometry(6, 48, 64, 2, 4)
    named = {"frames": 6, "height": 48, "width": 64, "patch_rows": 2, "patch_columns": 4}
    changes = [{"geometry": geometry} for geometry in ([6, 48, 64, 2], [6, 48, 64, 2, "4"], named)]
    for change in (*changes, {"grids": [[0, 4, 2, 1, 1, 1]]}):
        with pytest.raises(ContainerError, match=r"network\.(geometry|grids)"):
            network_from_json({**data, **change})


def test_codes_belong_to_grid_networks():
    """Shapes would have them, but the original network's head has an MLP in their place."""
    data = network_to_json(patch_config(48, 64))
    data["semantic"]["codes"] = 3
    with pytest.raises(ContainerError, match="no semantic codes"):
        network_from_json(data)
    data["semantic"]["codes"] = -1
    with pytest.raises(ContainerError, match="too many semantic codes"):
        network_from_json(data)


def test_a_head_beside_a_base_layer_is_read_as_earlier_files_have_it():
    """They call it a refiner, whose expansion is that of no block."""
    data = {"kind": "refiner", "expansion": 2, "geometry": [6, 48, 64, 2, 4], "cuts": [3]}
    data["semantic"] = {"codes": 2, "dimension": 16, "grid_times": 1, "hidden": 64, "rank": 4}
    config = network_from_json(data)
    assert config == HeadOnlyConfig(Geometry(6, 48, 64, 2, 4), SemanticConfig(16, rank=4, codes=2), (3,))
    assert network_to_json(config) == {name: value for name, value in data.items() if name != "expansion"}
    assert parameter_shapes(config)["semantic.codes"] == (2, 4, 2, 4)
    assert {name.partition(".")[0] for name in parameter_shapes(config)} == {"semantic"}
    assert parameter_shapes(replace(config, semantic=None)) == {}
    with pytest.raises(ContainerError, match="unknown entries: 'depth'"):
        network_from_json({**data, "depth": 1})
    with pytest.raises(ValueError, match="no network with a base layer"):
        build(config)


@pytest.mark.parametrize(
    "wrong",
    [{"semantic": SemanticConfig(12)}, {"semantic": SemanticConfig(12, code_frames=(0, 7))}, {"cuts": (9,)}],
    ids=str,
)
def test_an_impossible_head_beside_a_base_layer_is_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        HeadOnlyConfig(Geometry(5, 75, 101, 2, 4), **wrong)
