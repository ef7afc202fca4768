# SPDX-License-Identifier: MIT
"""Small containers for tests, and what a hostile writer makes of them."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from nervcodec.formats import bitstream, container
from nervcodec.formats.container import Container, Writer
from nervcodec.formats.header import (
    STREAM,
    FitRecord,
    Header,
    Segment,
    SemanticHeader,
    StoredTensor,
    TensorCode,
    VideoHeader,
)


def damaged(data, stream: np.ndarray) -> np.ndarray:
    """A stream cut short and written over, as hypothesis draws it."""
    stream = stream.copy()
    if data.draw(st.booleans()):
        stream = stream[: data.draw(st.integers(0, stream.size))]
    for _ in range(data.draw(st.integers(1, 4))):
        if stream.size:
            stream[data.draw(st.integers(0, stream.size - 1))] = data.draw(st.integers(0, 255))
    return stream


def make(frames: int = 10, **video) -> tuple[Header, dict[str, np.ndarray]]:
    """A header and arrays that belong together."""
    rng = np.random.default_rng(0)
    arrays, tensors = {}, {}
    for name in ("0/a", "0/b"):
        arrays[name] = rng.normal(size=(20, 30)).astype(np.float16)
        tensors[name] = StoredTensor(container.checksum(arrays[name]))
    facts = {"width": 64, "height": 48, "frame_rate": (30000, 1001), "frame_count": frames, "duration_s": 0.4}
    header = Header(
        video=VideoHeader(**{**facts, "source_name": "kitchen sink \u6c34.mp4", **video}),
        patch_grid=(2, 4),
        segments=(Segment(0, frames, {"kind": "grid"}, "0/"),),
        tensors=tensors,
        fit=FitRecord(30.5, 12.0, 100),
        tool="nervcodec test",
        semantic=SemanticHeader("offline", 384, 5.0),
    )
    return header, arrays


def as_streams(header: Header, arrays: dict[str, np.ndarray]) -> tuple[Header, dict[str, np.ndarray]]:
    """The same with each array as a stream of weights that holds one tensor of its name."""
    streams = {n: bitstream.encode({n.partition("/")[2]: a.astype(np.float32)}) for n, a in arrays.items()}
    tensors = {n: StoredTensor(container.checksum(stream), TensorCode(STREAM)) for n, stream in streams.items()}
    return replace(header, tensors=tensors), streams


def write(target: Path, header: Header, arrays: dict[str, np.ndarray]) -> Path:
    with Writer(target) as writer:
        for name, array in arrays.items():
            writer.add(name, array, header.tensors[name].code)
        assert writer.finish(header) == target.stat().st_size
    return target


def everything(path: Path) -> tuple[Header, dict[str, np.ndarray]]:
    """All that is in a file, checked."""
    with Container.open(path) as opened:
        opened.verify()
        return opened.header, {name: opened.array(name) for name in opened.header.tensors}


def tampered(path: Path, change) -> Path:
    """Rewrite the header through ``change(dict)`` with a checksum that fits: what a hostile writer would do."""
    blob = path.read_bytes()
    (length,) = struct.unpack_from("<Q", blob)
    table = json.loads(blob[8 : 8 + length])
    header = json.loads(table["__metadata__"]["header"])
    result = change(header)
    text = json.dumps(result if isinstance(result, list) else header)
    table["__metadata__"]["header"] = text
    table["__metadata__"]["header_checksum"] = container.digest(text.encode())
    new = json.dumps(table, separators=(",", ":")).encode()
    new += b" " * (-len(new) % 8)
    out = path.with_name("tampered.nerv")
    out.write_bytes(struct.pack("<Q", len(new)) + new + blob[8 + length :])
    return out
