# SPDX-License-Identifier: MIT
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from containers import everything, make, tampered, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from nervcodec.errors import ContainerError, OutdatedContainerError, TooNewError
from nervcodec.formats import bitstream, container
from nervcodec.formats.container import Container
from nervcodec.formats.fields import from_json, to_json
from nervcodec.formats.header import STREAM, Header, StoredTensor, TensorCode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "a.nerv", *make())


def test_round_trip(path):
    header, arrays = make()
    arrays["0/weights"] = bitstream.encode({name: arrays[f"0/{name}"].astype(np.float32) for name in ("a", "b")})
    weights = StoredTensor(container.checksum(arrays["0/weights"]), TensorCode(STREAM))
    header = replace(header, tensors={**header.tensors, "0/weights": weights})
    write(path, header, arrays)
    found, stored = everything(path)
    assert found == header == container.read_header(path)
    assert stored.keys() == arrays.keys()
    assert all(np.array_equal(stored[name], arrays[name]) for name in arrays)
    with Container.open(path) as opened:
        assert opened.network("0/").decode()["a"].dtype == np.float32
        assert opened.network("0/").table() == {name: ((20, 30), 1200) for name in ("a", "b")}
        assert (opened.nbytes("0/a"), opened.nbytes("0/c")) == (1200, 0)
        assert opened.size_bytes == path.stat().st_size


def test_it_is_a_safetensors_file(path):
    with safe_open(path, framework="numpy") as file:
        assert file.metadata()["format"] == "nerv"
        assert file.metadata()["format_version"] == "3"
        assert set(file.keys()) == {"0/a", "0/b"}


def test_every_truncation_is_refused(path):
    blob = path.read_bytes()
    (length,) = struct.unpack_from("<Q", blob)
    cut = path.with_name("cut.nerv")
    offsets = {*range(0, 8 + length, 7), *range(0, 24), 8 + length - 1, 8 + length, 8 + length + 1, len(blob) - 1}
    for size in sorted(offsets):
        cut.write_bytes(blob[:size])
        with pytest.raises(ContainerError):
            Container.open(cut)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_never_passes_as_other_content(path, data):
    blob = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(blob) - 1))
    blob[position] ^= 1 << data.draw(st.integers(0, 7))
    flipped = path.with_name("flipped.nerv")
    flipped.write_bytes(blob)
    header, arrays = everything(path)
    try:
        found, stored = everything(flipped)
    except ContainerError:
        return
    # Only white space and the like may differ: what is read has to be the same.
    assert found == header
    assert all(np.array_equal(stored[n], arrays[n]) for n in arrays)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blob=st.binary(max_size=200))
def test_noise_is_refused(tmp_path, blob):
    path = tmp_path / "noise.nerv"
    path.write_bytes(blob)
    with pytest.raises(ContainerError):
        Container.open(path)


def test_foreign_and_future_files(path, tmp_path):
    from safetensors.numpy import save_file

    foreign = tmp_path / "foreign.nerv"
    save_file({"x": np.zeros(3)}, foreign)
    with pytest.raises(ContainerError, match="another kind"):
        Container.open(foreign)
    save_file({"x": np.zeros(3)}, foreign, metadata={"format": "nerv", "format_version": "4", "header": "{}"})
    with pytest.raises(TooNewError, match="newer than this nervcodec"):
        Container.open(foreign)
    with pytest.raises(ContainerError, match="cannot be read"):
        Container.open(tmp_path / "none.nerv")


@pytest.mark.parametrize("version", [1, 2])
def test_earlier_versions_are_refused_in_one_line(path, version):
    path.write_bytes(path.read_bytes().replace(b'"format_version":"3"', f'"format_version":"{version}"'.encode()))
    with pytest.raises(OutdatedContainerError) as caught:
        Container.open(path)
    assert str(caught.value) == f"{path}: written by an earlier nervcodec; encode the source again"
    assert container.is_container(path)


