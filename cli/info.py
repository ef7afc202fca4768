# SPDX-License-Identifier: MIT
"""``nervcodec info``: everything a header says. Needs no torch."""

from __future__ import annotations

from pathlib import Path

import click

from nervcodec.cli import options


@click.command(epilog="Example: nervcodec info kitchen.nerv --json")
@click.argument("file", type=options.EXISTING)
@options.as_json
@options.debug
def info(file: str, as_json: bool) -> None:
    """Show a container's header, its network, sizes by part, and the quality recorded at encode."""
    from nervcodec.cli.render import print_json, print_pairs
    from nervcodec.formats.container import Container
    from nervcodec.formats.fields import to_json
    from nervcodec.network.summary import Summary

    path = Path(file)
    with Container.at(path) as opened:
        found = Summary.of(opened)
    parameters, shared = found.parameters, found.shared
    if as_json:
        facts = {
            "bytes": found.size_bytes,
            "bpp": found.rate_bpp,
            "parameters": parameters,
            "bits_per_parameter": 8 * found.coded_bytes / parameters if parameters else None,
            "bytes_by_part": found.bytes_by_part,
            "parameters_by_part": {name: part.parameters for name, part in found.weights.items()},
        }
        if shared is not None:
            facts |= {"shared_parameters": shared.parameters, "shared_bytes": shared.bytes}
        print_json({**to_json(found.header), **facts})
        return
    rows = found.in_words()
    for part, count in found.bytes_by_part.items():
        own = found.weights.get(part)
        detail = f", {own.parameters:,} parameters at {8 * own.bytes / own.parameters:.2f} bits" if own else ""
        rows.append((f"bytes, {part}", f"{count:,} ({count / found.size_bytes:.1%}){detail}"))
    print_pairs(path.name, rows)
