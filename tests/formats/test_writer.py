# SPDX-License-Identifier: MIT
"""The writer of containers."""

import json
import random
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from containers import everything, make, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save as safetensors_save

from nervcodec.errors import ContainerError
from nervcodec.formats.arrays import TYPES
from nervcodec.formats.container import Writer

try:
    import resource
except ImportError:  # not POSIX
    resource = None


def written(target: Path, arrays: dict[str, np.ndarray]) -> bytes:
    header, _ = make()
    with Writer(target) as writer:
        for name, array in arrays.items():
            writer.add(name, array)
        size = writer.finish(replace(header, tensors=writer.tensors))
    assert size == target.stat().st_size
    return target.read_bytes()


arrays_of_any_kind = hnp.arrays(
    st.sampled_from(sorted(TYPES.values())), hnp.array_shapes(min_dims=0, min_side=0, max_side=4)
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text("ab\u6c34\U0001f600", max_size=4).map("0/".__add__), arrays_of_any_kind, max_size=6))
def test_the_bytes_are_those_of_safetensors_with_its_metadata_in_order(tmp_path, arrays):
    blob = written(tmp_path / "a.nerv", arrays)
    (length,) = struct.unpack_from("<Q", blob)
    metadata = json.loads(blob[8 : 8 + length])["__metadata__"]
    assert list(metadata) == ["format", "format_version", "header", "header_checksum"]
    theirs = safetensors_save(arrays, metadata=metadata)
    (their_length,) = struct.unpack_from("<Q", theirs)
    table = json.loads(theirs[8 : 8 + their_length])
    table["__metadata__"] = metadata
    head = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    assert blob == struct.pack("<Q", len(head)) + head + theirs[8 + their_length :]
    _, stored = everything(tmp_path / "a.nerv")
    for name, array in arrays.items():
        assert (stored[name].dtype, stored[name].shape) == (array.dtype, array.shape)
        assert stored[name].tobytes() == array.tobytes()


def test_same_content_same_bytes(tmp_path):
    _, arrays = make()
    arrays["frame_times"] = np.arange(10.0)
    found = set()
    for _ in range(6):
        names = random.sample(sorted(arrays), len(arrays))
        found.add(written(tmp_path / "a.nerv", {name: arrays[name] for name in names}))
    assert len(found) == 1


def test_strides_and_byte_order_do_not_change_the_bytes(tmp_path):
    plain = np.arange(60, dtype="<f4").reshape(5, 12)
    odd = np.asfortranarray(plain.astype(">f4"))
    assert written(tmp_path / "a.nerv", {"0/a": plain}) == written(tmp_path / "b.nerv", {"0/a": odd})


def test_arrays_that_cannot_be_written_are_refused(tmp_path):
    header, arrays = make()
    with Writer(tmp_path / "a.nerv") as writer:
        writer.add("0/a", arrays["0/a"])
        with pytest.raises(ContainerError, match="two arrays are called 0/a"):
            writer.add("0/a", arrays["0/a"])
        with pytest.raises(ContainerError, match="complex64"):
            writer.add("0/b", np.zeros(3, np.complex64))
        with pytest.raises(ContainerError, match="do not name the same tensors"):
            writer.finish(header)
    with pytest.raises(ContainerError, match=r"none/a\.nerv: cannot be written: No such file or directory"):
        Writer(tmp_path / "none" / "a.nerv")
    assert list(tmp_path.iterdir()) == []


def test_no_file_before_the_end_or_after_an_interrupt(tmp_path):
    _, arrays = make()

    def interrupted():
        with Writer(tmp_path / "a.nerv") as writer:
            writer.add("0/a", arrays["0/a"])
            assert list(tmp_path.iterdir()) == []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(resource is None, reason="needs a limit on the size of files")
@pytest.mark.parametrize("limit", [0, 1_000, 2_500])  # full at once, at the second array, in the end
def test_nothing_is_left_when_the_disk_is_full(tmp_path, limit):
    target = tmp_path / "a.nerv"
    target.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(ContainerError, match=r"a\.nerv: cannot be written: File too large"):
            write(target, *make())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


LARGE = """
import re, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from containers import make
from nervcodec.formats.container import Writer

def peak_kb():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def arrays():
    rng = np.random.default_rng(0)
    for number in range(30):
        yield f"0/{number}", rng.integers(0, 256, 10_000_000, dtype=np.uint8)

header, _ = make()
before = peak_kb()
with Writer(Path(sys.argv[2])) as writer:
    for name, array in arrays():
        writer.add(name, array)
    print(writer.finish(replace(header, tensors=writer.tensors)))
print(peak_kb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_300_mb_go_through_little_memory(tmp_path):
    command = [sys.executable, "-c", LARGE, str(Path(__file__).parents[1]), str(tmp_path / "a.nerv")]
    size, growth_kb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(size) == (tmp_path / "a.nerv").stat().st_size > 300_000_000
    assert int(growth_kb) < 50_000
    (tmp_path / "a.nerv").unlink()
