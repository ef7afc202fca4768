# SPDX-License-Identifier: MIT
"""Outputs that no command writes: an input, and a container under the name of a video."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from nervcodec.cli.main import cli

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def invoke(carphone, tmp_path, monkeypatch):
    """A command in a folder with ``clip.mp4`` and ``x.mp4``, a container that was renamed."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(GOLDEN / "version3_base.nerv", tmp_path / "x.mp4")
    shutil.copy(GOLDEN / "version3_base.nerv", tmp_path / "x.nerv")
    shutil.copy(carphone, tmp_path / "clip.mp4")
    return lambda *arguments: CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize("name", ["new.mp4", "new.MKV", "new.png", "new.gif"])
@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_encode_writes_no_container_named_as_a_video(name, workers, invoke, tmp_path):
    result = invoke("encode", "clip.mp4", "-o", name, "--base", "av1", "--encoder", "none", *workers)
    assert result.exit_code == 1
    line = f"nervcodec: {name}: has the suffix of a video or an image; name the container new.nerv\n"
    assert result.stderr == line
    assert not (tmp_path / name).exists()


def test_encode_makes_no_folder_named_as_a_video(invoke, tmp_path):
    result = invoke("encode", "clip.mp4", "x.mp4", "-o", "new.mp4", "--base", "av1")
    assert result.exit_code == 2
    assert "'new.mp4' is the name of one file" in result.stderr
    assert not (tmp_path / "new.mp4").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode", "clip.mp4", "-o", "clip.mp4"),
        ("encode", "clip.mp4", "-o", "clip.mp4", "--workers", "1"),
        ("decode", "x.mp4", "-o", "x.mp4"),
        ("decode", "x.mp4", "-o", "./x.mp4", "--base-only"),
        ("search", "a car", "x.nerv", "--sheet", "x.nerv"),
        ("eval", "x.nerv", "clip.mp4", "--per-frame", "clip.mp4"),
        ("eval", "x.nerv", "clip.mp4", "--per-frame", "x.nerv"),
    ],
)
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_no_command_writes_over_its_input(arguments, force, invoke, tmp_path):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = invoke(*arguments, *force)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].endswith(": input and output are the same file")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
