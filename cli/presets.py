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
    """List the presets of encode: what they are for, and what they took for ten seconds of 640 x 272.

    --json also lists the settings and how many parameters the networks have.
    """
    from nervcodec.cli.output import print_json, print_table
    from nervcodec.network.config import Geometry
    from nervcodec.network.shapes import parameter_count
    from nervcodec.options import NONE, PRESET_NOTES, PRESETS, from_flat
    from nervcodec.sizing import network_config

    if not as_json:
        print_table("Presets", ("preset", "for", "example"), [(name, *PRESET_NOTES[name]) for name in PRESETS])
        return
    geometry, entries = Geometry(_FRAMES, _HEIGHT, _WIDTH, *_PATCHES), {}
    for name, values in PRESETS.items():
        options = from_flat(preset=name)
        has_network = options.layer.base == NONE
        count = parameter_count(network_config(options.network, geometry)) if has_network else 0
        settings = {key: _plain(value) for key, value in values.items()}
        entries[name] = {"for": PRESET_NOTES[name][0], "parameters": count, **settings}
    print_json(entries)


def _plain(value: object) -> object:
    return "_".join(map(str, value)) if isinstance(value, tuple) else value
