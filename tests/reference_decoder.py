# SPDX-License-Identifier: MIT
"""A second decoder of the stream of weights, written from docs/bitstream.md alone: slow, and without constriction."""

import json
import zlib

import numpy as np

MASK = (1 << 64) - 1


class RangeDecoder:
    def __init__(self, words):
        self.words = iter(words)
        self.lower, self.range = 0, MASK
        self.point = self.word() << 32 | self.word()

    def word(self):
        return int(next(self.words, 0))

    def symbol(self, left_ends):
        """``left_ends`` has one entry more than there are symbols."""
        scale = self.range >> 24
        quantile = ((self.point - self.lower) & MASK) // scale
        assert quantile < 1 << 24
        i = max(i for i, left in enumerate(left_ends[:-1]) if left <= quantile)
        self.lower = (self.lower + scale * left_ends[i]) & MASK
        self.range = scale * (left_ends[i + 1] - left_ends[i])
        if self.range < 1 << 32:
            self.lower = self.lower << 32 & MASK
            self.range <<= 32
            self.point = self.point << 32 & MASK | self.word()
        return i


def left_ends(probabilities):
    float32 = np.float32
    total = float32(0)
    for p in probabilities:
        total = float32(total + p)
    scale = float32(float32((1 << 24) - len(probabilities)) / total)
    before, ends = float32(0), []
    for i, p in enumerate(probabilities):
        ends.append(int(float32(before * scale)) + i)
        before = float32(before + p)
    return [*ends, 1 << 24]


class Model:
    def __init__(self, low, high, typical, contexts):
        self.low, self.symbols, self.contexts = low, range(high - low + 1), contexts
        self.counts = [[0] * len(self.symbols) for _ in range(contexts)]
        self.total, self.next_update = 0, 64
        r = (typical + 1) / (typical + 17)
        powers = [r]
        while len(powers) <= max(abs(low), abs(high)):
            powers.append(powers[-1] * r)
        raw = [powers[abs(low + i)] for i in self.symbols]
        everything = 0.0
        for value in raw:
            everything += value
        self.q = [value / everything for value in raw]
        self.compute()

    def compute(self):
        pooled = [sum(context[i] for context in self.counts) for i in self.symbols]
        g = [(pooled[i] + 32.0 * self.q[i]) / (self.total + 32.0) for i in self.symbols]
        self.ends = {}
        self.p = [
            [np.float32((context[i] + 24.0 * g[i]) / (sum(context) + 24.0)) for i in self.symbols]
            for context in self.counts
        ]

    def of(self, context):
        if context not in self.ends:
            self.ends[context] = left_ends(self.p[context])
        return self.ends[context]

    def learn(self, row):
        for context, integer in row:
            self.counts[context][integer - self.low] += 1
        self.total += len(row)
        if self.total >= self.next_update:
            self.compute()
            self.next_update = self.total + max(64, self.total // 16)


def rows(shape, neighbours):
    if not neighbours:
        start, size = 0, int(np.prod(shape))
        places = list(np.ndindex(*shape))
        while start < size:
            stop = min(size, start + max(64, start // 8))
            yield places[start:stop]
            start = stop
        return
    times, channels, height, width = shape
    for t in range(times):
        for y in range(height):
            yield [(t, c, y, x) for c in range(channels) for x in range(width)]


def decode(stream):
    """Bytes to a dict of float32 arrays."""
    length = int.from_bytes(stream[:4], "little")
    table = json.loads(zlib.decompress(stream[4 : 4 + length]))
    at = 4 + length
    result = {}
    for name, shape, _, steps, *_ in table:
        if not steps:
            size = int(np.prod(shape))
            result[name] = np.frombuffer(stream, "<f2", size, at).astype(np.float32).reshape(shape)
            at += 2 * size
    coder = RangeDecoder(np.frombuffer(stream, "<u4", -1, at) if at < len(stream) else [])
    for name, shape, _, steps, low, high, typical, neighbours in table:
        if not steps:
            continue
        integers = np.full(shape, low, np.int64)
        if low < high:
            model = Model(low, high, typical, 49 if neighbours else 1)
            unit = max(16, 2 * typical // 3)
            for places in rows(shape, neighbours):
                row = []
                for place in places:
                    context = 0
                    if neighbours:
                        t, c, y, x = place
                        pair = (integers[t - 1, c, y, x] if t else 0, integers[t, c, y - 1, x] if y else 0)
                        a, b = (min(max((32 * int(v) + unit) // (2 * unit), -3), 3) + 3 for v in pair)
                        context = 7 * a + b
                    integer = low + coder.symbol(model.of(context))
                    integers[place] = integer
                    row.append((context, integer))
                model.learn(row)
        step = np.array(steps, np.float32)
        if len(step) > 1:
            step = step.reshape(1, -1, *[1] * (len(shape) - 2))
        result[name] = integers.astype(np.float32) * step
    return result


def embedded_frames(gaps):
    """The integers of the table ``:embedded`` to frame numbers."""
    frames, frame = [], 0
    for gap in gaps:
        frame += int(gap)
        if gap < 4095:
            frames.append(frame)
    return frames


def segments(blob):
    """A file of version 3: for each segment its tensors, shared ones included, its embedded frames and its pace."""
    (length,) = np.frombuffer(blob, "<u8", 1)
    table = json.loads(blob[8 : 8 + int(length)])
    metadata = table.pop("__metadata__")
    assert metadata["format_version"] == "3"
    header = json.loads(metadata["header"])

    def stream(prefix):
        if prefix + "weights" not in table:
            return {}
        start, end = table[prefix + "weights"]["data_offsets"]
        return decode(blob[8 + int(length) + start : 8 + int(length) + end])

    shared = stream(header["shared"]) if "shared" in header else {}
    for segment in header["segments"]:
        own = stream(segment["prefix"])
        gaps, pace = own.pop(":embedded", []), own.pop(":pace", [])
        yield {**own, **shared}, embedded_frames(gaps), [int(step) for step in pace]
