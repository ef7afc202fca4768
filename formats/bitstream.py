# SPDX-License-Identifier: MIT
"""Weights as one entropy-coded stream: integers under adaptive models, through constriction's range coder.

The stream is ``uint8``: the length of a table (4 bytes, little-endian), the table (JSON, deflated), the tensors that
are kept as float16, and the words of the range coder (Martin 1979; ``constriction``, Bamler 2022, arXiv:2201.01741).

Every rounded tensor is coded row by row. The model of a value is a table of counts of what was coded before it in
the same context, so there is nothing to transmit but what the table says. The context of a value in a grid
``(T, C, H, W)`` is the value at the same place one moment earlier and the value above it. All arithmetic that a
decoder repeats is in integers, or in additions, multiplications and divisions of IEEE doubles in a fixed order,
which give the same bits on every machine.
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
FREE_VALUES, VALUES_PER_BYTE = 1 << 22, 256  # a short stream cannot ask for much memory or time
MAX_TENSORS = 4096

_NEAR = 3  # neighbours are told apart from -3 to 3, in units of a typical value
_PRIOR, _POOLED = 32.0, 24.0  # weights, in values seen, of the first guess and of all contexts together


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor as whole numbers of steps.

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
    """The nearest whole numbers of steps; steps are kept to five digits, and widened where values are too many steps.

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
    """One line of the table.

    Attributes:
        name, shape: of the tensor.
        coded_bytes: what it takes of the stream, table apart.
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
        tensors: rounded tensors, and float arrays to be kept as float16.

    Returns:
        ``(n,)`` uint8.

    Raises:
        ContainerError: a float is beyond float16.
    """
    coder = constriction.stream.queue.RangeEncoder()
    halves, lines = b"", []
    for name, tensor in tensors.items():
        if isinstance(tensor, QuantizedTensor):
            lines.append(_encode_rounded(name, tensor, coder))
            continue
        with np.errstate(over="ignore"):
            half = tensor.astype("<f2")
        if not np.isfinite(half).all():
            raise ContainerError("refusing to store a value that is not finite or beyond float16 (65504)")
        halves += half.tobytes()
        lines.append(TensorEntry(name, tensor.shape, half.nbytes))
    table = zlib.compress(json.dumps([_to_row(line) for line in lines], separators=(",", ":")).encode(), 9)
    words = coder.get_compressed().astype("<u4")
    return np.frombuffer(len(table).to_bytes(4, "little") + table + halves + words.tobytes(), np.uint8)


