# SPDX-License-Identifier: MIT
"""``nervcodec verify``: is a container whole?"""

from __future__ import annotations

from pathlib import Path

import click

from nervcodec.cli import options


@click.command(epilog="Example: nervcodec verify kitchen.nerv")
@click.argument("file", type=click.Path(dir_okay=False))
@options.debug
def verify(file: str) -> None:
    """Check a container's checksums and structure; exit status 1 and the reason where it is damaged."""
    from nervcodec.base.check import check_base
    from nervcodec.cli.output import say
    from nervcodec.formats.container import Container

    with Container.at(Path(file)) as opened:
        opened.verify()
        for segment in opened.header.segments:
            opened.embedded_frames(segment)
            opened.weights(segment.prefix)
        if (shared := opened.shared_weights()) is not None:
            shared.decode()
        check_base(opened)
    count = len(opened.header.tensors)
    say(f"{file}: whole ({count} tensors, {opened.header.video.frame_count} frames)")
