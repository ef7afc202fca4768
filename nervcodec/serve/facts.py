# SPDX-License-Identifier: MIT
"""What a container is made of, in words and numbers for a page; no network is built."""

from __future__ import annotations

from nervcodec.formats.container import Container
from nervcodec.network.summary import Summary
from nervcodec.serve.fragments import plan
from nervcodec.serve.shelf import Item, Shelf
from nervcodec.serve.sound import TYPE


def described(shelf: Shelf, item: Item) -> dict:
    """All that a page shows of one file.

    Raises:
        ContainerError: it is damaged.
    """
    video = shelf.open(item)
    with Container.at(item.file) as opened:
        found = Summary.of(opened)
    header, made = video.header, plan(video)
    times = video.frame_times_s.tolist() if header.video.variable_frame_rate else None
    rows, columns = header.patch_grid
    length = {"fragment_s": float(made.length), "count": made.count}
    facts = shelf.facts(item)
    return {
        **facts,
        "version": item.version,
        "frame_times_s": times,
        "grid": {"rows": rows, "cols": columns},
        "parts": [{"name": name, "bytes": count} for name, count in found.bytes_by_part.items()],
        "facts": [{"name": name, "value": value} for name, value in found.in_words()],
        "psnr_over_time": None,  # no file holds it
        "has_base": header.base is not None,
        "video": {"type": made.type, **length},
        "audio": {"type": TYPE, **length} if facts["has_sound"] else None,
    }
