# SPDX-License-Identifier: MIT
"""``nervcodec presets``."""

from __future__ import annotations

import click

from nervcodec.cli import options

# Of the video that parameters are counted for: the size of the NeRV papers' "bunny".
_FRAMES, _HEIGHT, _WIDTH, _PATCHES = 132, 640, 1280, (2, 4)


@click.command(epilog="Example: nervcodec presets --json")
@options.as_json
@options.debug
def presets(as_json: bool) -> None:
    """List the presets of encode, with what they set and how many parameters their networks have."""
    from nervcodec.base.options import NONE
    from nervcodec.cli.output import remark
    from nervcodec.cli.render import print_json, print_table
    from nervcodec.network.config import Geometry
    from nervcodec.network.shapes import parameter_count
    from nervcodec.options import PRESETS, from_flat
    from nervcodec.sizing import network_config

    geometry = Geometry(_FRAMES, _HEIGHT, _WIDTH, *_PATCHES)
    facts = {}
    for name, values in PRESETS.items():
        wanted = from_flat(preset=name)
        alone = wanted.layer.base == NONE
        count = parameter_count(network_config(wanted.network, geometry)) if alone else 0
        facts[name] = {"parameters": count, **{key: _plain(value) for key, value in values.items()}}
    if as_json:
        print_json(facts)
        return
    remark(f"parameters: pixels only, for {_FRAMES} frames of {_WIDTH}x{_HEIGHT}")
    rows = []
    for name, values in facts.items():
        sets = ", ".join(f"{key} {value}" for key, value in values.items() if key != "parameters")
        rows.append((name, f"{values['parameters']:,}", sets or "this codec's own defaults"))
    print_table("Presets", ("preset", "parameters", "sets"), rows)


def _plain(value: object) -> object:
    return "_".join(map(str, value)) if isinstance(value, tuple) else value
