# SPDX-License-Identifier: MIT
"""``nervcodec info``: the header and sizes of a container. Needs no torch."""

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
    from nervcodec.cli.output import print_json, print_pairs
    from nervcodec.formats.container import Container
    from nervcodec.formats.fields import to_json
    from nervcodec.network.summary import Summary

    path = Path(file)
    with Container.open(path) as opened:
        summary = Summary.of(opened)
    parameters, shared = summary.parameters, summary.shared
    if as_json:
        figures = {
            "bytes": summary.size_bytes,
            "bpp": summary.rate_bpp,
            "parameters": parameters,
            "bits_per_parameter": 8 * summary.coded_bytes / parameters if parameters else None,
            "bytes_by_part": summary.bytes_by_part,
            "parameters_by_part": {name: part.parameters for name, part in summary.weights.items()},
        }
        if shared is not None:
            figures |= {"shared_parameters": shared.parameters, "shared_bytes": shared.bytes}
        print_json({**to_json(summary.header), **figures})
        return
    rows = summary.rows()
    for part, count in summary.bytes_by_part.items():
        weights = summary.weights.get(part)
        detail = (
            f", {weights.parameters:,} parameters at {8 * weights.bytes / weights.parameters:.2f} bits"
            if weights
            else ""
        )
        rows.append((f"bytes, {part}", f"{count:,} ({count / summary.size_bytes:.1%}){detail}"))
    print_pairs(path.name, rows)
