# SPDX-License-Identifier: MIT
"""Weights as one entropy-coded stream: integers under adaptive models, through constriction's range coder.

The stream is ``uint8``: the length of a table (4 bytes, little-endian), the table (JSON, deflated), the float16
tensors, and the words of the range coder (Martin 1979; ``constriction``, Bamler 2022, arXiv:2201.01741).

Quantized tensors are coded row by row with adaptive models: counts of earlier values in the same context. Only the
table is transmitted. The context of a value in a grid ``(T, C, H, W)`` is the value at the same position one entry
earlier in time and the value above it. The decoder's arithmetic is in integers, or in additions, multiplications and
divisions of IEEE doubles in a fixed order, so it is bit-exact on every machine.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import constriction
import numpy as np

from nervcodec.errors import ContainerError

LARGEST = 4095  # of a quantised value, either sign
MAX_TABLE_BYTES = 16 << 20
MAX_VALUES = 1 << 28
VALUES_ALLOWANCE, VALUES_PER_BYTE = 1 << 22, 256  # limits memory and time by the size of the stream
MAX_TENSORS = 4096

_NEAR = 3  # neighbours are quantized to -3 ... 3, in units of a typical value
_PRIOR_COUNT, _POOLED_COUNT = 32.0, 24.0  # pseudo-counts of the prior and of the pooled contexts


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor as integer multiples of steps.

    Attributes:
        integers: int32, any shape, from -4095 to 4095.
        steps: float32, ``(1,)``, or ``(C,)`` for a step per index of the second axis.
    """

    integers: np.ndarray
    steps: np.ndarray

    def values(self) -> np.ndarray:
        """Float32 of the same shape."""
        steps = self.steps.astype(np.float32)
        if steps.size > 1:
            steps = steps.reshape(1, -1, *([1] * (self.integers.ndim - 2)))
        return self.integers.astype(np.float32) * steps


def quantize_tensor(values: np.ndarray, steps: np.ndarray) -> QuantizedTensor:
    """Quantize to the nearest multiples of steps, which get five digits and are widened if integers would exceed 4095.

    Raises:
        ContainerError: a value or step is not finite, or a step is not above 0.
    """
    values, steps = np.asarray(values, np.float32), np.asarray(steps, np.float64)
    if not np.isfinite(values).all():
        raise ContainerError("refusing to store a tensor with NaN or infinite values")
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        raise ContainerError("refusing to store a tensor with an impossible quantisation step")
    axes = tuple(axis for axis in range(values.ndim) if axis != 1) if steps.size > 1 else None
    most = np.abs(values).max(axis=axes, initial=0.0)
    steps = np.maximum(steps, most / (LARGEST - 1))
    steps = np.array([f"{step:.5g}" for step in steps], np.float32)
    unit = QuantizedTensor(np.ones([1] * values.ndim, np.int32), steps).values()
    return QuantizedTensor(np.rint(values / unit).astype(np.int32), steps)


@dataclass(frozen=True)
class TensorEntry:
    """One entry of the table.

    Attributes:
        name, shape: of the tensor.
        coded_bytes: in the stream, without its table entry.
        steps: empty for float16.
        low, high: least and greatest integer.
        typical: 16 times the mean absolute integer, rounded.
        neighbours: whether values are coded in the context of their neighbours.
    """

    name: str
    shape: tuple[int, ...]
    coded_bytes: int
    steps: tuple[float, ...] = ()
    low: int = 0
    high: int = 0
    typical: int = 0
    neighbours: bool = False

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __post_init__(self) -> None:
        ok = 0 < len(self.name) <= 255 and len(self.shape) <= 8 and all(0 < n <= MAX_VALUES for n in self.shape)
        ok = ok and self.size <= MAX_VALUES and self.coded_bytes >= 0
        ok = ok and -LARGEST <= self.low <= self.high <= LARGEST and 0 <= self.typical <= 16 * LARGEST
        ok = ok and all(math.isfinite(s) and 0 < s < 1e30 for s in self.steps)
        ok = ok and (len(self.steps) <= 1 or (len(self.shape) > 1 and len(self.steps) == self.shape[1]))
        ok = ok and (not self.neighbours or len(self.shape) == 4)
        if not ok:
            raise ContainerError("the table of weights is damaged")


