# SPDX-License-Identifier: MIT
"""The commands print of the golden files what is recorded (see ``tests/transcripts.py``)."""

import json
import math
import shutil

import pytest
import transcripts

# The last digits of floats depend on the processor, and with them the ends of a moment, where scores of neighbouring
# frames are nearly equal.
TOLERANCE = {"psnr": 0.02, "frames": 0.3, "search --json": 2e-3, "start": 0.5, "end": 0.5, "eval --json": 1e-2}


def differences(printed, recorded, tolerance=0.0, key_path=""):
    """Where two JSON values differ by more than a tolerance."""
    if isinstance(printed, dict) and isinstance(recorded, dict):
        keys = sorted({*printed, *recorded})
        return [
            line
            for key in keys
            for line in differences(
                printed.get(key), recorded.get(key), TOLERANCE.get(key, tolerance), f"{key_path}/{key}"
            )
        ]
    if isinstance(printed, list) and isinstance(recorded, list) and len(printed) == len(recorded):
        pairs = enumerate(zip(printed, recorded, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, tolerance, f"{key_path}/{i}")]
    numbers = isinstance(printed, (int, float)) and isinstance(recorded, (int, float))
    if printed == recorded or (numbers and tolerance and math.isclose(printed, recorded, abs_tol=tolerance)):
        return []
    return [f"{key_path}: {printed!r}, recorded {recorded!r}"]


@pytest.mark.slow
@pytest.mark.parametrize("name", transcripts.SOURCES)
def test_output_for_golden_files(name, run, tmp_path):
    shutil.copy(transcripts.GOLDEN / f"{name}.nerv", tmp_path)
    recorded = json.loads((transcripts.RECORDED / f"{name}.json").read_text())
    printed = json.loads(json.dumps(transcripts.of_file(name, run, tmp_path)))
    assert differences(printed, recorded) == []


def test_help_texts(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for command, text in transcripts.help_texts(run).items():
        recorded = transcripts.RECORDED / f"help_{command or 'nervcodec'}.txt"
        assert text == recorded.read_text(), f"{command} --help"
