# SPDX-License-Identifier: MIT
"""Opening a container reads its header only; arrays are read and checked on access."""

import gc
import json
import os
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from containers import as_streams, make, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nervcodec
from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container, Writer, checksum
from nervcodec.formats.header import AUDIO, StoredTensor
from nervcodec.search.render import VideoCache
from nervcodec.search.scores import open_embeddings

GOLDEN = Path(__file__).parents[1] / "golden"
GIGABYTE = 1 << 30
linux = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="reads Linux's accounts")


@pytest.fixture
def read_counts(monkeypatch):
    """Bytes read of container files, by the pieces that they were read in."""
    if not hasattr(os, "pread"):
        pytest.skip("files are read otherwise here")
    counts = []
    original = os.pread

    def counted(*arguments):
        piece = original(*arguments)
        counts.append(len(piece))
        return piece

    monkeypatch.setattr(os, "pread", counted)
    return counts


def with_sound(target: Path, source: Path, size: int) -> Path:
    """A copy of a container with a sound of zeros of that size, on a disk that has no room for it."""
    with Container.open(source) as opened, Writer(target) as writer:
        for name, stored in opened.header.tensors.items():
            writer.add(name, opened.array(name), stored.code)
        writer.add(AUDIO, np.zeros(1, np.uint8))
        writer.finish(replace(opened.header, tensors=writer.tensors))
    blob = target.read_bytes()
    (length,) = struct.unpack_from("<Q", blob)
    table = json.loads(blob[8 : 8 + length])
    assert list(table)[-1] == AUDIO  # what comes last may grow
    begin, _ = table[AUDIO]["data_offsets"]
    table[AUDIO].update(shape=[size], data_offsets=[begin, begin + size])
    head = json.dumps(table, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    target.write_bytes(struct.pack("<Q", len(head)) + head + blob[8 + length : -1])
    os.truncate(target, target.stat().st_size + size)
    return target


OPENING = """
import re, sys, time
from pathlib import Path
import numpy as np
import nervcodec.decoding, nervcodec.formats.container

def read_bytes():
    return int(re.search(r"rchar: (\\d+)", Path("/proc/self/io").read_text())[1])

def peak_kb():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

nervcodec.open(sys.argv[1], "cpu", "fp32")[3]  # loads what is loaded when it is first used
before, peak = read_bytes(), peak_kb()
start = time.perf_counter()
video = nervcodec.open(sys.argv[2], "cpu", "fp32")
print(1000 * (time.perf_counter() - start), read_bytes() - before, peak_kb() - peak)
video[3]
print(read_bytes() - before, peak_kb() - peak)
"""


@linux
def test_a_gigabyte_opens_by_its_header_alone(tmp_path):
    big = with_sound(tmp_path / "big.nerv", GOLDEN / "version3_grid.nerv", GIGABYTE)
    assert big.stat().st_size > GIGABYTE
    small = (GOLDEN / "version3_grid.nerv").stat().st_size
    command = [sys.executable, "-c", OPENING, str(GOLDEN / "version3_grid.nerv"), str(big)]
    opened, decoded = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120
    ).stdout.splitlines()
    _, bytes_read, growth_kb = map(float, opened.split())
    assert bytes_read < 20_000
    assert growth_kb < 100_000
    bytes_read, growth_kb = map(float, decoded.split())
    assert bytes_read < 20_000 + 2 * small
    assert growth_kb < 200_000


