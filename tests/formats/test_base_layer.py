# SPDX-License-Identifier: MIT
"""The base layer in a header, and its arrays."""

import json
from dataclasses import replace

import numpy as np
import pytest
from containers import make, tampered, write

import nervcodec
from nervcodec.errors import ContainerError, OutdatedContainerError
from nervcodec.formats.container import Container, checksum
from nervcodec.formats.fields import from_json, to_json
from nervcodec.formats.header import BaseHeader, Header, PlaneFormat, Segment, StoredTensor
from nervcodec.network.config import Geometry, PatchConfig, network_to_json

FACTS = {
    "av1": BaseHeader("av1", "av1", PlaneFormat(10, matrix=1), 64, 48, 45, 36.8),
    "copy": BaseHeader("copy", "h264", PlaneFormat(), 63, 47),
}


def with_base(kind: str) -> tuple[Header, dict[str, np.ndarray]]:
    """Two segments without any weights, over a base layer."""
    header, _ = make(width=62, height=48)
    names = ["0/base", "1/base"] if kind == "av1" else ["base"]
    arrays = {name: np.frombuffer(f"stream {name}".encode(), np.uint8) for name in names}
    tensors = {name: StoredTensor(checksum(array)) for name, array in arrays.items()}
    network = network_to_json(PatchConfig(Geometry(6, 48, 62, 2, 4)))
    segments = Segment(0, 6, network, "0/"), Segment(6, 4, network, "1/")
    return replace(header, base=FACTS[kind], segments=segments, tensors=tensors, semantic=None), arrays


@pytest.mark.parametrize("kind", FACTS)
def test_a_file_with_a_base_layer_and_no_weights(tmp_path, kind):
    header, arrays = with_base(kind)
    path = write(tmp_path / "a.nerv", header, arrays)
    with Container.open(path) as opened:
        assert opened.header == header
        opened.verify()
        streams = [opened.base_stream(segment).tobytes() for segment in opened.header.segments]
        assert streams == ([b"stream 0/base", b"stream 1/base"] if kind == "av1" else [b"stream base"] * 2)
        assert (opened.network("0/").table(), opened.network("0/").decode()) == ({}, {})
        assert opened.embedded_frames(opened.header.segments[0]) == ()


def test_a_json_round_trip_leaves_defaults_out():
    for facts in FACTS.values():
        for compact in (False, True):
            assert from_json(BaseHeader, json.loads(json.dumps(to_json(facts, compact)))) == facts
    assert "full_range" not in to_json(FACTS["av1"], compact=True)["planes"]
    assert "crf" not in to_json(FACTS["copy"])


def damaged(path):
    """A stream that is not what was written."""
    path.write_bytes(path.read_bytes().replace(b"stream 1/base", b"stream 1/BASE"))
    return path


def test_a_damaged_stream_is_refused(tmp_path):
    path = damaged(write(tmp_path / "a.nerv", *with_base("av1")))
    with Container.open(path) as opened:
        assert opened.base_stream(opened.header.segments[0]).tobytes() == b"stream 0/base"
        with pytest.raises(ContainerError, match=rf"^{path}: tensor 1/base is damaged"):
            opened.base_stream(opened.header.segments[1])


IMPOSSIBLE = [
    ("kind of base layer 'vp9' is unknown", {"kind": "vp9"}),
    ("codec of the base layer is missing", {"codec": ""}),
    ("control characters", {"codec": "av1\n"}),
    ("size of coded frames", {"width": 0}),
    ("size of coded frames", {"height": 70_000}),
    ("too many pixels", {"width": 60_000, "height": 60_000}),
    ("does not hold its chroma samples", {"width": 65}),
    ("does not hold its chroma samples", {"height": 49}),
    ("crf of the base layer", {"crf": 70.25}),
    ("crf must be of type float", {"crf": "30"}),
    ("not finite", {"psnr_db": float("inf")}),
    ("not of the video's size", {"width": 60}),
    ("not of the video's size", {"height": 48 + 66}),
    ("depth of samples", {"planes": {"depth": 12}}),
    ("unknown entries: 'profile'", {"profile": 1}),
    ("has no array 'base'", {"kind": "copy"}),
]


@pytest.mark.parametrize(("message", "change"), IMPOSSIBLE, ids=[f"{i}-{m}" for i, (m, _) in enumerate(IMPOSSIBLE)])
def test_an_impossible_base_layer_is_refused(tmp_path, message, change):
    path = write(tmp_path / "a.nerv", *with_base("av1"))
    with pytest.raises(ContainerError, match=message):
        Container.open(tampered(path, lambda h: h["base"].update(change)))


def test_a_network_above_a_base_layer_is_of_an_earlier_version(tmp_path):
    path = write(tmp_path / "a.nerv", *with_base("av1"))
    above = {"kind": "refiner", "width": 8, "depth": 1, "expansion": 2, "geometry": [4, 48, 62, 2, 4]}
    path = tampered(path, lambda h: h["segments"][1].update(network=above))
    messages = rf"^{path}: written by an earlier nervcodec \(a network above a base layer\); encode the source again$"
    for read in (Container.open, nervcodec.open):
        with pytest.raises(OutdatedContainerError, match=messages):
            read(path)


ARRAYS = [
    ("av1", "of kind av1 has no array '1/base'", lambda h: h["tensors"].pop("1/base")),
    ("av1", "of kind av1 has no array 'base'", lambda h: h["tensors"].update(base={"checksum": "0" * 16})),
    ("copy", "of kind copy has no array '0/base'", lambda h: h["tensors"].update({"0/base": {"checksum": "0" * 16}})),
    ("copy", "of kind copy has no array 'base'", lambda h: h["tensors"].pop("base")),
    ("av1", "without a base layer has no array '0/base'", lambda h: h.pop("base")),
    ("copy", "without a base layer has no array 'base'", lambda h: h.pop("base")),
    ("av1", "holds no weights", lambda h: h["tensors"]["0/base"].update(code={"codec": "stream"})),
]


@pytest.mark.parametrize(("kind", "message", "change"), ARRAYS, ids=[f"{k}-{m}" for k, m, _ in ARRAYS])
def test_arrays_of_another_kind_of_base_layer_are_refused(tmp_path, kind, message, change):
    path = write(tmp_path / "a.nerv", *with_base(kind))
    with pytest.raises(ContainerError, match=message):
        Container.open(tampered(path, change))


def test_streams_are_rows_of_bytes(tmp_path):
    header, _ = with_base("copy")
    floats = np.zeros(3, np.float32)
    tensors = {"base": StoredTensor(checksum(floats))}
    with pytest.raises(ContainerError, match="tensor base: the stream of a base layer is a row of bytes"):
        Container.open(write(tmp_path / "a.nerv", replace(header, tensors=tensors), {"base": floats}))


@pytest.mark.parametrize("kind", FACTS)
def test_info_shows_the_base_layer(tmp_path, run, kind):
    header, arrays = with_base(kind)
    path = write(tmp_path / "a.nerv", header, arrays)
    shown = run("info", path).stdout
    expected = {"av1": "av1, 64x48, 10 bit 420, crf 45, 36.80 dB", "copy": "copy, h264, 63x47, 8 bit 420"}
    assert expected[kind] in shown
    assert "0 parameters" in shown
    facts = json.loads(run("info", path, "--json").stdout)
    assert from_json(BaseHeader, facts["base"]) == FACTS[kind]
    assert facts["bytes_by_part"]["base"] == sum(array.size for array in arrays.values())
    assert sum(facts["bytes_by_part"].values()) == path.stat().st_size
    assert (facts["parameters"], facts["bits_per_parameter"]) == (0, None)
