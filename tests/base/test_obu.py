# SPDX-License-Identifier: MIT
"""AV1 streams of two encoders, with and without delimiters, damaged and cut."""

import re
import subprocess

import imageio_ffmpeg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import delimited

from nervcodec.base import obu
from nervcodec.errors import ContainerError

SVT = ["-c:v", "libsvtav1", "-preset", "10", "-crf", "50"]
AOM = ["-c:v", "libaom-av1", "-cpu-used", "8", "-crf", "50"]


def coded(*output, frames=12, size="96x64", pixels="yuv420p"):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", f"testsrc2=s={size}:r=25"]
    command += ["-frames:v", str(frames), "-pix_fmt", pixels, *output, "-f", "obu", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


STREAMS = {
    "svt": (SVT, {}),
    "svt, nothing hidden": ([*SVT, "-svtav1-params", "pred-struct=1"], {}),
    "svt, 10 bits": (SVT, {"pixels": "yuv420p10le"}),
    "aom": ([*AOM, "-lag-in-frames", "12"], {}),
    "aom, nothing hidden": ([*AOM, "-lag-in-frames", "0"], {}),
    "aom, tiles apart": ([*AOM, "-tiles", "2x2", "-aom-params", "num-tile-groups=4"], {"size": "256x256"}),
    "aom, 4:4:4": (AOM, {"pixels": "yuv444p"}),
    "aom, still": ([*AOM, "-still-picture", "1"], {"frames": 1}),
    "one frame": (SVT, {"frames": 1}),
}


@pytest.fixture(scope="module", params=STREAMS)
def stream(request):
    output, facts = STREAMS[request.param]
    return coded(*output, **facts), facts


def by_delimiters(stream):
    """Temporal units as the encoder cut them."""
    cuts = [unit.begin for unit in obu.obus(stream) if unit.kind == 2] + [len(stream)]
    return [stream[a + 2 : b] for a, b in zip(cuts, cuts[1:], strict=False)]


def test_units_are_found_without_delimiters(stream):
    data, facts = stream
    expected = by_delimiters(data)
    assert len(expected) == facts.get("frames", 12)
    bare = obu.without_delimiters(data)
    assert len(bare) == len(data) - 2 * len(expected)
    assert [bytes(unit) for unit in obu.temporal_units(bare)] == expected
    assert [bytes(unit) for unit in obu.temporal_units(data)] == expected
    assert delimited(bare) == data
    assert obu.without_delimiters(bare) == bare


def test_hidden_frames_are_really_there():
    kinds = [[unit.kind for unit in obu.obus(unit)] for unit in obu.temporal_units(coded(*AOM, "-lag-in-frames", "12"))]
    assert max(map(len, kinds[1:])) > 1


@pytest.fixture(scope="module")
def bare():
    return obu.without_delimiters(coded(*SVT))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[:-1], "ends within a unit"),
        (lambda data: data[:1], "ends within a unit"),
        (lambda data: b"\xff" + data, "no unit begins at byte 0"),
        (lambda data: b"\x16\x08" + data[1:], "spatial layers"),
        (lambda data: data[len_of_first(data) :], "does not begin with a sequence header"),
        (lambda data: data[: len_of_first(data)], "is empty"),
        (lambda data: b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff" + data, "the size at byte 0 does not end"),
        (lambda data: b"\x0a\x00" + data, "a header is cut short"),
        (lambda data: data[: len_of_first(data)] + b"\x1a\x01\x10" + data, "a frame has no tiles"),
        (lambda data: data[: len_of_first(data)] + b"\x32\x01\x30" + data, "does not begin with a key frame"),
        (lambda data: data + b"\x32\x01\x00", "ends within a frame"),
        (lambda data: data + b"\x32\x01\x00\x12\x00", "a delimiter stands within a frame"),
    ],
)
def test_damage_is_said_in_one_line(damage, message, bare):
    with pytest.raises(ContainerError, match=re.escape(message)) as caught:
        obu.temporal_units(damage(bare))
    assert "\n" not in str(caught.value)


def len_of_first(data):
    return next(iter(obu.obus(data))).end


def attempt(data):
    for call in (obu.temporal_units, obu.without_delimiters):
        try:
            call(data)
        except ContainerError as error:
            assert "AV1 stream" in str(error)  # noqa: PT017


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_never_crashes(data):
    attempt(data)
    attempt(b"\x0a" + bytes([min(len(data), 127)]) + data)


@given(st.data())
def test_flipped_bits_never_crash(bare, data):
    broken = bytearray(bare)
    for _ in range(data.draw(st.integers(1, 5))):
        broken[data.draw(st.integers(0, len(broken) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    attempt(bytes(broken[: data.draw(st.integers(0, len(broken)))]))


def test_padding_and_metadata(bare):
    """Padding stays with the frame before it, metadata goes with the frame after it."""
    units = [bytes(unit) for unit in obu.temporal_units(bare)]
    padding, metadata = b"\x7a\x02\x80\x80", b"\x2a\x02\x01\x80"
    found = obu.temporal_units(units[0] + padding + metadata + units[1] + padding)
    assert [bytes(unit) for unit in found] == [units[0] + padding, metadata + units[1] + padding]
