# SPDX-License-Identifier: MIT
"""Coverage-guided fuzzing of everything that reads bytes from strangers.

    pip install 'nervcodec[fuzz]'
    python tests/fuzz/fuzz_container.py -max_total_time=600 corpus/

The first byte of an input chooses what the rest is: a whole file; a header put into a real file under checksums that
fit; a stream of weights; a table of weights before a real stream; an index of the search cache; tables of frames. Only
the errors that are promised may come out, within 10 seconds and 1 GB; libFuzzer (through atheris) saves any input that
breaks this.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nervcodec"]):
    from nervcodec.errors import ContainerError
    from nervcodec.formats import bitstream, container
    from nervcodec.formats.container import Container
    from nervcodec.formats.weights import read_tables
    from nervcodec.network.config import network_from_json
    from nervcodec.search.scores import QuantizedSegment, VideoEmbeddings

from fractions import Fraction

import numpy as np

from nervcodec.coordinates import PatchGrid
from nervcodec.network.stored import EmbeddingParts

GOLDEN = Path(__file__).parents[1] / "golden"
SEEDS = [GOLDEN / f"{name}.nerv" for name in ("version3_plain", "version3_grid", "version3_pe", "version3_shared")]
_FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
_FILE = _FOLDER / "a.nerv"
_REAL = SEEDS[1].read_bytes()
with Container.open(SEEDS[1]) as _seed:
    _STREAM = _seed.array("0/weights")


def whole_file(data: bytes) -> None:
    """Bytes as a file: header, arrays, weights."""
    _FILE.write_bytes(data)
    container.fingerprint(_FILE)
    with Container.open(_FILE) as opened:
        opened.verify()
        for segment in opened.header.segments:
            network_from_json(segment.network)
            opened.network(segment.prefix).table()
            opened.network(segment.prefix).decode()
            opened.embedded_frames(segment)
        opened.shared_weights()


def under_good_checksums(data: bytes) -> None:
    """A header that says what it likes, before the arrays of a real file."""
    (length,) = struct.unpack_from("<Q", _REAL)
    table = json.loads(_REAL[8 : 8 + length])
    text = data.decode("utf-8", "replace")
    table["__metadata__"].update(header=text, header_checksum=container.digest(text.encode("utf-8", "replace")))
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    whole_file(struct.pack("<Q", len(head)) + head + _REAL[8 + length :])


def stream(data: bytes) -> None:
    """Bytes as a stream of weights."""
    bitstream.decode(np.frombuffer(data, np.uint8))


def table_of_weights(data: bytes) -> None:
    """A table that says what it likes, before the words of a real stream."""
    length = int.from_bytes(_STREAM[:4].tobytes(), "little")
    table = zlib.compress(data)
    stream(len(table).to_bytes(4, "little") + table + _STREAM[4 + length :].tobytes())


def index(data: bytes) -> None:
    """Bytes as an entry of the search cache."""
    try:
        found = VideoEmbeddings.from_bytes(data, Path("a.nerv"))
    except ValueError:
        return
    for segment in found.segments:
        segment.scores(np.ones(len(segment.mean)))


def frame_tables(data: bytes) -> None:
    """Bytes as a stream that begins with tables, of a segment of 15 frames."""
    read_tables(np.frombuffer(data, np.uint8), 15)


TARGETS = (whole_file, under_good_checksums, stream, table_of_weights, index, frame_tables)


def one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    try:
        TARGETS[data[0] % len(TARGETS)](data[1:])
    except ContainerError:
        return


def seed(folder: Path) -> None:
    """Begin from real files, headers, streams and tables."""
    folder.mkdir(parents=True, exist_ok=True)
    length = int.from_bytes(_STREAM[:4].tobytes(), "little")
    seeds = [bytes([0]) + path.read_bytes() for path in SEEDS]
    seeds.append(bytes([1]) + json.dumps(_header_of(SEEDS[1])).encode())
    seeds.append(bytes([2]) + _STREAM.tobytes())
    seeds.append(bytes([5]) + _STREAM.tobytes())
    seeds.append(bytes([3]) + zlib.decompress(_STREAM[4 : 4 + length].tobytes()))
    parts = EmbeddingParts(
        np.ones((2, 4, 3)), np.ones((3, 8)), np.ones(8), *np.array([[0, 0, 1], [1, 1, 1]]), np.ones(3)
    )
    own = VideoEmbeddings(
        Path("a.nerv"),
        "a",
        "offline",
        PatchGrid(8, 8, 2, 2),
        3,
        Fraction(25),
        0.12,
        None,
        (QuantizedSegment.quantize(parts),),
    )
    seeds.append(bytes([4]) + own.to_bytes())
    for data in seeds:
        (folder / container.digest(data)).write_bytes(data)


def _header_of(path: Path) -> dict:
    blob = path.read_bytes()
    (length,) = struct.unpack_from("<Q", blob)
    return json.loads(json.loads(blob[8 : 8 + length])["__metadata__"]["header"])


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    for found in folders[:1]:
        seed(found)
    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=1000"], one)
    atheris.Fuzz()