ABSURD = [
    ("frame count", lambda h: h["video"].update(frame_count=10**12)),
    ("frame size", lambda h: h["video"].update(width=10**9)),
    ("too many pixels", lambda h: h["video"].update(width=60_000, height=60_000)),
    ("frame rate", lambda h: h["video"].update(frame_rate=[1, 0])),
    ("frame rate", lambda h: h["video"].update(frame_rate=[10**9, 1])),
    ("duration", lambda h: h["video"].update(duration_s=-1)),
    ("width must be of type int", lambda h: h["video"].update(width="64")),
    ("width must be of type int", lambda h: h["video"].update(width=True)),
    ("folders", lambda h: h["video"].update(source_name="../../etc/passwd")),
    ("control characters", lambda h: h["video"].update(source_name="a\x1b[2Jb")),
    ("longer than", lambda h: h["video"].update(source_name="a" * 10**6)),
    ("unknown entries", lambda h: h["video"].update(colour="blue")),
    ("missing", lambda h: h["video"].pop("width")),
    ("patch grid", lambda h: h.update(patch_grid=[10**6, 10**6])),
    ("finer than the pixels", lambda h: h.update(patch_grid=[60, 60])),
    ("add up", lambda h: h["segments"][0].update(frame_count=9)),
    ("without a gap", lambda h: h["segments"][0].update(first_frame=1)),
    ("number of segments", lambda h: h.update(segments=[])),
    ("unknown entries: 'embedded_frames'", lambda h: h["segments"][0].update(embedded_frames=[0, 5])),
    ("unknown tensor codec 'rans'; .* newer", lambda h: h["tensors"]["0/a"].update(code={"codec": "rans"})),
    ("no segment", lambda h: h["tensors"].update({"x/a": h["tensors"].pop("0/a")})),
    ("only slash", lambda h: h["segments"][0].update(prefix="")),
    ("disagree about tensor", lambda h: h["tensors"].pop("0/a")),
    ("must be an object", lambda h: [1, 2]),
    ("must be an object", lambda h: h.update(video=None)),
    ("not finite", lambda h: h["fit"].update(psnr_db=float("nan"))),
]


@pytest.mark.parametrize(("message", "change"), ABSURD, ids=[f"{i}-{m}" for i, (m, _) in enumerate(ABSURD)])
def test_absurd_headers_are_refused(path, message, change):
    with pytest.raises(ContainerError, match=message):
        Container.open(tampered(path, change))


