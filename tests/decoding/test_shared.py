# SPDX-License-Identifier: MIT
"""Parameters that all segments share: stored once, read as if each segment had its own."""

import json

import numpy as np
import pytest
import sharing
from containers import tampered

import nervcodec
from nervcodec.errors import ContainerError
from nervcodec.formats import bitstream
from nervcodec.formats.container import Container
from nervcodec.formats.weights import EMBEDDED, MARK
from nervcodec.network.summary import bytes_by_part, shared_weights, weights_by_part


@pytest.fixture
def files(tmp_path):
    return sharing.apart(tmp_path / "apart.nerv"), sharing.together(tmp_path / "together.nerv")


def opened(path):
    return nervcodec.open(path, device="cpu", precision="fp32")


def test_shared_parameters_decode_to_the_same_frames(files):
    apart, together = map(opened, files)
    with apart, together:
        assert np.array_equal(apart[:], together[:])
        assert np.array_equal(apart.embeddings(), together.embeddings())
        assert apart[:].std() > 5  # something is to be seen
        assert not np.array_equal(apart[0], apart[9])
        assert [together.embedded_frames(n) for n in (0, 1)] == list(sharing.EMBEDDED)
        assert together.needs(3) == apart.needs(3)
    assert files[1].stat().st_size < files[0].stat().st_size - 3_000


def test_search_decodes_nothing_but_the_semantic_head(files, monkeypatch):
    decoded, original = [], bitstream._decode_integers
    monkeypatch.setattr(
        bitstream, "_decode_integers", lambda line, coder: decoded.append(line.name) or original(line, coder)
    )
    with opened(files[1]) as video:
        video.embeddings()
    assert decoded
    assert all(name.startswith(("semantic.", MARK)) for name in decoded)


MOVES = {
    "tensor 'grids.5.values' should be among the segment's own": lambda s: s["shared/"].update(
        {"grids.5.values": s["0/"].pop("grids.5.values")}
    ),
    "tensor 'raise_.0.bias' stands among the shared parameters and a segment's own": lambda s: s["0/"].update(
        {"raise_.0.bias": s["shared/"]["raise_.0.bias"]}
    ),
    "tensor 'semantic.gain' stands among the shared parameters and a segment's own": lambda s: s["0/"].update(
        {"semantic.gain": s["shared/"]["semantic.gain"]}
    ),
    r"tensor 'raise_.0.bias': expected \(\d+,\), stored none": lambda s: s["shared/"].pop("raise_.0.bias"),
    r"tensor 'semantic.codes': expected \(\d, 4, 2, 3\), stored none": lambda s: [
        s[prefix].pop("semantic.codes") for prefix in ("0/", "1/")
    ],
    "tensor shared/weights: the table ':embedded' does not hold": lambda s: s["shared/"].update(
        {EMBEDDED: s["0/"][EMBEDDED]}
    ),
    r"expected none, stored \(3,\)": lambda s: s["shared/"].update({"enter.9.bias": np.ones(3, np.float32)}),
    "0 frames with embeddings for [23] semantic codes": lambda s: [s[prefix].pop(EMBEDDED) for prefix in ("0/", "1/")],
}


@pytest.mark.parametrize("message", MOVES)
def test_a_tensor_on_the_wrong_side_twice_or_missing_is_refused(tmp_path, message):
    path = sharing.together(tmp_path / "a.nerv", MOVES[message])
    with opened(path) as video, pytest.raises(ContainerError, match=rf"^{path}: .*{message}"):
        video.network(0)


def test_shareable_parameters_may_be_stored_in_each_segment(files, tmp_path):
    def move(streams):
        tensor = streams["shared/"].pop("raise_.0.bias")
        for prefix in ("0/", "1/"):
            streams[prefix]["raise_.0.bias"] = tensor

    with opened(sharing.together(tmp_path / "a.nerv", move)) as moved, opened(files[1]) as video:
        assert np.array_equal(moved[0], video[0])
        assert np.array_equal(moved[-1], video[-1])


HEADERS = {
    "shared parameters are one array, 'shared/weights'": lambda h: h["tensors"].update(
        {"shared/x": {"checksum": "0" * 16}}
    ),
    "shared parameters are one array, 'more/weights'": lambda h: h.update(shared="more/"),
    "shared parameters and a segment have the same prefix": lambda h: h.update(shared="0/"),
    "a prefix ends with its only slash": lambda h: h.update(shared="shared"),
    "a tensor belongs to no segment": lambda h: h.pop("shared"),
    "shared must be of type str": lambda h: h.update(shared=3),
}


@pytest.mark.parametrize("message", HEADERS)
def test_impossible_headers_are_refused(files, message):
    with pytest.raises(ContainerError, match=message):
        Container.open(tampered(files[1], HEADERS[message]))


def test_tables_of_the_stream_are_refused_in_the_header(files):
    for change in (
        lambda h: h["segments"][0]["network"].update(pace=[1] * 8),
        lambda h: h["segments"][0]["network"]["semantic"].update(code_frames=[0, 3, 7]),
    ):
        path = tampered(files[1], change)
        with opened(path) as video, pytest.raises(ContainerError, match=r"tampered\.nerv: the header has frame tables"):
            video.network(0)


def test_info_and_verify(files, run):
    _, together = files
    with Container.open(together) as container:
        weights, shared = weights_by_part(container), shared_weights(container)
        parts = bytes_by_part(container, weights)
    assert shared is not None
    assert sum(parts.values()) == together.stat().st_size
    facts = json.loads(run("info", together, "--json").stdout)
    assert facts["shared"] == "shared/"
    assert (facts["shared_parameters"], facts["shared_bytes"]) == shared[::-1]
    assert facts["parameters"] == sum(part.parameters for part in weights.values()) > shared.parameters
    assert f"{shared.parameters:,} parameters, {shared.bytes:,} bytes" in run("info", together).stdout
    assert "whole (3 tensors" in run("verify", together).stdout
    plain = json.loads(run("info", files[0], "--json").stdout)
    assert "shared_parameters" not in plain
    assert plain["parameters"] == facts["parameters"] + shared.parameters
