# SPDX-License-Identifier: MIT
"""Entropy coding of weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference_decoder
from containers import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nervcodec.errors import ContainerError
from nervcodec.formats import bitstream
from nervcodec.formats.bitstream import LARGEST, QuantizedTensor, quantize_tensor
from nervcodec.formats.container import Container

integers = hnp.arrays(
    np.int32,
    hnp.array_shapes(min_dims=1, max_dims=5, max_side=12),
    elements=st.integers(-30, 30) | st.integers(-LARGEST, LARGEST),
)


def walk(shape: tuple[int, ...], scale: float = 2.0) -> np.ndarray:
    """Integers that resemble their neighbours in time and space, as grids do."""
    noise = np.random.default_rng(0).normal(size=shape)
    smooth = noise.cumsum(axis=0) / 3 + noise.cumsum(axis=2) / 3
    return np.rint(scale * smooth).clip(-LARGEST, LARGEST).astype(np.int32)


def entropy_bytes(values: np.ndarray) -> float:
    """Empirical entropy of the values on their own."""
    _, counts = np.unique(values, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum()) / 8


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("abc.01", min_size=1, max_size=9), integers, min_size=1, max_size=4), st.data())
def test_a_round_trip(arrays, data):
    tensors = {}
    for name, array in arrays.items():
        channels = array.shape[1] if array.ndim > 1 and data.draw(st.booleans()) else 1
        tensors[name] = QuantizedTensor(array, np.full(channels, 0.03125, np.float32))
    halves = {"half": np.linspace(-2, 2, 7, dtype=np.float32), **tensors, "other": np.zeros((3, 1), np.float32)}
    decoded = bitstream.decode(bitstream.encode(halves))
    assert list(decoded) == list(halves)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(decoded[name], tensor.values())
    np.testing.assert_allclose(decoded["half"], halves["half"], rtol=1e-3)
    assert decoded["other"].shape == (3, 1)


@given(hnp.arrays(np.float32, (6, 3, 2, 5), elements=st.floats(-100, 100, width=32)), st.integers(1, 3))
def test_rounding_is_within_half_a_step(values, digits):
    steps = np.array([0.1, 0.0312345678, 10.0**-digits])
    tensor = quantize_tensor(values, steps)
    error = np.abs(tensor.values() - values)
    assert (error <= 0.5001 * tensor.steps.reshape(1, 3, 1, 1) + 1e-5).all()
    assert np.abs(tensor.integers).max(initial=0) <= LARGEST


def test_a_step_too_fine_is_widened():
    tensor = quantize_tensor(np.array([[1000.0, 1.0]]), np.array([1e-9]))
    assert np.abs(tensor.integers).max() <= LARGEST
    assert tensor.values()[0, 0] == pytest.approx(1000, rel=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ContainerError, match="NaN or infinite"):
        quantize_tensor(np.array([1.0, bad]), np.array([0.1]))
    with pytest.raises(ContainerError, match="step"):
        quantize_tensor(np.array([1.0]), np.array([bad]))
    with pytest.raises(ContainerError, match="float16"):
        bitstream.encode({"a": np.array([1.0, bad], np.float32)})


def test_coded_size_is_within_a_percent_of_the_entropy():
    values = np.random.default_rng(0).laplace(scale=2.5, size=(256, 512))
    tensor = quantize_tensor(values, np.array([1.0]))
    size = bitstream.encode({"a": tensor}).size
    assert size < 1.01 * entropy_bytes(tensor.integers) + 200


def test_contexts_of_neighbours_make_grids_smaller():
    grid = walk((6, 2, 40, 60))
    coded = bitstream.encode({"grid": QuantizedTensor(grid, np.ones(2, np.float32))})
    (line,), _ = bitstream.read_table(coded)
    assert line.neighbours
    assert line.coded_bytes < 0.9 * entropy_bytes(grid)
    assert line.size == grid.size


def test_the_table_accounts_for_every_byte():
    tensors = {"a": QuantizedTensor(walk((3, 2, 20, 20)), np.ones(1, np.float32)), "b": np.zeros(10, np.float32)}
    stream = bitstream.encode(tensors)
    lines, start = bitstream.read_table(stream)
    assert sum(line.coded_bytes for line in lines) == pytest.approx(stream.size - start, abs=8)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_gives_an_error_or_other_values(data):
    tensors = {"a": QuantizedTensor(walk((2, 2, 8, 8)), np.ones(2, np.float32)), "b": np.ones(3, np.float32)}
    stream = damaged(data, bitstream.encode(tensors))
    try:
        decoded = bitstream.decode(stream)
    except ContainerError:
        return
    assert all(np.isfinite(values).all() for values in decoded.values())


def test_a_deflated_bomb_is_refused():
    import zlib

    table = zlib.compress(b" " * (64 << 20), 9)
    stream = np.frombuffer(len(table).to_bytes(4, "little") + table, np.uint8)
    with pytest.raises(ContainerError, match="table"):
        bitstream.decode(stream)


def test_a_short_stream_cannot_allocate_much():
    """Weights of one value take no bytes, however many there are."""
    wide = QuantizedTensor(np.zeros((1 << 23,), np.int32), np.ones(1, np.float32))
    with pytest.raises(ContainerError, match="table"):
        bitstream.decode(bitstream.encode({"a": wide}))
    assert bitstream.decode(bitstream.encode({"a": QuantizedTensor(wide.integers[: 1 << 20], wide.steps)}))["a"].size


SCRIPT = """
import hashlib, sys
import numpy as np
if sys.argv[1] == "torch":
    import torch
    torch.set_num_threads(4)