LIMITED = """
import re, resource, sys
from pathlib import Path
from nervcodec.errors import ContainerError
from nervcodec.formats.container import Container
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))  # for all of them; more ends the process
for file in sorted(Path(sys.argv[1]).iterdir()):
    try:
        Container.open(file)
        print("READ", file.name)
    except ContainerError as error:
        assert str(error).startswith(str(file))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_hostile_headers_take_little_time_and_less_than_200_mb(path, tmp_path):
    folder = tmp_path / "hostile"
    folder.mkdir()
    for number, (_, change) in enumerate(ABSURD):
        (folder / f"{number}.nerv").write_bytes(tampered(path, change).read_bytes())
    long = {"x" * 1000 + str(i): "y" * 1000 for i in range(10_000)}  # 20 MB of names
    (folder / "names.nerv").write_bytes(tampered(path, lambda h: h["video"].update(long)).read_bytes())
    (folder / "deep.nerv").write_bytes(tampered(path, lambda h: json.loads("[" * 900 + "]" * 900)).read_bytes())
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder)], capture_output=True, text=True, check=True, timeout=120
    )
    assert "READ" not in result.stdout
    assert int(result.stdout) < 200_000


def test_deep_nesting_is_refused(path):
    deep = tampered(path, lambda h: json.loads("[" * 900 + "]" * 900))
    with pytest.raises(ContainerError):
        Container.open(deep)


TABLES = [
    '"0/a": {"dtype": "F16", "shape": [20, 30], "data_offsets": [0, 1200]}',  # leaves bytes over
    '"0/a": {"dtype": "F16", "shape": [20, 60], "data_offsets": [0, 2400]}, "0/a": {}',  # twice
    '"0/a": {"dtype": "F16", "shape": [20, 60], "data_offsets": [0, 2402]}',  # not its shape
    '"0/a": {"dtype": "F99", "shape": [20, 60], "data_offsets": [0, 2400]}',
    '"0/a": {"dtype": ["F16"], "shape": [20, 60], "data_offsets": [0, 2400]}',
    '"0/a": {"dtype": "F16", "shape": [20, 60], "data_offsets": [0, 2400, 0]}',
    '"0/a": {"dtype": "F16", "shape": [-20, -60], "data_offsets": [0, 2400]}',
    '"0/a": {"dtype": "F16", "shape": [20.0, 60], "data_offsets": [0, 2400]}',
    '"0/a": {"dtype": "F16", "shape": [20, 60], "data_offsets": [-2400, 0]}',
    '"0/a": {"dtype": "F16", "shape": [true, 1200], "data_offsets": [0, 2400]}',
    '"0/a": {"dtype": "F16", "shape": [20, 60], "data_offsets": [0, 2400]}, '
    '"0/b": {"dtype": "F16", "shape": [20, 30], "data_offsets": [1200, 2400]}',  # overlap
    '"0/a": {"dtype": "F16", "shape": [20, 30], "data_offsets": [0, 1200]}, '
    '"0/b": {"dtype": "U8", "shape": [1198], "data_offsets": [1202, 2400]}',  # a gap
    '"0/a": {"dtype": "F16", "shape": [20, 60], "data_offsets": [0, 2400]}, '
    '"0/b": {"dtype": "U8", "shape": [0, 1000000000000000000000], "data_offsets": [2400, 2400]}',
    '"0/a": {"dtype": "U8", "shape": [' + "1, " * 100 + '2400], "data_offsets": [0, 2400]}',
    '"0/a": null',
    '"0/a": {"dtype": "F16", "shape": [NaN], "data_offsets": [0, Infinity]}',
    '"0/a": {"dtype": "F16", "shape": [' + "9" * 5000 + '], "data_offsets": [0, 2400]}',
    '"\xff": 0',
]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("metadata", ["real", '{"format": 1}', "null", "[]", '{"format": "nerv", "header": "\\ud800"}'])
def test_odd_tables_are_refused(path, table, metadata):
    blob = path.read_bytes()
    (length,) = struct.unpack_from("<Q", blob)
    metadata = json.dumps(json.loads(blob[8 : 8 + length])["__metadata__"]) if metadata == "real" else metadata
    text = f'{{"__metadata__": {metadata}, {table}}}'.encode("latin-1")
    assert len(blob) - 8 - length == 2400
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob[8 + length :])
    for read in (Container.open, container.fingerprint):
        with pytest.raises(ContainerError, match=r"damaged|cut short"):
            read(path)


def test_a_huge_header_length_is_refused(tmp_path):
    path = tmp_path / "long.nerv"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(ContainerError):
        Container.open(path)


def test_header_survives_json():
    header, _ = make()
    assert from_json(Header, json.loads(json.dumps(to_json(header)))) == header


def test_swapped_tensors_are_refused(path):
    path.write_bytes(path.read_bytes().replace(b'"0/a":{"dtype"', b'"0/x":{"dtype"'))
    path.write_bytes(path.read_bytes().replace(b'"0/b":{"dtype"', b'"0/a":{"dtype"'))
    path.write_bytes(path.read_bytes().replace(b'"0/x":{"dtype"', b'"0/b":{"dtype"'))
    with Container.open(path) as opened:
        for name in ("0/a", "0/b"):
            with pytest.raises(ContainerError, match=rf"a\.nerv: tensor {name} is damaged \(checksum differs\)"):
                opened.array(name)


def test_frame_times_must_fit(tmp_path):
    header, arrays = make(variable_frame_rate=True)
    for number, times in enumerate((None, np.arange(9.0), np.full(10, np.nan), -np.arange(10.0))):
        target = tmp_path / f"{number}.nerv"
        if times is not None:
            arrays["frame_times"] = times
            header = replace(header, tensors={**header.tensors, "frame_times": StoredTensor(container.checksum(times))})
        write(target, header, arrays)
        with Container.open(target) as opened:
            for check in (opened.frame_times, opened.verify):
                with pytest.raises(ContainerError, match="frame times"):
                    check()
