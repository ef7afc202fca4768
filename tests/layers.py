# SPDX-License-Identifier: MIT
"""Containers with a base layer for tests, and what a hostile writer makes of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from containers import everything, write

import nervcodec
from nervcodec import metrics
from nervcodec.base import codec
from nervcodec.evaluation.compare import open_original
from nervcodec.formats.container import checksum
from nervcodec.formats.header import StoredTensor


def rewritten(source: Path, target: Path, streams=None, **changes) -> Path:
    """The file with other streams, by number of the segment, or another header; all checksums are right."""
    header, arrays = everything(source)
    arrays |= {f"{number}/base": np.frombuffer(data, np.uint8) for number, data in (streams or {}).items()}
    tensors = {name: StoredTensor(checksum(array), header.tensors[name].code) for name, array in arrays.items()}
    return write(target, replace(header, tensors=tensors, **changes), arrays)


def stream_of(path: Path, number: int = 0) -> bytes:
    """A segment's base stream."""
    return everything(path)[1][f"{number}/base"].tobytes()


def qualities(path: Path, clip: Path) -> np.ndarray:
    """PSNR of each frame of a file, opened afresh, against the clip it was made from."""
    with nervcodec.open(path, "cpu", "fp32") as video:
        originals = open_original(video, clip).frames()
        return np.array([metrics.psnr_db(one, other) for one, other in zip(video, originals, strict=True)])


class Counted:
    """Counts the frames that are read from decoders, and the decoders."""

    def __init__(self, monkeypatch):
        self.frames = self.decoders = 0
        self._decode = codec.decode
        monkeypatch.setattr(codec, "decode", self._counted)

    def _counted(self, *arguments):
        self.decoders += 1
        frames = self._decode(*arguments)
        try:
            for frame in frames:
                self.frames += 1
                yield frame
        finally:
            frames.close()

    def since(self) -> tuple[int, int]:
        """(decoders, frames) since the last question."""
        found, self.frames, self.decoders = (self.decoders, self.frames), 0, 0
        return found
