# SPDX-License-Identifier: MIT
"""``nervcodec verify``."""

from __future__ import annotations

from pathlib import Path

import click

from nervcodec.cli import options
from nervcodec.formats.text import count_noun


@click.command(epilog="Example: nervcodec verify kitchen.nerv")
@click.argument("file", type=click.Path(dir_okay=False))
@options.debug
def verify(file: str) -> None:
    """Check a container's checksums and structure; exit status 1 and the reason where it is damaged."""
    from nervcodec.base.streams import check_whole
    from nervcodec.cli.output import say
    from nervcodec.formats.container import Container

    with Container.open(Path(file)) as opened:
        check_whole(opened)
    count = len(opened.header.tensors)
    say(f"{file}: whole ({count_noun(count, 'tensor')}, {count_noun(opened.header.video.frame_count, 'frame')})")