from nervcodec.formats.container import Container
with Container.open(sys.argv[2]) as opened:
    weights = opened.network("0/").decode()
assert ("torch" in sys.modules) == (sys.argv[1] == "torch")
print(hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest())
"""


@pytest.mark.slow
def test_decoding_is_the_same_with_torch_or_without_and_with_any_threads(small_nerv):
    import os

    found = set()
    for mode, threads in (("plain", "1"), ("plain", "8"), ("torch", "2")):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", SCRIPT, mode, str(small_nerv)]
        found.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(found) == 1


small = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=7), elements=st.integers(-3, 4) | st.integers(-70, 70)
)


@settings(max_examples=25, deadline=None)
@given(st.lists(small, min_size=1, max_size=3))
def test_a_decoder_written_from_the_documentation_agrees(arrays):
    tensors = {str(i): QuantizedTensor(array, np.array([0.37], np.float32)) for i, array in enumerate(arrays)}
    stream = bitstream.encode({**tensors, "half": np.array([[1.5, -2.25]], np.float32)})
    ours, theirs = bitstream.decode(stream), reference_decoder.decode(stream.tobytes())
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["version3_lapped", "version3_plain"])
def test_the_second_decoder_reads_the_golden_files(name):
    with Container.open(Path(__file__).parents[1] / "golden" / f"{name}.nerv") as file:
        stream = file.array("0/weights")
        theirs, ours = reference_decoder.decode(stream.tobytes()), bitstream.decode(stream)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[tensor], theirs[tensor]) for tensor in ours)


def test_the_coder_is_pinned():
    """A change here changes what files that were written mean."""
    import hashlib

    tensors = {
        "grid": QuantizedTensor(walk((4, 2, 9, 11)), np.array([0.5, 0.25], np.float32)),
        "matrix": QuantizedTensor(walk((1, 1, 30, 20), 7.0)[0, 0], np.array([0.125], np.float32)),
        "bias": np.arange(5, dtype=np.float32),
    }
    stream = bitstream.encode(tensors)
    assert hashlib.sha256(stream.tobytes()[-200:]).hexdigest()[:16] == PINNED
    assert bitstream.decode(stream)["grid"].shape == (4, 2, 9, 11)


PINNED = "0403b0c037ae0638"
