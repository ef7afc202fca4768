# SPDX-License-Identifier: MIT
"""A copied stream in a header, and ranges of an array."""

from dataclasses import replace

import numpy as np
import pytest
from containers import tampered, write
from test_base_layer import with_base

from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container

IMPOSSIBLE = [
    ("copy", "the first entry is the first frame", {"entries": [[1, 5]]}),
    ("copy", "the first entry is the first frame", {"entries": [[0, 0]]}),
    ("copy", "entries must ascend", {"entries": [[0, 5], [0, 9]]}),
    ("copy", "entries must ascend", {"entries": [[0, 5], [3, 5]]}),
    ("copy", "behind the last frame", {"entries": [[0, 5], [10, 9]]}),
    ("copy", "must have 2 entries", {"entries": [[0]]}),
    ("copy", "frames to skip are out of range", {"skipped": -1}),
    ("copy", "has no entries", {"skipped": 1, "entries": [[0, 5]]}),
    ("av1", "only a copied stream", {"skipped": 1}),
    ("av1", "only a copied stream", {"entries": [[0, 5]]}),
    ("av1", "only a copied stream", {"flawed": True}),
]


@pytest.mark.parametrize(("kind", "message", "change"), IMPOSSIBLE, ids=[f"{k}-{c}" for k, _, c in IMPOSSIBLE])
def test_impossible_entries_are_refused(tmp_path, kind, message, change):
    path = write(tmp_path / "a.nerv", *with_base(kind))
    with pytest.raises(ContainerError, match=message):
        Container.open(tampered(path, lambda h: h["base"].update(change)))


def test_entries_survive_a_round_trip(tmp_path):
    header, arrays = with_base("copy")
    header = replace(header, base=replace(header.base, entries=((0, 3), (7, 5)), flawed=True))
    with Container.open(write(tmp_path / "a.nerv", header, arrays)) as opened:
        assert opened.header == header


def test_parts_of_an_array(tmp_path):
    path = write(tmp_path / "a.nerv", *with_base("copy"))
    with Container.open(path) as opened:
        assert b"".join(opened.chunks("base", (0, None))) == b"stream base"
        assert b"".join(opened.chunks("base", (0, 2), (7, None))) == b"stbase"
        assert b"".join(opened.chunks("base", (2, 99), (99, None), (5, 3))) == b"ream base"
        with pytest.raises(KeyError):
            opened.chunks("bass", (0, None))
    with pytest.raises(ContainerError, match="is closed"):
        list(opened.chunks("base", (0, None)))


def test_damage_is_detected_before_the_first_chunk(tmp_path):
    path = write(tmp_path / "a.nerv", *with_base("copy"))
    path.write_bytes(path.read_bytes().replace(b"stream base", b"stream BASE"))
    with Container.open(path) as opened, pytest.raises(ContainerError, match="tensor base is damaged"):
        opened.chunks("base", (0, 2))


def test_an_array_too_large_to_hold_is_read_in_pieces(tmp_path):
    header, arrays = with_base("copy")
    large = np.zeros(3 << 20, np.uint8)
    from nervcodec.formats.container import checksum
    from nervcodec.formats.header import StoredTensor

    header = replace(header, tensors={"base": StoredTensor(checksum(large))})
    with Container.open(write(tmp_path / "a.nerv", header, {"base": large})) as opened:
        assert [len(piece) for piece in opened.chunks("base", (1 << 19, None))] == [1 << 20, 1 << 20, 1 << 19]
