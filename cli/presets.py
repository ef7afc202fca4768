# SPDX-License-Identifier: MIT
"""``nervcodec presets``."""

from __future__ import annotations

import click

from nervcodec.cli import options

# Parameters are counted for a video of the size of "bunny" in the NeRV papers.
_FRAMES, _HEIGHT, _WIDTH, _PATCHES = 132, 640, 1280, (2, 4)


@click.command(epilog="Example: nervcodec presets --json")
@options.as_json
@options.debug
def presets(as_json: bool) -> None:
    """List the presets of encode, with what they set and how many parameters their networks have."""
    from nervcodec.cli.output import print_json, print_table, remark
    from nervcodec.network.config import Geometry
    from nervcodec.network.shapes import parameter_count
    from nervcodec.options import NONE, PRESETS, from_flat
    from nervcodec.sizing import network_config

    geometry = Geometry(_FRAMES, _HEIGHT, _WIDTH, *_PATCHES)
    entries = {}
    for name, values in PRESETS.items():
        options = from_flat(preset=name)
        has_network = options.layer.base == NONE
        count = parameter_count(network_config(options.network, geometry)) if has_network else 0
        entries[name] = {"parameters": count, **{key: _plain(value) for key, value in values.items()}}
    if as_json:
        print_json(entries)
        return
    remark(f"parameters: pixels only, for {_FRAMES} frames of {_WIDTH}x{_HEIGHT}")
    rows = []
    for name, values in entries.items():
        sets = ", ".join(f"{key} {value}" for key, value in values.items() if key != "parameters")
        rows.append((name, f"{values['parameters']:,}", sets or "this codec's own defaults"))
    print_table("Presets", ("preset", "parameters", "sets"), rows)


def _plain(value: object) -> object:
    return "_".join(map(str, value)) if isinstance(value, tuple) else value
