# SPDX-License-Identifier: MIT
"""Frame tables at the beginning of a stream of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reference_decoder
from containers import damaged, make, write
from hypothesis import given, settings
from hypothesis import strategies as st

from nervcodec.errors import ContainerError
from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import LARGEST, QuantizedTensor
from nervcodec.formats.container import Container, checksum
from nervcodec.formats.header import MAX_PACE, STREAM, StoredTensor, TensorCode
from nervcodec.formats.weights import EMBEDDED, PACE, FrameTables, read_tables

GOLDEN = Path(__file__).parents[1] / "golden"
WEIGHTS = {
    "half": np.ones(3, np.float32),
    "grid": QuantizedTensor(np.arange(-30, 30, dtype=np.int32).reshape(5, 2, 2, 3), np.ones(2, np.float32)),
}
paces = st.lists(st.integers(0, MAX_PACE), max_size=300).map(tuple)
far_apart = st.sets(st.integers(0, 40_000) | st.integers(LARGEST - 2, LARGEST + 2), max_size=60)


def tables_stream(*tables: tuple[str, list[int] | np.ndarray], step: float = 1.0) -> np.ndarray:
    """A stream with tables that say what they like, before weights."""
    made = {name: QuantizedTensor(np.array(values, np.int32), np.float32([step])) for name, values in tables}
    return bitstream.encode({**made, **WEIGHTS})


@settings(deadline=None)
@given(paces, st.data())
def test_a_round_trip(pace, data):
    frames = len(pace) + 1
    embedded = tuple(sorted(data.draw(st.sets(st.integers(0, frames - 1)))))
    tables = FrameTables(embedded, pace)
    stream = bitstream.encode({**tables.tensors(), **WEIGHTS})
    assert read_tables(stream, frames) == tables
    assert list(bitstream.decode(stream)) == [*tables.tensors(), *WEIGHTS]


@settings(max_examples=40)
@given(far_apart)
def test_gaps_of_any_length_and_a_second_decoder(frames):
    embedded = tuple(sorted(frames))
    stream = bitstream.encode(FrameTables(embedded).tensors())
    assert read_tables(stream, 40_001).embedded == embedded
    gaps = reference_decoder.decode(stream.tobytes()).get(EMBEDDED, [])
    assert reference_decoder.embedded_frames(gaps) == list(embedded)


@pytest.mark.parametrize("embedded", [(), (0,), (4095,), (0, 4095), (1, 4096, 8191, 999_999)])
def test_lengths_and_gaps_at_the_edge(embedded):
    assert read_tables(bitstream.encode(FrameTables(embedded).tensors()), 1_000_000).embedded == embedded


def test_empty_tables_take_no_bytes():
    assert FrameTables().tensors() == {}
    assert read_tables(bitstream.encode(WEIGHTS), 10) == FrameTables()


def test_bytes_per_frame_of_the_tables():
    """Of 250 frames: under five bits for a pace of twenty values, under two and a half bytes for five embeddings."""
    rng = np.random.default_rng(0)
    pace = tuple(np.clip(rng.normal(10, 3, 249).round(), 0, 20).astype(int).tolist())
    with_pace = bitstream.encode({**FrameTables((), pace).tensors(), **WEIGHTS}).size
    with_both = bitstream.encode({**FrameTables(tuple(range(0, 250, 5)), pace).tensors(), **WEIGHTS}).size
    plain = bitstream.encode(WEIGHTS).size
    assert with_pace - plain < 249 * 5 / 8 + 40
    assert with_both - with_pace < 50 / 2 + 40


HOSTILE = [
    ("ascend", [(EMBEDDED, [3, 0])]),
    ("ascend", [(EMBEDDED, [3, -1])]),
    ("ascend", [(EMBEDDED, [-1, 2])]),
    ("ascend", [(EMBEDDED, [10])]),
    ("ascend", [(EMBEDDED, [LARGEST])]),
    ("ascend", [(EMBEDDED, [3, LARGEST])]),
    ("whole numbers of frames", [(EMBEDDED, [1] * 11)]),
    ("whole numbers of frames", [(EMBEDDED, np.zeros(1 << 20))]),
    ("whole numbers of frames", [(PACE, np.zeros((3, 3)))]),
    ("9 numbers from 0 to 99", [(PACE, [1] * 8)]),
    ("9 numbers from 0 to 99", [(PACE, [1] * 10)]),
    ("9 numbers from 0 to 99", [(PACE, [1] * 8 + [100])]),
    ("9 numbers from 0 to 99", [(PACE, [1] * 8 + [-1])]),
    ("unknown table ':colour'; this file needs a newer nervcodec", [(":colour", [1])]),
]


@pytest.mark.parametrize(("message", "tables"), HOSTILE, ids=[f"{i}-{m}" for i, (m, _) in enumerate(HOSTILE)])
def test_impossible_tables_are_refused_in_one_line(tmp_path, message, tables):
    stream = tables_stream(*tables)
    with pytest.raises(ContainerError, match=message):
        read_tables(stream, 10)
    header, _ = make()
    tensors = {"0/weights": StoredTensor(checksum(stream), TensorCode(STREAM))}
    path = write(tmp_path / "a.nerv", header.__class__(**{**vars(header), "tensors": tensors}), {"0/weights": stream})
    with Container.open(path) as opened:
        assert opened.network("0/").table() == {
            "half": ((3,), 6),
            "grid": ((5, 2, 2, 3), opened.network("0/").table()["grid"][1]),
        }
        assert set(opened.network("0/").decode()) == {"half", "grid"}
        with pytest.raises(ContainerError, match=rf"^{path}: tensor 0/weights: .*{message}") as caught:
            opened.embedded_frames(header.segments[0])
    assert "\n" not in str(caught.value)


def test_other_steps_and_floats_are_no_tables():
    with pytest.raises(ContainerError, match="whole numbers of frames"):
        read_tables(tables_stream((EMBEDDED, [1, 2]), step=0.5), 10)
    with pytest.raises(ContainerError, match="whole numbers of frames"):
        read_tables(bitstream.encode({PACE: np.ones(9, np.float32)}), 10)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_gives_an_error_or_valid_tables(data):
    stream = damaged(data, bitstream.encode({**FrameTables((0, 5, 9), (3,) * 9).tensors(), **WEIGHTS}))
    try:
        tables = read_tables(stream, 10)
    except ContainerError:
        return
    assert len(tables.pace) in (0, 9)
    assert all(0 <= step <= MAX_PACE for step in tables.pace)
    assert list(tables.embedded) == sorted({frame for frame in tables.embedded if 0 <= frame < 10})


def test_nothing_behind_the_tables_is_decoded(monkeypatch):
    decoded, original = [], bitstream._decode_integers
    monkeypatch.setattr(
        bitstream, "_decode_integers", lambda line, coder: decoded.append(line.name) or original(line, coder)
    )
    read_tables(bitstream.encode({**FrameTables((0, 5), (1,) * 9).tensors(), **WEIGHTS}), 10)
    assert decoded == [EMBEDDED, PACE]


@pytest.mark.parametrize("name", ["version3_pe", "version3_grid"])
def test_embedded_frames_of_golden_files(name):
    with Container.open(GOLDEN / f"{name}.nerv") as opened:
        assert opened.embedded_frames(opened.header.segments[0]) == (0, 5, 11)


@pytest.mark.parametrize("name", ["version3_grid", "version3_pe", "version3_shared"])
def test_a_decoder_written_from_the_documentation_reads_whole_files(name):
    path = GOLDEN / f"{name}.nerv"
    with Container.open(path) as opened:
        theirs = list(reference_decoder.segments(path.read_bytes()))
        shared = opened.shared_weights()
        assert len(theirs) == len(opened.header.segments)
        for segment, (tensors, embedded, pace) in zip(opened.header.segments, theirs, strict=True):
            ours = opened.network(segment.prefix).decode() | (shared.decode() if shared else {})
            assert ours.keys() == tensors.keys()
            assert all(np.array_equal(ours[tensor], tensors[tensor]) for tensor in ours)
            tables = opened.network(segment.prefix).frame_tables(segment.frame_count)
            assert tables == FrameTables(tuple(embedded), tuple(pace))
            assert embedded
            assert bool(pace) == (segment.network["kind"] == "grid")