@linux
def test_verifying_holds_no_array_in_memory(tmp_path, run):
    big = with_sound(tmp_path / "big.nerv", GOLDEN / "version3_grid.nerv", GIGABYTE // 12)
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom nervcodec.formats.container import Container\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = peak()\nopened = Container.open(sys.argv[1])\n"
        "try:\n    opened.verify()\nexcept Exception as error:\n    print(error)\nprint(peak() - before)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(big)], capture_output=True, text=True, check=True)
    refused, growth_kb = result.stdout.splitlines()
    assert refused.endswith("tensor audio is damaged (checksum differs)")
    assert int(growth_kb) < 20_000
    assert run("verify", big).stderr == f"nervcodec: {big}: tensor audio is damaged (checksum differs)\n"


def test_only_requested_arrays_are_read(tmp_path, read_counts):
    header, arrays = make()
    path = write(tmp_path / "a.nerv", header, arrays)
    with Container.open(path) as opened:
        assert sum(read_counts) < path.stat().st_size - 2400 + 20
        for _ in range(2):  # nothing is kept
            read_counts.clear()
            opened.array("0/b")
            assert read_counts == [1200]
        opened.nbytes("0/a")
        opened.frame_times()
        assert read_counts == [1200]


def test_a_segment_is_read_once_for_its_frames(small_nerv, read_counts):
    with Container.open(small_nerv) as opened:
        *sizes, shared = [opened.nbytes(f"{owner}/weights") for owner in (0, 1, "shared")]
    read_counts.clear()
    with nervcodec.open(small_nerv, "cpu", "fp32") as video:
        at_open = sum(read_counts)
        assert at_open < small_nerv.stat().st_size - sum(sizes) - shared + 20
        video[30:40]
        assert sum(read_counts) == at_open + shared + sizes[1]
        video.embeddings([30])  # the head alone, of which nothing is kept yet
        assert sum(read_counts) == at_open + shared + 2 * sizes[1]
        video[31]
        assert sum(read_counts) == at_open + shared + 2 * sizes[1]
        video[0]  # what both share is there already
        assert sum(read_counts) == at_open + shared + 2 * sizes[1] + sizes[0]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_array_is_refused_and_the_others_are_not(tmp_path, data):
    header, arrays = as_streams(*make())
    times = np.arange(10.0)
    header = replace(
        header,
        video=replace(header.video, variable_frame_rate=True),
        tensors={**header.tensors, "frame_times": StoredTensor(checksum(times))},
    )
    arrays["frame_times"] = times
    path = write(tmp_path / "a.nerv", header, arrays)
    blob = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", blob)
    table = json.loads(blob[8 : 8 + length])
    damaged = data.draw(st.sampled_from(sorted(arrays)))
    begin, end = table[damaged]["data_offsets"]
    blob[8 + length + data.draw(st.integers(begin, end - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(blob)
    with Container.open(path) as opened:
        for name, array in arrays.items():
            if name == damaged:
                with pytest.raises(ContainerError, match=rf"a\.nerv: tensor {name} is damaged \(checksum differs\)"):
                    opened.array(name)
            else:
                assert np.array_equal(opened.array(name), array)
        requested = opened.frame_times if damaged == "frame_times" else lambda: opened.network("0/").decode()
        for ask in (requested, opened.verify):
            with pytest.raises(ContainerError, match=f"tensor {damaged} is damaged"):
                ask()


@pytest.mark.slow
def test_a_damaged_segment_leaves_the_other_readable(small_nerv, tmp_path, run):
    blob = bytearray(small_nerv.read_bytes())
    (length,) = struct.unpack_from("<Q", blob)
    begin, end = json.loads(blob[8 : 8 + length])["1/weights"]["data_offsets"]
    blob[8 + length + (begin + end) // 2] ^= 1
    damaged = tmp_path / "damaged.nerv"
    damaged.write_bytes(blob)
    complaint = f"{damaged}: tensor 1/weights is damaged (checksum differs)"
    with nervcodec.open(damaged, "cpu", "fp32") as video:
        with nervcodec.open(small_nerv, "cpu", "fp32") as whole:
            assert np.array_equal(video[3], whole[3])
        for ask in (lambda: video[30], lambda: video.embeddings([30]), lambda: video.search("a bicycle")):
            with pytest.raises(ContainerError) as caught:
                ask()
            assert str(caught.value) == complaint
    for command in (["info"], ["verify"], ["decode", "-o", "a.mp4"]):
        result = run(*command, damaged)
        assert (result.returncode, result.stderr.splitlines()[-1]) == (1, f"nervcodec: {complaint}")
    result = run("search", "a bicycle", damaged, small_nerv)
    assert (result.returncode, result.stderr) == (0, f"nervcodec: skipped: {complaint}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.nerv"]


def test_changes_of_a_file_while_it_is_open(tmp_path):
    path = write(tmp_path / "a.nerv", *make())
    _, arrays = make()
    with Container.open(path) as opened:
        write(path, *make(frames=20))  # renamed into place: another file
        assert Container.open(path).header.video.frame_count == 20
        assert opened.header.video.frame_count == 10
        assert np.array_equal(opened.array("0/b"), arrays["0/b"])
    with Container.open(path) as opened:
        os.truncate(path, path.stat().st_size - 1)
        assert np.array_equal(opened.array("0/a"), arrays["0/a"])
        with pytest.raises(ContainerError, match=r"a\.nerv: was cut short while it was open"):
            opened.array("0/b")
    with Container.open(write(path, *make())) as opened:
        path.unlink()
        assert np.array_equal(opened.array("0/b"), arrays["0/b"])


def test_a_closed_container_is_refused(tmp_path):
    path = write(tmp_path / "a.nerv", *as_streams(*make()))
    with Container.open(path) as opened:
        opened.array("0/a")
    opened.close()  # twice is once
    for ask in (lambda: opened.array("0/a"), lambda: opened.network("0/").decode(), opened.verify):
        with pytest.raises(ContainerError, match=r"a\.nerv: is closed; open it again"):
            ask()
    assert opened.header.video.frame_count == 10


def test_threads_may_read_at_once(tmp_path):
    rng = np.random.default_rng(0)
    header, _ = make()
    arrays = {f"0/{n}": rng.integers(0, 256, 3_000_000 + n, dtype=np.uint8) for n in range(8)}
    with Writer(tmp_path / "a.nerv") as writer:
        for name, array in arrays.items():
            writer.add(name, array)
        writer.finish(replace(header, tensors=writer.tensors))
    with Container.open(tmp_path / "a.nerv") as opened, ThreadPoolExecutor(8) as pool:
        names = sorted(arrays) * 4
        for name, array in zip(names, pool.map(opened.array, names), strict=True):
            assert np.array_equal(array, arrays[name])


@linux
def test_file_handles_do_not_pile_up(tmp_path, monkeypatch):
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "cache"))
    source = GOLDEN / "version3_pe.nerv"
    copies = [Path(shutil.copy(source, tmp_path / f"{number}.nerv")) for number in range(6)]
    cut = tmp_path / "cut.nerv"
    cut.write_bytes(source.read_bytes()[:-1])
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    kept = [open_embeddings(copy, "cpu", "fp32") for copy in copies]
    for path in (cut, source):
        with pytest.raises(nervcodec.NervError):
            nervcodec.open(path, "cpu" if path == cut else "gpu")
    assert nervcodec.open(source, "cpu", "fp32")[0].shape  # closed by nobody
    gc.collect()
    with VideoCache("cpu", "fp32") as open_file:
        for copy in (*copies, *copies[::-1], *copies):
            assert open_file(copy)[14].shape
        assert len(os.listdir("/proc/self/fd")) == before + 4
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(kept) == 6