def _encode_rounded(name: str, tensor: QuantizedTensor, coder: Any) -> TensorEntry:
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
    lines = []
    for neighbours in choices:
        line = replace(plain, neighbours=neighbours)
        trial = constriction.stream.queue.RangeEncoder()
        _encode_integers(line, integers, trial)
        lines.append(replace(line, coded_bytes=trial.num_bits() // 8))
    best = min(lines, key=lambda line: line.coded_bytes)
    _encode_integers(best, integers, coder)
    return best


def read_table(stream: np.ndarray) -> tuple[list[TensorEntry], int]:
    """The table of a stream and the number of bytes before the weights themselves.

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
        lines = [_from_row(row) for row in rows]
    except (zlib.error, ValueError, TypeError, RecursionError):
        raise ContainerError("the table of weights is damaged") from None
    if len({line.name for line in lines}) != len(lines) or sum(line.size for line in lines) > max_values(len(data)):
        raise ContainerError("the table of weights is damaged")
    return lines, 4 + length


def max_values(size: int) -> int:
    """Weights that a stream of so many bytes may hold; a thirtieth of a bit each is far less than any fit needs."""
    return min(MAX_VALUES, FREE_VALUES + VALUES_PER_BYTE * size)


def decode(stream: np.ndarray, beginning: str = "") -> dict[str, np.ndarray]:
    """A stream back to float32 tensors by name; see :func:`read`."""
    return values(read(stream, beginning))


def values(tensors: dict[str, QuantizedTensor | np.ndarray]) -> dict[str, np.ndarray]:
    """Float32 tensors of what :func:`read` gave.

    Raises:
        ContainerError: one of them is not finite.
    """
    result = {n: t.values() if isinstance(t, QuantizedTensor) else t for n, t in tensors.items()}
    for name, array in result.items():
        if not np.isfinite(array).all():
            raise ContainerError(f"tensor {name[:80]!r} holds NaN or infinite values")
    return result


def value_count(tensors: dict[str, QuantizedTensor | np.ndarray]) -> int:
    """How many numbers some tensors hold."""
    return sum((t.integers if isinstance(t, QuantizedTensor) else t).size for t in tensors.values())


def entropy_bytes(tensors: dict[str, QuantizedTensor | np.ndarray]) -> float:
    """What an ideal coder without contexts would take for the rounded tensors, if it knew each one's distribution.

    That is the empirical (order 0) entropy of the integers of each tensor, added up; float16 tensors take their size.
    """
    total = 0.0
    for tensor in tensors.values():
        if isinstance(tensor, QuantizedTensor):
            _, counts = np.unique(tensor.integers, return_counts=True)
            total -= float((counts * np.log2(counts / counts.sum())).sum()) / 8
        else:
            total += 2 * tensor.size
    return total


def read(stream: np.ndarray, beginning: str = "") -> dict[str, QuantizedTensor | np.ndarray]:
    """A stream back to its integers and steps, or float32 where a tensor was kept as float16.

    Args:
        stream: ``(n,)`` uint8.
        beginning: only tensors whose names begin so. What comes after the last of them is not decoded.

    Raises:
        ContainerError: the stream is damaged.
    """
    lines, start = read_table(stream)
    result: dict[str, QuantizedTensor | np.ndarray] = {}
    coded = []
    for line in lines:
        if line.steps:
            coded.append(line)
            continue
        part = stream[start : start + 2 * line.size]
        if part.size != 2 * line.size:
            raise ContainerError("the stream of weights is cut short")
        result[line.name] = part.view("<f2").astype(np.float32).reshape(line.shape)
        start += 2 * line.size
    words = stream[start:]
    if words.size % 4:
        raise ContainerError("the stream of weights is cut short")
    coder = constriction.stream.queue.RangeDecoder(np.ascontiguousarray(words).view("<u4").astype(np.uint32))
    last = max((number for number, line in enumerate(coded) if line.name.startswith(beginning)), default=-1)
    for line in coded[: last + 1]:
        integers = _decode_integers(line, coder)
        result[line.name] = QuantizedTensor(integers, np.array(line.steps, np.float32))
    return {line.name: result[line.name] for line in lines if line.name.startswith(beginning)}


def _to_row(line: TensorEntry) -> list:
    steps = [float(f"{step:.5g}") for step in line.steps]
    return [line.name, line.shape, line.coded_bytes, steps, line.low, line.high, line.typical, int(line.neighbours)]


def _from_row(row: list) -> TensorEntry:
    name, shape, coded_bytes, steps, low, high, typical, neighbours = row
    whole = [*shape, coded_bytes, low, high, typical, neighbours]
    if not isinstance(name, str) or any(type(n) is not int for n in whole) or neighbours not in (0, 1):
        raise ContainerError("the table of weights is damaged")
    steps = tuple(float(step) for step in steps)
    return TensorEntry(name, tuple(shape), coded_bytes, steps, low, high, typical, bool(neighbours))


# ---------------------------------------------------------------------- models


class _Model:
    """Counts of what was coded, by context, and the probabilities that follow from them."""

    def __init__(self, line: TensorEntry):
        self.low, self.alphabet = line.low, line.high - line.low + 1
        self.contexts = (2 * _NEAR + 1) ** 2 if line.neighbours else 1
        self.counts = np.zeros((self.contexts, self.alphabet))
        self.seen, self.next_update = 0, 0
        # The first guess falls off geometrically on both sides of 0; powers by repeated multiplication are exact.
        ratio = (line.typical + 1) / (line.typical + 17)
        powers = np.multiply.accumulate(np.full(LARGEST + 1, ratio))
        self.prior = powers[np.abs(np.arange(line.low, line.high + 1))]
        self.prior = self.prior / _in_order(self.prior)
        self._refresh()

    def _refresh(self) -> None:
        pooled = np.add.accumulate(self.counts, axis=0)[-1]
        guess = (pooled + _PRIOR * self.prior) / (self.seen + _PRIOR)
        totals = np.add.accumulate(self.counts, axis=1)[:, -1:]
        self.probabilities = ((self.counts + _POOLED * guess) / (totals + _POOLED)).astype(np.float32)
        self.next_update = self.seen + max(64, self.seen // 16)

    def update(self, contexts: np.ndarray, integers: np.ndarray) -> None:
        """Learn a row of values."""
        flat = contexts * self.alphabet + (integers - self.low)
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)
        self.seen += integers.size
        if self.seen >= self.next_update:
            self._refresh()


def _in_order(values: np.ndarray) -> float:
    """Sum from left to right; ``np.sum`` adds in an order that depends on the machine."""
    return float(np.add.accumulate(values)[-1])


def _rows(line: TensorEntry, integers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(contexts, view of the integers) of each row, in coding order; a row may be filled in before the next."""
    if not line.neighbours:
        flat = integers.reshape(-1)
        start = 0
        while start < flat.size:
            stop = min(flat.size, start + max(64, start // 8))
            yield np.zeros(stop - start, np.int64), flat[start:stop]
            start = stop
        return
    moments, _, height, _ = integers.shape
    unit = max(16, 2 * line.typical // 3)
    side = 2 * _NEAR + 1

    def near(values: np.ndarray) -> np.ndarray:
        scaled = (32 * values.astype(np.int64) + unit) // (2 * unit)
        return np.clip(scaled, -_NEAR, _NEAR) + _NEAR

    nothing = np.zeros_like(integers[0])
    for moment in range(moments):
        before = near(integers[moment - 1] if moment else nothing) * side
        for row in range(height):
            above = near(integers[moment, :, row - 1] if row else nothing[:, 0])
            yield before[:, row] + above, integers[moment, :, row]


def _encode_integers(line: TensorEntry, integers: np.ndarray, coder: Any) -> None:
    model, family = _Model(line), constriction.stream.model.Categorical(perfect=False)
    if model.alphabet == 1:
        return
    for contexts, row in _rows(line, np.ascontiguousarray(integers)):
        contexts, symbols = contexts.reshape(-1), row.reshape(-1)
        coder.encode((symbols - line.low).astype(np.int32), family, model.probabilities[contexts])
        model.update(contexts, symbols)


def _decode_integers(line: TensorEntry, coder: Any) -> np.ndarray:
    integers = np.zeros(line.shape, np.int32)
    model, family = _Model(line), constriction.stream.model.Categorical(perfect=False)
    if model.alphabet == 1:
        return integers + np.int32(line.low)
    for contexts, row in _rows(line, integers):
        flat = contexts.reshape(-1)
        try:
            symbols = coder.decode(family, model.probabilities[flat]) + np.int32(line.low)
        except AssertionError:  # what constriction raises for words that no encoder wrote
            raise ContainerError("the stream of weights is damaged") from None
        row[...] = symbols.reshape(row.shape)
        model.update(flat, symbols)
    return integers
