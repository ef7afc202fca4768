# SPDX-License-Identifier: MIT
"""An encode whose frames do not fit into memory is refused before it begins."""

import pytest

import nervcodec
from nervcodec.device import available_memory, physical_memory
from nervcodec.encoding import plan as planning
from nervcodec.errors import ConfigError

SETTINGS = {"encoder": "none", "epochs": 1, "duration_s": 2.0}


@pytest.mark.parametrize(
    ("free_mb", "advice"),
    [
        (3, "--scale 112x96 makes it 1.935 MB; --duration 1s makes it 2.281 MB; --base av1 needs no such memory"),
        (0, "are free; --base av1 needs no such memory"),
    ],
)
def test_frames_that_do_not_fit(free_mb, advice, carphone, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "available_memory", lambda _device: int(free_mb * 1e6))
    text = rf"a network alone keeps its frames in memory: 60 frames of 176x144 take 4.562 MB, and .*{advice}$"
    with pytest.raises(ConfigError, match=text):
        nervcodec.encode(carphone, tmp_path / "a.nerv", **SETTINGS)
    assert not list(tmp_path.iterdir())
    nervcodec.encode(carphone, tmp_path / "a.nerv", base="av1", encoder="none", duration_s=2.0)


def test_segments_that_fit_one_at_a_time_are_encoded(carphone, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "available_memory", lambda _device: 3_000_000)
    report = nervcodec.encode(carphone, tmp_path / "a.nerv", **SETTINGS, segment="1s")
    assert report.frames == 60


def test_the_memory_of_this_machine():
    available, physical = available_memory("cpu"), physical_memory()
    if available is None or physical is None:
        pytest.skip("the system does not say")
    assert 0 < available < physical