def encode(tensors: dict[str, QuantizedTensor | np.ndarray]) -> np.ndarray:
    """Weights to a stream.

    Args:
        tensors: quantized tensors, and float arrays to store as float16.

    Returns:
        ``(n,)`` uint8.

    Raises:
        ContainerError: a float is beyond float16.
    """
    coder = constriction.stream.queue.RangeEncoder()
    halves, entries = b"", []
    for name, tensor in tensors.items():
        if isinstance(tensor, QuantizedTensor):
            entries.append(_encode_quantized(name, tensor, coder))
            continue
        with np.errstate(over="ignore"):
            half = tensor.astype("<f2")
        if not np.isfinite(half).all():
            raise ContainerError("refusing to store a value that is not finite or beyond float16 (65504)")
        halves += half.tobytes()
        entries.append(TensorEntry(name, tensor.shape, half.nbytes))
    table = zlib.compress(json.dumps([_to_row(entry) for entry in entries], separators=(",", ":")).encode(), 9)
    words = coder.get_compressed().astype("<u4")
    return np.frombuffer(len(table).to_bytes(4, "little") + table + halves + words.tobytes(), np.uint8)


def _encode_quantized(name: str, tensor: QuantizedTensor, coder: Any) -> TensorEntry:
    integers = tensor.integers
    plain = TensorEntry(
        name,
        coded_bytes=0,
        shape=integers.shape,
        steps=tuple(float(step) for step in tensor.steps),
        low=int(integers.min()),
        high=int(integers.max()),
        typical=int(round(16 * float(np.abs(integers).mean()))),
    )
    choices = [False, True] if integers.ndim == 4 and integers.shape[2] > 1 else [False]
    entries = []
    for neighbours in choices:
        entry = replace(plain, neighbours=neighbours)
        trial = constriction.stream.queue.RangeEncoder()
        _encode_integers(entry, integers, trial)
        entries.append(replace(entry, coded_bytes=trial.num_bits() // 8))
    best = min(entries, key=lambda entry: entry.coded_bytes)
    _encode_integers(best, integers, coder)
    return best


def read_table(stream: np.ndarray) -> tuple[list[TensorEntry], int]:
    """The table of a stream, and the offset of the weights.

    Raises:
        ContainerError: the stream is damaged.
    """
    data = stream.tobytes() if stream.dtype == np.uint8 and stream.ndim == 1 else b""
    length = int.from_bytes(data[:4], "little")
    if len(data) < 4 or 4 + length > len(data):
        raise ContainerError("the stream of weights is damaged or cut short")
    try:
        inflate = zlib.decompressobj()
        rows = json.loads(inflate.decompress(data[4 : 4 + length], MAX_TABLE_BYTES))
        if len(rows) > MAX_TENSORS:
            raise ContainerError("the table of weights is damaged")
        entries = [_from_row(row) for row in rows]
    except (zlib.error, ValueError, TypeError, RecursionError):
        raise ContainerError("the table of weights is damaged") from None
    has_duplicates = len({entry.name for entry in entries}) != len(entries)
    if has_duplicates or sum(entry.size for entry in entries) > max_values(len(data)):
        raise ContainerError("the table of weights is damaged")
    return entries, 4 + length


def max_values(size: int) -> int:
    """Most weights in a stream of ``size`` bytes; a thirtieth of a bit each is far below any real rate."""
    return min(MAX_VALUES, VALUES_ALLOWANCE + VALUES_PER_BYTE * size)


def decode(stream: np.ndarray, prefix: str = "") -> dict[str, np.ndarray]:
    """A stream back to float32 tensors by name; see :func:`read`."""
    return values(read(stream, prefix))


def values(tensors: dict[str, QuantizedTensor | np.ndarray]) -> dict[str, np.ndarray]:
    """Float32 tensors from the result of :func:`read`.

    Raises:
        ContainerError: one of them is not finite.
    """
    result = {n: t.values() if isinstance(t, QuantizedTensor) else t for n, t in tensors.items()}
    for name, array in result.items():
        if not np.isfinite(array).all():
            raise ContainerError(f"tensor {name[:80]!r} holds NaN or infinite values")
    return result


def value_count(tensors: dict[str, QuantizedTensor | np.ndarray]) -> int:
    """Number of values of some tensors."""
    return sum((t.integers if isinstance(t, QuantizedTensor) else t).size for t in tensors.values())


def entropy_bytes(tensors: dict[str, QuantizedTensor | np.ndarray]) -> float:
    """Size with an ideal coder without contexts that knows the distribution of each tensor.

    The sum of the empirical (order 0) entropies of the tensors' integers; float16 tensors count with their size.
    """
    total = 0.0
    for tensor in tensors.values():
        if isinstance(tensor, QuantizedTensor):
            _, counts = np.unique(tensor.integers, return_counts=True)
            total -= float((counts * np.log2(counts / counts.sum())).sum()) / 8
        else:
            total += 2 * tensor.size
    return total


def read(stream: np.ndarray, prefix: str = "") -> dict[str, QuantizedTensor | np.ndarray]:
    """Decode a stream to integers and steps, or float32 for float16 tensors.

    Args:
        stream: ``(n,)`` uint8.
        prefix: of the names to decode; nothing after the last of them is decoded.

    Raises:
        ContainerError: the stream is damaged.
    """
    entries, start = read_table(stream)
    result: dict[str, QuantizedTensor | np.ndarray] = {}
    coded = []
    for entry in entries:
        if entry.steps:
            coded.append(entry)
            continue
        part = stream[start : start + 2 * entry.size]
        if part.size != 2 * entry.size:
            raise ContainerError("the stream of weights is cut short")
        result[entry.name] = part.view("<f2").astype(np.float32).reshape(entry.shape)
        start += 2 * entry.size
    words = stream[start:]
    if words.size % 4:
        raise ContainerError("the stream of weights is cut short")
    coder = constriction.stream.queue.RangeDecoder(np.ascontiguousarray(words).view("<u4").astype(np.uint32))
    last = max((number for number, entry in enumerate(coded) if entry.name.startswith(prefix)), default=-1)
    for entry in coded[: last + 1]:
        integers = _decode_integers(entry, coder)
        result[entry.name] = QuantizedTensor(integers, np.array(entry.steps, np.float32))
    return {entry.name: result[entry.name] for entry in entries if entry.name.startswith(prefix)}


def _to_row(entry: TensorEntry) -> list:
    steps = [float(f"{step:.5g}") for step in entry.steps]
    low, high, typical = entry.low, entry.high, entry.typical
    return [entry.name, entry.shape, entry.coded_bytes, steps, low, high, typical, int(entry.neighbours)]


def _from_row(row: list) -> TensorEntry:
    name, shape, coded_bytes, steps, low, high, typical, neighbours = row
    numbers = [*shape, coded_bytes, low, high, typical, neighbours]
    if not isinstance(name, str) or any(type(n) is not int for n in numbers) or neighbours not in (0, 1):
        raise ContainerError("the table of weights is damaged")
    steps = tuple(float(step) for step in steps)
    return TensorEntry(name, tuple(shape), coded_bytes, steps, low, high, typical, bool(neighbours))


# ---------------------------------------------------------------------- models


class _Model:
    """Adaptive model: counts of coded values by context, and the resulting probabilities."""

    def __init__(self, entry: TensorEntry):
        self.low, self.alphabet = entry.low, entry.high - entry.low + 1
        self.contexts = (2 * _NEAR + 1) ** 2 if entry.neighbours else 1
        self.counts = np.zeros((self.contexts, self.alphabet))
        self.seen, self.next_update = 0, 0
        # A two-sided geometric prior; powers by repeated multiplication are bit-exact.
        ratio = (entry.typical + 1) / (entry.typical + 17)
        powers = np.multiply.accumulate(np.full(LARGEST + 1, ratio))
        self.prior = powers[np.abs(np.arange(entry.low, entry.high + 1))]
        self.prior = self.prior / _sequential_sum(self.prior)
        self._refresh()

    def _refresh(self) -> None:
        pooled = np.add.accumulate(self.counts, axis=0)[-1]
        pooled_probabilities = (pooled + _PRIOR_COUNT * self.prior) / (self.seen + _PRIOR_COUNT)
        totals = np.add.accumulate(self.counts, axis=1)[:, -1:]
        self.probabilities = ((self.counts + _POOLED_COUNT * pooled_probabilities) / (totals + _POOLED_COUNT)).astype(
            np.float32
        )
        self.next_update = self.seen + max(64, self.seen // 16)

    def update(self, contexts: np.ndarray, integers: np.ndarray) -> None:
        """Update with a row of values."""
        flat = contexts * self.alphabet + (integers - self.low)
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)
        self.seen += integers.size
        if self.seen >= self.next_update:
            self._refresh()


def _sequential_sum(values: np.ndarray) -> float:
    """Sum from left to right: the order of ``np.sum`` depends on the machine."""
    return float(np.add.accumulate(values)[-1])


def _rows(entry: TensorEntry, integers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(contexts, view of the integers) of each row, in coding order; a decoder fills each before the next."""
    if not entry.neighbours:
        flat = integers.reshape(-1)
        start = 0
        while start < flat.size:
            stop = min(flat.size, start + max(64, start // 8))
            yield np.zeros(stop - start, np.int64), flat[start:stop]
            start = stop
        return
    times, _, height, _ = integers.shape
    unit = max(16, 2 * entry.typical // 3)
    side = 2 * _NEAR + 1

    def near(values: np.ndarray) -> np.ndarray:
        scaled = (32 * values.astype(np.int64) + unit) // (2 * unit)
        return np.clip(scaled, -_NEAR, _NEAR) + _NEAR

    nothing = np.zeros_like(integers[0])
    for time in range(times):
        before = near(integers[time - 1] if time else nothing) * side
        for row in range(height):
            above = near(integers[time, :, row - 1] if row else nothing[:, 0])
            yield before[:, row] + above, integers[time, :, row]


def _encode_integers(entry: TensorEntry, integers: np.ndarray, coder: Any) -> None:
    model, distribution = _Model(entry), constriction.stream.model.Categorical(perfect=False)
    if model.alphabet == 1:
        return
    for contexts, row in _rows(entry, np.ascontiguousarray(integers)):
        contexts, symbols = contexts.reshape(-1), row.reshape(-1)
        coder.encode((symbols - entry.low).astype(np.int32), distribution, model.probabilities[contexts])
        model.update(contexts, symbols)


def _decode_integers(entry: TensorEntry, coder: Any) -> np.ndarray:
    integers = np.zeros(entry.shape, np.int32)
    model, distribution = _Model(entry), constriction.stream.model.Categorical(perfect=False)
    if model.alphabet == 1:
        return integers + np.int32(entry.low)
    for contexts, row in _rows(entry, integers):
        flat = contexts.reshape(-1)
        try:
            symbols = coder.decode(distribution, model.probabilities[flat]) + np.int32(entry.low)
        except AssertionError:  # constriction's error for invalid words
            raise ContainerError("the stream of weights is damaged") from None
        row[...] = symbols.reshape(row.shape)
        model.update(flat, symbols)
    return integers
