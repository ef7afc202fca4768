# SPDX-License-Identifier: MIT
"""Sizes of the parts of a network."""

from pathlib import Path

import pytest
from test_network import grid_config, patch_config

from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container, read_header
from nervcodec.network.build import build
from nervcodec.network.shapes import SEMANTIC
from nervcodec.network.summary import PARTS, RGB_HEAD, SEMANTIC_HEAD, bytes_by_part, part_of, weights_by_part
from nervcodec.training import diagnostics

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = ["version3_grid", "version3_pe", "version3_shared", "version3_plain"]


@pytest.mark.parametrize("make", [grid_config, patch_config])
def test_every_parameter_has_a_part(make):
    field = build(make(48, 64))
    parts = {name: part_of(name) for name, _ in field.named_parameters()}
    expected = set(PARTS) if make is grid_config else set(PARTS) - {"grids"}
    assert set(parts.values()) == expected
    for part, module in ((RGB_HEAD, field.pixels), (SEMANTIC_HEAD, field.semantic)):
        own = {id(p) for p in module.parameters()}
        assert {n for n, p in field.named_parameters() if id(p) in own} == {n for n, p in parts.items() if p == part}
    assert all(name.startswith(SEMANTIC) == (part == SEMANTIC_HEAD) for name, part in parts.items())
    learned = [p for p in field.parameters() if p.requires_grad]
    assert sum(map(len, diagnostics.parameters_by_part(field).values())) == len(learned)
    assert set(diagnostics.parameters_by_part(field)) == {part.lower().replace(" ", "_") for part in expected}


@pytest.mark.parametrize("name", FILES)
def test_the_parts_of_a_file_add_up(name):
    with Container.open(GOLDEN / f"{name}.nerv") as opened:
        weights = weights_by_part(opened)
        parts = bytes_by_part(opened, weights)
        prefixes = [segment.prefix for segment in opened.header.segments] + [opened.header.shared] * name.count(
            "shared"
        )
        stored = [size for prefix in prefixes for _, size in opened.network(prefix).table().values()]
    assert sum(parts.values()) == (GOLDEN / f"{name}.nerv").stat().st_size
    assert sum(part.bytes for part in weights.values()) == sum(stored)
    assert ("grids 1/16" in weights) == (not name.endswith("pe"))


def test_tensors_of_no_network_have_no_part(tmp_path):
    from containers import tampered

    for name in ("", "x.weight", "pixels_.weight", "0"):
        with pytest.raises(ContainerError, match="belongs to no part of a network"):
            part_of(name)
    copy = tmp_path / "a.nerv"
    copy.write_bytes((GOLDEN / "version3_plain.nerv").read_bytes())
    other = tampered(copy, lambda h: h["segments"][0]["network"]["grids"].__delitem__(0))
    last = len(read_header(copy).segments[0].network["grids"]) - 1
    complaint = rf"tampered\.nerv: tensor 'grids\.{last}\.values' belongs to no grid"
    with Container.open(other) as opened, pytest.raises(ContainerError, match=complaint):
        weights_by_part(opened)
